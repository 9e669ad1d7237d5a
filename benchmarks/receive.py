"""Receiving: films/s, CPU seconds and memory for films of 15 MB, one and eight associations, beside DCMTK's storescp.

    python -m benchmarks.receive [--films 10] [--megabytes 15]

Needs storescu and storescp (package dcmtk). Ours syncs every film to disk (fsync) and hashes it; storescp does neither.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.receive import SUCCESS, ReceivedInstance, Receiver, ReceiveSettings, StoreStatus

CR, EXPLICIT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1"


def main() -> None:
    """Runs the trial and prints one JSON line per receiver and number of associations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=10, help="films per association")
    parser.add_argument("--megabytes", type=int, default=15)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(Path(asked.serve))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = folder / "film.dcm"
        write_film(film, asked.megabytes)
        for associations in (1, 8):
            print(json.dumps(ours(folder, film, associations, asked.films)))
        for associations in (1, 8):
            print(json.dumps(storescp(folder, film, associations, asked.films)))


def serve(folder: Path) -> None:
    """Our receiver in a process of its own, keeping a film as the agent does: rename, fsync of the folder."""

    def take(instance: ReceivedInstance) -> StoreStatus:
        os.replace(instance.path, folder / "kept.dcm")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return SUCCESS

    settings = ReceiveSettings("BENCH", "127.0.0.1", 0, folder / "incoming", disk_reserve_bytes=0)
    receiver = Receiver(settings, take)
    receiver.start()
    print(receiver.address[1], flush=True)
    sys.stdin.readline()
    receiver.stop()


def ours(folder: Path, film: Path, associations: int, films: int) -> dict[str, object]:
    """Our figures; CPU without the start of the process."""
    program = [sys.executable, "-m", "benchmarks.receive", "--serve", str(folder)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        before = cpu_s(process.pid)
        took = send(port, film, associations, films)
        spent = cpu_s(process.pid) - before
        peak = next(
            line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")
        )
        process.communicate("\n")
    return figures("firstread", associations, films, took, spent) | {"peak_mb": int(peak.split()[1]) // 1024}


def storescp(folder: Path, film: Path, associations: int, films: int) -> dict[str, object]:
    """storescp's figures: one process for one association, ``--fork`` for several."""
    from tests.peers import free_port

    port = free_port()
    target = folder / "storescp"
    target.mkdir(exist_ok=True)
    how = ["--fork"] if associations > 1 else []
    program = ["storescp", "--quiet", *how, "-od", str(target), "-uf", str(port)]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        while subprocess.run(["echoscu", "-q", "127.0.0.1", str(port)]).returncode:
            time.sleep(0.1)
        before = cpu_s(process.pid)
        took = send(port, film, associations, films)
        subprocess.run(["echoscu", "-q", "127.0.0.1", str(port)])  # it reaps its children with the next connection
        spent = cpu_s(process.pid) - before
        process.terminate()
    return figures("storescp", associations, films, took, spent)


def send(port: int, film: Path, associations: int, films: int) -> float:
    """Seconds until every sender has ended."""
    program = ["storescu", "--quiet", "-aec", "BENCH", "127.0.0.1", str(port), *[str(film)] * films]
    began = time.monotonic()
    senders = [subprocess.Popen(program) for _ in range(associations)]
    for sender in senders:
        if sender.wait():
            sys.exit("storescu failed")
    return time.monotonic() - began


def figures(name: str, associations: int, films: int, took: float, spent: float) -> dict[str, object]:
    """One line."""
    count = associations * films
    return {
        "receiver": name,
        "associations": associations,
        "films": count,
        "films_per_s": round(count / took, 1),
        "cpu_s_per_film": round(spent / count, 4),
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children that have been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def write_film(path: Path, megabytes: int) -> None:
    """A native 16-bit film of noise."""
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = CR, "2.25.1"
    film.StudyInstanceUID, film.SeriesInstanceUID, film.Modality = "2.25.2", "2.25.3", "CR"
    film.Rows, film.Columns = megabytes * 1000, 500
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelData = os.urandom(megabytes * 1_000_000)
    film["PixelData"].VR = "OW"
    content = DicomBytesIO()
    content.is_implicit_VR, content.is_little_endian = False, True
    write_dataset(content, film)
    path.write_bytes(meta_header(CR, "2.25.1", EXPLICIT) + content.getvalue())


if __name__ == "__main__":
    main()
