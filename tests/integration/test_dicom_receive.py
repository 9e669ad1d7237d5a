"""Receiving on the wire: what is kept, in which order it becomes durable, and which status answers what."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pydicom
import pytest

from firstread.integration.dicom import sink as sink_module
from firstread.integration.dicom.received import AssociationOutcome, ReceivedInstance
from firstread.integration.dicom.status import CannotUnderstand, DoesNotMatch, OutOfResources, StoreStatus
from tests.integration.dicom_wire import (
    BIG_ENDIAN,
    CR,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    Film,
    Inbox,
    RawPeer,
    data_set_of,
    element,
    new_uid,
    receiving,
    uid_value,
)


def test_data_set_lies_on_disk_bit_for_bit_with_our_meta_header(tmp_path: Path) -> None:
    film = Film(pixels=os.urandom(700_000))
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate(calling="XRAY_7")
        assert peer.store(film) == (0, "")
        assert peer.release() == 6
    (kept,) = inbox.instances
    assert data_set_of(kept.path) == film.data_set()
    assert kept.sha256 == hashlib.sha256(film.data_set()).hexdigest()
    assert kept.size_bytes == len(film.data_set())
    meta = pydicom.dcmread(kept.path, stop_before_pixels=True).file_meta
    assert meta.MediaStorageSOPInstanceUID == film.sop_instance_uid == kept.sop_instance_uid
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.SourceApplicationEntityTitle == "XRAY_7"
    assert meta.ImplementationVersionName.startswith("FIRSTREAD")
    assert (kept.study_instance_uid, kept.series_instance_uid) == (film.study_instance_uid, film.series_instance_uid)
    assert kept.calling_ae_title == "XRAY_7"
    assert "PixelData" not in kept.header
    assert kept.header.Modality == "CR"


@pytest.mark.parametrize(
    ("syntax", "encoded"),
    [
        (IMPLICIT, lambda film: film.data_set(implicit=True)),
        (BIG_ENDIAN, lambda film: film.data_set(big=True)),
        (DEFLATED, lambda film: _deflated(film.data_set())),
    ],
)
def test_every_native_encoding_is_kept_as_it_came_and_its_header_read(tmp_path: Path, syntax: str, encoded) -> None:
    film = Film()
    content = encoded(film)
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate([(CR, [syntax])])
        assert peer.store(film, content) == (0, "")
    assert data_set_of(inbox.instances[0].path) == content
    assert inbox.instances[0].transfer_syntax_uid == syntax
    assert inbox.instances[0].header.PatientName == "A^B"


def test_hundred_small_films_in_one_association_leave_nothing_behind(tmp_path: Path) -> None:
    films = [Film() for _ in range(100)]
    with receiving(tmp_path) as (receiver, inbox):
        with RawPeer(receiver.address) as peer:
            peer.associate()
            for number, film in enumerate(films):
                assert peer.store(film, message_id=number + 1) == (0, "")
            peer.release()
        receiver.stop()
        assert [kept.sop_instance_uid for kept in inbox.instances] == [film.sop_instance_uid for film in films]
        assert list((tmp_path / "incoming").iterdir()) == []
        assert inbox.events[-1].films == 100


def test_success_goes_out_only_after_write_fsync_and_the_owner(tmp_path: Path, monkeypatch) -> None:
    order: list[str] = []
    real_fsync, real_write = os.fsync, os.write

    def fsync(descriptor: int) -> None:
        order.append("fsync")
        real_fsync(descriptor)

    def write(descriptor: int, content: bytes) -> int:
        order.append("write")
        return real_write(descriptor, content)

    monkeypatch.setattr(sink_module.os, "fsync", fsync)
    monkeypatch.setattr(sink_module.os, "write", write)

    class Watching(Inbox):
        def take(self, instance: ReceivedInstance) -> StoreStatus:
            peer.socket.setblocking(False)
            with pytest.raises(BlockingIOError):  # nothing has been answered yet
                peer.socket.recv(1)
            peer.socket.settimeout(10)
            order.append("owner")
            return super().take(instance)

    with receiving(tmp_path, Watching(tmp_path / "inbox")) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_store(Film())
        assert peer.read_response()[0] == 0
    assert order[-2:] == ["fsync", "owner"]
    assert "write" in order[:-2]
    assert "write" not in order[order.index("fsync") :]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (OutOfResources("database locked too long"), 0xA700),
        (DoesNotMatch("no"), 0xA900),
        (CannotUnderstand("no"), 0xC000),
        (RuntimeError("a bug"), 0xA700),
    ],
)
def test_owner_failure_is_answered_with_its_status_and_the_association_goes_on(tmp_path, failure, status) -> None:
    class Failing(Inbox):
        def take(self, instance: ReceivedInstance) -> StoreStatus:
            if not self.refusals:
                raise failure
            return super().take(instance)

    film = Film()
    inbox = Failing(tmp_path / "inbox")
    with receiving(tmp_path, inbox) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.store(film)[0] == status
        assert peer.store(Film(), message_id=2)[0] == 0
    assert inbox.refusals[0].status == status
    assert inbox.refusals[0].study_instance_uid == film.study_instance_uid
    assert list((tmp_path / "incoming").iterdir()) == []


def test_owner_who_says_success_without_taking_the_file_is_not_believed(tmp_path: Path) -> None:
    class Forgetful(Inbox):
        def take(self, instance: ReceivedInstance) -> StoreStatus:
            return StoreStatus(0)

    inbox = Forgetful(tmp_path / "inbox")
    with receiving(tmp_path, inbox) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.store(Film())[0] == 0xA700


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


_GOOD = Film()

BAD_FILMS = {
    "no study instance uid": (Film(study_instance_uid=""), None, {}, 0xC000, "Study Instance UID"),
    "malformed study uid": (Film(study_instance_uid="1.2..3"), None, {}, 0xC000, "malformed"),
    "no sop instance uid in the data set": (
        _GOOD,
        Film(sop_instance_uid="").data_set(),
        {},
        0xC000,
        "SOP Instance UID (0008,0018) is missing",
    ),
    "another sop class": (_GOOD, None, {0x0002: uid_value("1.2.840.10008.5.1.4.1.1.2")}, 0xA900, "SOP Class"),
    "another sop instance": (_GOOD, None, {0x1000: uid_value(new_uid())}, 0xC000, "SOP Instance"),
    "no sop instance uid in the command": (_GOOD, None, {0x1000: b""}, 0xC000, "Affected SOP Instance"),
    "path as uid": (_GOOD, None, {0x1000: b"../../etc/passwd"}, 0xC000, "Affected SOP Instance"),
    "uid of 70 characters": (_GOOD, None, {0x1000: b"1." + b"2" * 68}, 0xC000, "Affected SOP Instance"),
    "no data set": (_GOOD, None, {0x0800: b"\x01\x01"}, 0xC000, "no data set"),
    "empty data set": (_GOOD, b"", {}, 0xC000, "no data set"),
    "not dicom": (_GOOD, b"\xff\xd8\xff\xe0 a picture, no data set" * 50, {}, 0xC000, "claims"),
    "text": (_GOOD, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {}, 0xC000, "claims"),
    "cut in the header": (_GOOD, _GOOD.data_set()[:50], {}, 0xC000, "claims"),
    "length beyond the end": (
        _GOOD,
        element(0x00080016, "UI", uid_value(CR)) + element(0x00081030, "UT", b"x", length=0x7FFFFFF0),
        {},
        0xC000,
        "(0008,1030) claims 2147483632 bytes, 1 are left",
    ),
    "sequence without end": (
        _GOOD,
        _GOOD.data_set()[:-8300] + element(0x00081111, "SQ", b"", length=0xFFFFFFFF),
        {},
        0xC000,
        "",
    ),
    "pixels in the command's place": (_GOOD, os.urandom(4096), {}, 0xC000, ""),
}


@pytest.mark.parametrize("case", BAD_FILMS)
def test_bad_film_gets_its_status_with_a_sentence_and_the_next_one_is_taken(tmp_path: Path, case: str) -> None:
    film, content, command, status, words = BAD_FILMS[case]
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate([(CR, [EXPLICIT])])
        if 0x0800 in command:
            peer.send_command({**_command(film), **command})
            code, comment = peer.read_response()
        else:
            code, comment = peer.store(film, content, command=command)
        assert code == status
        assert len(comment) <= 64
        assert words[:50] in inbox.refusals[0].comment
        assert comment
        assert peer.store(Film(), message_id=2) == (0, "")
        assert peer.release() == 6
    assert len(inbox.instances) == 1
    assert list((tmp_path / "incoming").iterdir()) == []


def _command(film: Film) -> dict[int, bytes]:
    from tests.integration.dicom_wire import store_command

    return store_command(film)


def test_pixel_data_cut_short_is_kept_because_the_study_must_be_seen(tmp_path: Path) -> None:
    film = Film()
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.store(film, film.data_set()[:-4000]) == (0, "")
    assert inbox.instances[0].size_bytes == len(film.data_set()) - 4000


def test_implicit_bytes_in_an_explicit_context_are_understood_and_kept(tmp_path: Path) -> None:
    film = Film()
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate([(CR, [EXPLICIT])])
        assert peer.store(film, film.data_set(implicit=True)) == (0, "")
    assert inbox.instances[0].study_instance_uid == film.study_instance_uid


def test_values_that_break_their_vr_and_odd_names_are_no_reason_to_refuse(tmp_path: Path) -> None:
    odd = b"".join(
        (
            element(0x00100030, "DA", b"deadbeef-not-a-date!"),
            element(0x00101010, "AS", b"999999YY"),
            element(0x00281050, "DS", b"one million dollars "),
            element(0x00280010, "US", b"\x01"),
            element(0x00290010, "UV", b"\xff" * 8),
            element(0x00291001, "ZZ", b"unknown VR"),
        )
    )
    film = Film(before_pixels=odd, private=element(0x00080005, "CS", rb"\ISO 2022 IR 87 "))
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.store(film) == (0, "")
    assert data_set_of(inbox.instances[0].path) == film.data_set()


def test_storage_class_nobody_knows_is_kept_and_other_services_are_not_accepted(tmp_path: Path) -> None:
    film = Film(sop_class_uid="1.3.12.2.1107.5.9.1")
    contexts = [("1.3.12.2.1107.5.9.1", [EXPLICIT]), ("1.2.840.10008.5.1.4.1.2.2.1", [EXPLICIT])]
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        _, answer = peer.associate(contexts)
        assert peer.accepted(answer) == {1: EXPLICIT}
        assert peer.store(film) == (0, "")
    assert inbox.instances[0].sop_class_uid == "1.3.12.2.1107.5.9.1"


def test_association_is_reported_from_beginning_to_end(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, inbox):
        with RawPeer(receiver.address) as peer:
            peer.associate(calling="XRAY")
            peer.store(Film())
            peer.store(Film(study_instance_uid=""), message_id=2)
            peer.release()
        receiver.stop()
        begun, ended = inbox.events
    assert begun.outcome is AssociationOutcome.ACCEPTED
    assert ended.outcome is AssociationOutcome.RELEASED
    assert (ended.calling_ae_title, ended.peer_address, ended.films, ended.refused) == ("XRAY", "127.0.0.1", 1, 1)
