"""DCMTK as the sending and as the receiving PACS, over loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from firstread.integration.dicom.send import DicomPeer, OutcomeKind, Sender, echo, send_files
from tests.integration.dicom_wire import (
    BIG_ENDIAN,
    CR,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Film,
    data_set_of,
    new_uid,
    receiving,
)
from tests.peers import free_port, real_films, require_peer


def write_film(path: Path, megabytes: float = 0.01, syntax: str = EXPLICIT, sop_class: str = CR) -> Path:
    """A film that DCMTK reads, native or deflated."""
    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = sop_class, new_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = new_uid(), new_uid()
    film.PatientID, film.PatientName, film.Modality = "P1", "Wire^Test", "CR"
    film.Rows, film.Columns = max(2, int(megabytes * 1000)), 500
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelData = os.urandom(film.Rows * film.Columns * 2)
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    film.save_as(path, enforce_file_format=True)
    return path


def run(*command: str | Path, expected: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def storescu(port: int, *arguments: str | Path) -> str:
    return run(
        require_peer("storescu"), "-v", "-aec", "FIRSTREAD", *arguments[:-1], "127.0.0.1", str(port), arguments[-1]
    )


@pytest.mark.parametrize(
    ("syntax", "option"), [(EXPLICIT, "-xe"), (IMPLICIT, "-xi"), (BIG_ENDIAN, "-xb"), (DEFLATED, "-xd")]
)
def test_storescu_sends_every_native_encoding_and_it_is_kept_bit_for_bit(tmp_path: Path, syntax, option) -> None:
    path = write_film(tmp_path / "film.dcm", 0.2, syntax)
    with receiving(tmp_path) as (receiver, inbox):
        assert "Received Store Response (Success)" in storescu(receiver.address[1], option, path)
    (kept,) = inbox.instances
    if syntax == DEFLATED:
        # native stands beside it in storescu's context, and native is what we take
        assert pydicom.dcmread(kept.path).PixelData == pydicom.dcmread(path).PixelData
    else:
        assert kept.transfer_syntax_uid == syntax
        assert data_set_of(kept.path) == data_set_of(path)


def test_dcmsend_forwards_real_films_and_lossless_stays_lossless(tmp_path: Path) -> None:
    films = sorted((real_films() / "dicom").glob("*.dcm"))
    with receiving(tmp_path) as (receiver, inbox):
        for film in films:
            run(require_peer("dcmsend"), "-aec", "FIRSTREAD", "127.0.0.1", str(receiver.address[1]), film)
    assert len(inbox.instances) == len(films)
    for film, kept in zip(films, inbox.instances, strict=True):
        sent = pydicom.dcmread(film, stop_before_pixels=True)
        assert kept.sop_instance_uid == sent.SOPInstanceUID
        assert kept.study_instance_uid == sent.StudyInstanceUID
        assert kept.header.get("PatientName") == sent.get("PatientName")


def test_compressed_films_of_storescu_arrive_as_they_are(tmp_path: Path) -> None:
    folder = real_films() / "dicom"
    with receiving(tmp_path) as (receiver, inbox):
        names = (("RG3_J2KR", "-xv"), ("RG1_J2KI", "-xw"), ("rsna_cr_jpeg_baseline", "-xy"), ("RG2_JPLL", "-xs"))
        for name, option in names:
            storescu(receiver.address[1], "-R", option, folder / f"{name}.dcm")
            sent, kept = pydicom.dcmread(folder / f"{name}.dcm"), pydicom.dcmread(inbox.instances[-1].path)
            assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
            assert kept.PixelData == sent.PixelData  # storescu itself writes sequences anew


def test_whole_study_with_its_companions_goes_over_one_association(tmp_path: Path) -> None:
    classes = [
        CR,
        "1.2.840.10008.5.1.4.1.1.11.1",  # greyscale softcopy presentation state
        "1.2.840.10008.5.1.4.1.1.88.59",  # key object selection
        "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.67",  # dose
        "1.2.840.10008.5.1.4.1.1.104.1",  # PDF
    ]
    folder = tmp_path / "study"
    folder.mkdir()
    for number, sop_class in enumerate(classes):
        write_film(folder / f"{number}.dcm", sop_class=sop_class)
    with receiving(tmp_path) as (receiver, inbox):
        run(require_peer("dcmsend"), "-aec", "FIRSTREAD", "+sd", "127.0.0.1", str(receiver.address[1]), folder)
        receiver.stop()
    assert sorted(kept.sop_class_uid for kept in inbox.instances) == sorted(classes)
    assert len(inbox.events) == 2


def test_hundred_small_files_in_one_association_of_storescu(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(100):
        write_film(folder / f"{number:03d}.dcm")
    with receiving(tmp_path) as (receiver, inbox):
        storescu(receiver.address[1], "+sd", folder)
        receiver.stop()
    assert len(inbox.instances) == 100
    assert len(inbox.events) == 2


def test_film_of_forty_megabytes_and_eight_associations_at_once(tmp_path: Path) -> None:
    large = write_film(tmp_path / "large.dcm", 40)
    small = [write_film(tmp_path / f"small{number}.dcm", 1) for number in range(8)]
    with receiving(tmp_path) as (receiver, inbox):
        port = receiver.address[1]
        senders = [threading.Thread(target=storescu, args=(port, path)) for path in [large, *small]]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(100)
    assert sorted(data_set_of(kept.path) for kept in inbox.instances) == sorted(map(data_set_of, [large, *small]))


def test_echoscu_is_answered_and_a_wrong_called_title_is_told(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _):
        port = str(receiver.address[1])
        assert "(Success)" in run(require_peer("echoscu"), "-v", "-aec", "FIRSTREAD", "127.0.0.1", port)
        told = run(require_peer("echoscu"), "-v", "-aec", "WRONG", "127.0.0.1", port, expected=1)
        assert "Called AE Title Not Recognized" in told


def test_storescu_killed_in_the_middle_leaves_nothing_acknowledged(tmp_path: Path) -> None:
    path = write_film(tmp_path / "large.dcm", 60)
    with receiving(tmp_path) as (receiver, inbox):
        scu = [require_peer("storescu"), "-aec", "FIRSTREAD", "--max-send-pdu", "4096"]
        sender = subprocess.Popen([*scu, "127.0.0.1", str(receiver.address[1]), str(path)])
        incoming = tmp_path / "incoming"
        deadline = time.monotonic() + 20
        while not any(each.stat().st_size > 100_000 for each in incoming.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)
        sender.kill()
        sender.wait()
        while list(incoming.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(incoming.iterdir()) == []
        assert inbox.instances == []


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator:
    """Starts DCMTK's receiver with options; answers with the peer to send to and its folder."""
    running = []

    def start(*options: str) -> tuple[DicomPeer, Path]:
        port, folder = free_port(), tmp_path / f"pacs{len(running)}"
        folder.mkdir()
        program = require_peer("storescp")
        running.append(subprocess.Popen([program, *options, "-od", str(folder), "+uf", str(port)]))
        peer = DicomPeer("pacs", "127.0.0.1", port, "STORESCP")
        deadline = time.monotonic() + 10
        while not echo(peer).ok:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return peer, folder

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_storescp_gets_our_bytes_as_they_are_and_implicit_only_gets_them_converted(tmp_path: Path, storescp) -> None:
    path = write_film(tmp_path / "film.dcm", 0.3, sop_class="1.2.840.10008.5.1.4.1.1.7")
    peer, folder = storescp("+B")
    ((_, outcome),) = send_files(peer, [path])
    assert (outcome.kind, outcome.status) == (OutcomeKind.DELIVERED, 0)
    (kept,) = folder.iterdir()
    assert data_set_of(kept) == data_set_of(path)
    peer, folder = storescp("+xi")
    with Sender(peer) as sender:
        assert sender.store(path).delivered
    (kept,) = folder.iterdir()
    again = pydicom.dcmread(kept)
    assert again.file_meta.TransferSyntaxUID == IMPLICIT
    assert again == pydicom.dcmread(path)


def test_storescp_takes_every_real_film_odd_ones_too(storescp) -> None:
    peer, folder = storescp("+xa")
    films = sorted((real_films() / "dicom").glob("*.dcm"))
    assert [(path.name, outcome.status) for path, outcome in send_files(peer, films)] == [
        (path.name, 0) for path in films
    ]
    assert len(list(folder.iterdir())) == len(films)


def test_storescp_without_a_codec_is_a_refusal_that_says_what_to_enable(storescp) -> None:
    peer, _ = storescp()
    ((_, outcome),) = send_files(peer, [real_films() / "dicom" / "RG3_J2KR.dcm"])
    assert (outcome.kind, outcome.status) == (OutcomeKind.REJECTED, None)
    assert "1.2.840.10008.1.2.4.90" in outcome.comment


def test_storescp_that_aborts_every_film_is_a_retry(tmp_path: Path, storescp) -> None:
    peer, _ = storescp("--abort-during")
    ((_, outcome),) = send_files(peer, [write_film(tmp_path / "film.dcm")])
    assert outcome.kind is OutcomeKind.RETRY
    assert "abort" in outcome.comment.lower()


RECEIVER_ALONE = """
import json, sys, threading
from pathlib import Path
from firstread.integration.dicom.receive import SUCCESS, Receiver, ReceiveSettings
folder = Path(sys.argv[1])
lock, kept = threading.Lock(), []
def take(instance):
    instance.path.unlink()
    with lock:
        kept.append(instance.size_bytes)
    return SUCCESS
receiver = Receiver(ReceiveSettings("FIRSTREAD", "127.0.0.1", 0, folder / "alone", disk_reserve_bytes=0), take)
receiver.start()
print(receiver.address[1], flush=True)
sys.stdin.readline()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"films": len(kept), "peak_mb": int(status["VmHWM"].split()[0]) / 1024}))
"""


@pytest.mark.slow
def test_eight_associations_of_fifteen_megabyte_films_stay_below_150_mb(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.dcm", 15)
    program = [sys.executable, "-c", RECEIVER_ALONE, str(tmp_path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        senders = [threading.Thread(target=storescu, args=(port, "--repeat", "4", path)) for _ in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(100)
        measured = json.loads(process.communicate("\n", timeout=30)[0])
    assert measured["films"] >= 32
    assert measured["peak_mb"] < 150


def test_film_class_of_the_helpers_is_what_dcmtk_understands(tmp_path: Path) -> None:
    """The hand-made films of the wire tests are real DICOM: DCMTK reads them."""
    from firstread.integration.dicom.part10 import meta_header

    film = Film()
    path = tmp_path / "film.dcm"
    path.write_bytes(meta_header(CR, film.sop_instance_uid, EXPLICIT, source_ae_title="X") + film.data_set())
    assert film.study_instance_uid in run(require_peer("dcmdump"), path)
