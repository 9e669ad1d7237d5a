"""Receiving: films a second, CPU, memory and the sender's wait, beside what a site would run instead.

    python -m benchmarks.ingest [--short] [--rounds N] [--json FILE] [--folder DIR]

C-STORE of 15 MB native, 5 MB JPEG 2000 and 1 MB native films over one and eight associations; 1 MB films with one study
an association besides. The sender is DCMTK's storescu, which makes new UIDs for every film. Receivers:

- ours: receiver and intake as the role "receive" runs them, SQLite beside the films: every film is hashed, written,
  synced, renamed, its folder synced, and its rows committed, before Success;
- storescp: DCMTK's, ``--fork``; it syncs nothing and keeps no list;
- Orthanc, with its index, as Debian's package sets it up;
- pynetdicom's own storescp application;
- the disk: the same bytes written by a plain loop, each film synced, renamed, and its folder synced.

STOW-RS of the 15 MB film over one connection: ours (the role "web") and Orthanc's. The sender hands the whole request
to the system at once, so that it is no slower than storescu.

Every receiver takes some films before the clock starts. CPU is the receiver's, its children's among it, once they have
ended. ``wait ms`` is from the last byte of a film of one to the response. Every film that was acknowledged must lie in
the receiver's storage, and its pixels are compared by their hash, before a figure is printed.

Last line, ``ratio``: films a second, ours to storescp's, the worst of one and eight associations at 15 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psutil
import structlog
from sqlalchemy import select

from benchmarks.harness import Measured, PeerMissing, arguments, program, report, require, rounds
from firstread.agent.config_wire import receive_settings
from firstread.agent.intake import Intake
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import site_uid, upgrade
from firstread.agent.store.tables import instance
from firstread.agent.web.app import serve as serve_web
from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.receive import Receiver
from tests.agent.builders import settings_at
from tests.integration.dicom_wire import CR, EXPLICIT, Film, RawPeer
from tests.peers import free_port

JPEG_2000 = "1.2.840.10008.1.2.4.90"
MEGABYTE = 1_000_000
AE = "BENCH"


@dataclass(frozen=True)
class Case:
    """What is sent: ``size`` bytes of pixels, over so many associations, so many films each."""

    name: str
    size: int
    associations: int
    films: int
    jpeg: bool = False
    one_study_each: bool = False

    @property
    def count(self) -> int:
        """Films in all."""
        return self.associations * self.films


CASES = (
    Case("15 MB, 1 association", 15 * MEGABYTE, 1, 12),
    Case("15 MB, 8 associations", 15 * MEGABYTE, 8, 4),
    Case("5 MB JPEG 2000, 1 association", 5 * MEGABYTE, 1, 20, jpeg=True),
    Case("5 MB JPEG 2000, 8 associations", 5 * MEGABYTE, 8, 5, jpeg=True),
    Case("1 MB, 1 association", MEGABYTE, 1, 40),
    Case("1 MB, 8 associations", MEGABYTE, 8, 10),
    Case("1 MB, one study an association", MEGABYTE, 8, 10, one_study_each=True),
)
WORST = CASES[:2]
WARM = 3
"""Films before the clock starts, over C-STORE and STOW-RS."""


def write_film(folder: Path, case: Case) -> Path:
    """A film of noise, native or as one fragment; nobody here decodes."""
    path = folder / f"{case.size}-{case.jpeg}.dcm"
    if not path.exists():
        pixels = os.urandom(case.size)
        film = Film(pixels=pixels)
        content = film.data_set()
        if case.jpeg:
            fragment = b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\x00\xe0" + len(pixels).to_bytes(4, "little") + pixels
            head = content[: content.index(b"\xe0\x7f\x10\x00")]
            content = head + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + fragment + b"\xfe\xff\xdd\xe0" + bytes(4)
        syntax = JPEG_2000 if case.jpeg else EXPLICIT
        path.write_bytes(meta_header(CR, film.sop_instance_uid, syntax) + content)
    return path


def pixels_of(path: Path, size: int) -> str:
    """Hash of the last ``size`` bytes less what ends a sequence: the pixels, wherever a receiver put the header."""
    content = path.read_bytes()
    return hashlib.sha256(memoryview(content)[-size:-8]).hexdigest()


# Receivers


class Service:
    """A receiver that runs: where it listens, whose CPU counts, and where films lie."""

    def __init__(self, process: subprocess.Popen[str], port: int, stored: Callable[[], list[Path]]) -> None:
        self.process, self.port, self.stored = process, port, stored

    def cpu_s(self, *, children_end: bool = True) -> float:
        """Of the process and of its children, once they have ended (storescp's outlive their association a little);
        not so those that stay."""
        whole = psutil.Process(self.process.pid)
        deadline = time.monotonic() + 10
        children = whole.children(recursive=True)
        while children_end and any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
            require(time.monotonic() < deadline, "a child of the receiver does not end")
            time.sleep(0.01)
        times = [whole.cpu_times(), *(child.cpu_times() for child in children if child.is_running())]
        return sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system

    def peak_mb(self) -> float:
        """Largest resident memory of the process so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1000 if found else 0.0


@contextmanager
def ours(folder: Path, role: str = "receive") -> Iterator[Service]:
    """Our receiver, or our web role, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--serve", role, "--folder", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def stored() -> list[Path]:
            store = Store(settings_at(folder).database_url)
            with store.read() as connection:
                rows = connection.execute(select(instance.c.path)).scalars().all()
            store.close()
            return [folder / row for row in rows]

        try:
            yield Service(process, port, stored)
        finally:
            process.communicate("\n")


@contextmanager
def listening(command: list[str], port: int, stored: Callable[[], list[Path]]) -> Iterator[Service]:
    """Another receiver, once it answers C-ECHO."""
    echo = program("echoscu", "dcmtk")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            for _ in range(200):
                if subprocess.run([echo, "-q", "-aec", AE, "127.0.0.1", str(port)], check=False).returncode == 0:
                    break
                time.sleep(0.1)
            yield Service(process, port, stored)
        finally:
            process.terminate()


@contextmanager
def storescp(folder: Path) -> Iterator[Service]:
    """DCMTK's."""
    port = free_port()
    command = [program("storescp", "dcmtk"), "--quiet", "--fork", "+xa", "-od", str(folder), "-uf", str(port)]
    with listening(command, port, lambda: list(folder.glob("CR*"))) as service:
        yield service


@contextmanager
def by_pynetdicom(folder: Path) -> Iterator[Service]:
    """pynetdicom's storescp application."""
    port = free_port()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(folder), "-q", "-aet", AE]
    with listening(command, port, lambda: [one for one in folder.iterdir() if one.is_file()]) as service:
        yield service


@contextmanager
def orthanc(folder: Path, *, stow: bool = False) -> Iterator[Service]:
    """Orthanc, with its DICOMweb plug-in where asked for."""
    from tests.system.orthanc import Orthanc

    program("Orthanc", "orthanc")
    peer = Orthanc(folder / "orthanc", dicomweb={} if stow else None)
    peer.start(free_port())
    assert peer._process is not None

    def stored() -> list[Path]:
        names = peer.get("/instances")
        return [one for one in (folder / "orthanc" / "storage").glob("*/*/*") if one.stat().st_size > 100_000][
            : len(names)
        ]

    try:
        yield Service(peer._process, peer.http_port if stow else peer.dicom_port, stored)  # type: ignore[arg-type]
    finally:
        peer.stop()


def serve(role: str, folder: Path) -> None:
    """Our side, until a line comes in."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    dicom = {"ae_title": AE, "host": "127.0.0.1", "check_called_ae": False, "port": free_port()}
    settings = settings_at(folder, dicom=dicom)
    store = Store(settings.database_url)
    upgrade(store)
    stop = threading.Event()
    if role == "web":
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen(64)
        print(bound.getsockname()[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
        serve_web(settings, store, stop, bound)
        return
    intake = Intake(settings, store, site_uid(store))
    receiver = Receiver(receive_settings(settings), intake.take, intake.note_refusal, intake.note_association)
    receiver.start()
    print(receiver.address[1], flush=True)
    sys.stdin.readline()
    receiver.stop()


# Playing


RECEIVERS: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[Service]]] = {
    "ours": ours,
    "storescp": storescp,
    "Orthanc": orthanc,
    "pynetdicom": by_pynetdicom,
}


def play(receiver: str, case: Case, film: Path, top: Path) -> Mapping[str, float]:
    """One receiver takes one case, from nothing."""
    storescu = program("storescu", "dcmtk")
    folder = Path(tempfile.mkdtemp(dir=top))
    try:
        with RECEIVERS[receiver](folder) as service:
            waits = wait_ms(service.port, case.size)
            before = service.cpu_s()
            command = [
                storescu,
                "--quiet",
                "-aec",
                AE,
                "+II",
                *(["+IR", "1000", "+IS", "1"] if case.one_study_each else []),
            ]
            command += [*(["-xv"] if case.jpeg else []), "--repeat", str(case.films)]
            began = time.perf_counter()
            senders = [
                subprocess.Popen([*command, "127.0.0.1", str(service.port), str(film)])
                for _ in range(case.associations)
            ]
            ended = [sender.wait() for sender in senders]
            took = time.perf_counter() - began
            require(not any(ended), f"{receiver}: storescu ended with {ended}")
            spent = service.cpu_s() - before
            peak = service.peak_mb()
            check(service, case.count, film, case.size, others=len(waits))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = {"films/s": case.count / took, "CPU ms a film": spent / case.count * 1000, "peak MB": peak}
    return figures | ({} if case.jpeg else {"wait ms": sorted(waits)[len(waits) // 2]})


def check(service: Service, count: int, film: Path, size: int, others: int = 0) -> None:
    """Raises WrongResult unless ``count`` films lie there with the pixels of ``film``, and ``others`` beside them."""
    found = service.stored()
    require(len(found) == count + others, f"{len(found)} films are stored, {count + others} were acknowledged")
    wanted = pixels_of(film, size)
    same = sum(pixels_of(path, size) == wanted for path in found)
    require(same == count, f"{same} stored films have the pixels that were sent, {count} were sent")


def wait_ms(port: int, size: int) -> list[float]:
    """From the last byte of a film to its response, over one association, by a sender of our own."""
    film, waits = Film(pixels=os.urandom(size)), []
    with RawPeer(("127.0.0.1", port), timeout_s=60) as peer:
        peer.associate(called=AE)
        for _ in range(WARM):
            one = Film(pixels=film.pixels, study_instance_uid=film.study_instance_uid)
            peer.send_store(one)
            began = time.perf_counter()
            status, _comment = peer.read_response()
            waits.append((time.perf_counter() - began) * 1000)
            require(status == 0, f"a film was answered {status:04X}")
    return waits


def disk(case: Case, film: Path, top: Path) -> Mapping[str, float]:
    """The limit: the same bytes, written and synced, one after the other."""
    content, folder = film.read_bytes(), Path(tempfile.mkdtemp(dir=top))
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(case.count):
        partial_file = folder / f"{number}.part"
        with partial_file.open("wb", buffering=0) as stream:
            stream.write(content)
            os.fsync(stream.fileno())
        partial_file.rename(folder / f"{number}.dcm")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    shutil.rmtree(folder)
    return {"films/s": case.count / took, "CPU ms a film": spent / case.count * 1000}


def stow(receiver: str, case: Case, film: Path, top: Path) -> Mapping[str, float]:
    """STOW-RS of so many films, one request each, over one connection."""
    folder = Path(tempfile.mkdtemp(dir=top))
    content, boundary = film.read_bytes(), "----film"
    old = re.search(rb"2\.25\.\d+", content)
    assert old is not None
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    start = ours(folder, "web") if receiver == "ours" else orthanc(folder, stow=True)
    took = before = 0.0
    try:
        with start as service, contextlib.closing(HTTPConnection("127.0.0.1", service.port, timeout=120)) as client:
            for number in range(WARM + case.count):
                uid = str(10 ** (len(old[0]) - 6) + number).encode()
                body = head + content.replace(old[0], b"2.25." + uid) + f"\r\n--{boundary}--\r\n".encode()
                if number == WARM:
                    took, before = 0.0, service.cpu_s()
                began = time.perf_counter()
                client.request("POST", "/dicom-web/studies", body, headers)
                answer = client.getresponse()
                text = answer.read()
                took += time.perf_counter() - began
                require(answer.status == 200, f"{receiver} answered {answer.status}: {text[:200]!r}")
            spent = service.cpu_s() - before
            check(service, WARM + case.count, film, case.size)
            peak = service.peak_mb()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"films/s": case.count / took, "CPU ms a film": spent / case.count * 1000, "peak MB": peak}


def main() -> None:
    """Measures, checks, prints."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where films are kept for the moment: the disk that is measured")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.folder)
        return
    count = asked.rounds or (2 if asked.short else 5)
    top = Path(tempfile.mkdtemp(prefix="firstread-ingest-", dir=asked.folder))
    try:
        rows = []
        for case in WORST if asked.short else CASES:
            film = write_film(top, case)
            rows += [Measured(case.name, name, partial(play, name, case, film, top)) for name in RECEIVERS]
            rows.append(Measured(case.name, "the disk", partial(disk, case, film, top)))
        film = write_film(top, CASES[0])
        rows += [
            Measured("15 MB, STOW-RS", name, partial(stow, name, CASES[0], film, top)) for name in ("ours", "Orthanc")
        ]
        rounds(rows, count)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    found = {(row.case, row.contender): row for row in rows}

    def ratio() -> float:
        each = [(found[case.name, "ours"], found[case.name, "storescp"]) for case in WORST]
        return min(mine.median("films/s") / theirs.median("films/s") for mine, theirs in each)

    with contextlib.suppress(PeerMissing):
        for name, peer in (("C-STORE", found[WORST[0].name, "ours"]), ("Orthanc", found["15 MB, STOW-RS", "Orthanc"])):
            mine = found["15 MB, STOW-RS", "ours"].median("films/s")
            print(f"STOW-RS, ours, to {name}: {mine / peer.median('films/s'):.2f}")
    report(rows, ratio, packages=("pynetdicom", "pydicom"), file=asked.json)


if __name__ == "__main__":
    main()
