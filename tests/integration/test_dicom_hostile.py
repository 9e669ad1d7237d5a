"""Peers that break the protocol, dawdle or vanish: nothing is lost but their own association."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from firstread.integration.dicom import reactor
from firstread.integration.dicom import sink as sink_module
from firstread.integration.dicom.received import AssociationOutcome
from tests.integration.dicom_wire import CR, EXPLICIT, Film, RawPeer, associate_request, receiving, store_command


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch) -> None:
    monkeypatch.setattr(reactor, "_LINGER_S", 0.2)


def eventually(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def still_serves(receiver) -> bool:
    with RawPeer(receiver.address) as peer:
        peer.associate()
        return peer.store(Film()) == (0, "") and peer.release() == 6


def test_socket_closed_in_the_middle_of_a_film_acknowledges_and_leaves_nothing(tmp_path: Path) -> None:
    film = Film(pixels=bytes(300_000))
    with receiving(tmp_path) as (receiver, inbox):
        with RawPeer(receiver.address) as peer:
            peer.associate()
            peer.send_command(store_command(film))
            peer.send_fragment(film.data_set()[:100_000], 0x00)
            assert eventually(lambda: list((tmp_path / "incoming").iterdir()))
        assert eventually(lambda: not list((tmp_path / "incoming").iterdir()))
        assert eventually(lambda: inbox.events and inbox.events[-1].outcome is AssociationOutcome.ABORTED)
        assert inbox.events[-1].why
        assert inbox.instances == []
        assert still_serves(receiver)


def test_abort_in_the_middle_of_a_film_says_who_aborted(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_command(store_command(Film()))
        peer.send_pdu(0x07, bytes(4))
        assert eventually(lambda: len(inbox.events) == 2)
        assert (inbox.events[1].outcome, inbox.events[1].why) == (AssociationOutcome.ABORTED, "A-ABORT by the peer")


def test_half_received_files_of_a_dead_process_are_swept_and_nothing_else(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    dead = incoming / f"incoming-{'0' * 32}.part"
    dead.write_bytes(b"half a film")
    other = incoming / "notes.part"
    other.write_bytes(b"not ours")
    living = sink_module.StoreSink(incoming, b"meta", reserve_bytes=0, max_bytes=100)
    with receiving(tmp_path):
        assert not dead.exists()
        assert other.exists()
        assert living.path.exists()
    living.discard()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: hospital\r\n\r\n", os.urandom(5000), b"\x00", b"\x16\x03\x01\x02\x00\x01\x00" * 20],
)
def test_garbage_on_the_socket_ends_that_connection_alone(tmp_path: Path, garbage: bytes) -> None:
    with receiving(tmp_path, acse_timeout_s=1.0) as (receiver, _):
        with socket.create_connection(receiver.address) as peer:
            peer.sendall(garbage)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(5)
            try:
                while peer.recv(4096):
                    pass
            except ConnectionResetError:
                pass
        assert still_serves(receiver)


def test_connection_without_an_association_is_closed_in_time_and_frees_its_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    with receiving(tmp_path, acse_timeout_s=0.5) as (receiver, inbox):
        with socket.create_connection(receiver.address) as silent:
            silent.settimeout(5)
            assert silent.recv(1) == b""
        socket.create_connection(receiver.address).close()
        assert eventually(lambda: threading.active_count() <= before + 1)
        assert inbox.events == []


def test_association_request_that_claims_four_gigabytes_allocates_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with RawPeer(receiver.address) as peer:
            peer.send_pdu(0x01, b"\0" * 100, length=0xFFFFFFF0)
            assert peer.read_pdu()[0] in (0x07, 0)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
        assert still_serves(receiver)


def test_data_pdu_longer_than_agreed_aborts_with_a_reason(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_pdu_length=16384) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_command(store_command(Film()))
        peer.send_pdu(0x04, b"\0" * 10, length=1 << 30)
        assert peer.read_pdu()[0] == 0x07
        assert eventually(lambda: len(inbox.events) == 2)
        assert "PDU of 1073741824 bytes" in inbox.events[1].why
        assert list((tmp_path / "incoming").iterdir()) == []


def test_pdu_that_trickles_in_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    with receiving(tmp_path, pdu_deadline_s=0.6) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012
            peer.socket.sendall(struct.pack(">BBL", 0x04, 0, 10_000))
            while time.monotonic() - began < 5:
                peer.socket.sendall(b"\0")
                time.sleep(0.05)
        assert time.monotonic() - began < 3
        assert eventually(lambda: len(inbox.events) == 2)
        assert "longer than 0.6 s" in inbox.events[1].why


def test_film_that_never_ends_is_given_up(tmp_path: Path) -> None:
    film = Film()
    with receiving(tmp_path, dimse_timeout_s=0.5) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_command(store_command(film))
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012
            while time.monotonic() - began < 5:
                peer.send_fragment(b"\0\0", 0x00)
                time.sleep(0.05)
        assert eventually(lambda: inbox.events and inbox.events[-1].outcome is AssociationOutcome.ABORTED)
        assert "longer than 0.5 s" in inbox.events[-1].why
        assert list((tmp_path / "incoming").iterdir()) == []


def test_idle_association_is_aborted_after_its_time(tmp_path: Path) -> None:
    with receiving(tmp_path, network_idle_timeout_s=0.3) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.read_pdu()[0] == 0x07
        assert eventually(lambda: len(inbox.events) == 2)
        assert inbox.events[1].why == "idle for 0.3 s"


@pytest.mark.parametrize(
    "send",
    [
        lambda peer: peer.send_fragment(b"data without a command", 0x02),
        lambda peer: peer.send_fragment(b"\x01\x02\x03 no command set", 0x03),
        lambda peer: peer.send_pdu(0x04, b"\0\0\0\0\0"),
        lambda peer: peer.send_pdu(0x04, struct.pack(">LBB", 5000, 1, 3) + b"short"),
        lambda peer: peer.send_pdu(0x01, associate_request([(CR, [EXPLICIT])])),
        lambda peer: peer.send_store(Film(), context_id=77),
        lambda peer: peer.send_command({0x0100: b"\x20\x00", 0x0110: b"\1\0", 0x0800: b"\x01\x01"}),
        lambda peer: [peer.send_command({0x0100: b"\x01\x00", 0x0110: b"\1\0", 0x0800: b"\1\0"}) for _ in range(2)],
        lambda peer: peer.send_fragment(b"\0" * 100_000, 0x01),
    ],
    ids=[
        "data without command",
        "malformed command set",
        "empty item",
        "item beyond its pdu",
        "second association request",
        "context that was not accepted",
        "c-find in a storage context",
        "command inside a data set",
        "endless command set",
    ],
)
def test_broken_protocol_aborts_that_association_and_the_next_one_works(tmp_path: Path, send) -> None:
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        send(peer)
        assert peer.read_pdu()[0] in (0x07, 0)
        assert eventually(lambda: inbox.events and inbox.events[-1].outcome is AssociationOutcome.ABORTED)
        assert still_serves(receiver)
        assert len(inbox.instances) == 1


def test_films_sent_without_waiting_for_answers_are_all_answered_in_order(tmp_path: Path) -> None:
    films = [Film() for _ in range(30)]
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        for number, film in enumerate(films):
            peer.send_store(film, message_id=number + 1)
        assert [peer.read_response()[0] for _ in films] == [0] * 30
        assert [kept.sop_instance_uid for kept in inbox.instances] == [film.sop_instance_uid for film in films]


def test_full_disk_is_drained_and_answered_a700_and_later_films_are_taken(tmp_path: Path, monkeypatch) -> None:
    real_write, full = os.write, threading.Event()
    full.set()

    def write(descriptor: int, content: bytes) -> int:
        if full.is_set() and len(content) > 4096:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, content)

    monkeypatch.setattr(sink_module.os, "write", write)
    film = Film(pixels=bytes(2_000_000))
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        code, comment = peer.store(film)
        assert (code, comment) == (0xA700, "disk full: free space on the receiver's spool")
        assert list((tmp_path / "incoming").iterdir()) == []
        full.clear()
        assert peer.store(film, message_id=2) == (0, "")
        assert inbox.refusals[0].sop_instance_uid == film.sop_instance_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_really_full_file_system_is_answered_a700(tmp_path: Path) -> None:
    import subprocess

    incoming = tmp_path / "incoming"
    incoming.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(incoming)], capture_output=True
    ).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
            inbox.folder = incoming  # rename works within a file system alone
            peer.associate()
            assert peer.store(Film(pixels=bytes(3_000_000)))[0] == 0xA700
            assert peer.store(Film(), message_id=2) == (0, "")
    finally:
        subprocess.run(["umount", str(incoming)], check=True)


def test_disk_reserve_and_film_limit_refuse_with_a700(tmp_path: Path) -> None:
    with receiving(tmp_path, disk_reserve_bytes=1 << 60) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        code, comment = peer.store(Film())
        assert code == 0xA700
        assert "in reserve" in comment
    with receiving(tmp_path, max_film_bytes=5000) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        assert peer.store(Film())[0] == 0xA700
        assert "larger than 5000 bytes" in inbox.refusals[0].comment
        assert peer.store(Film(pixels=b"\0\0"), message_id=2) == (0, "")


def test_incoming_folder_that_vanished_is_a700_and_not_the_end(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        (tmp_path / "incoming").rmdir()
        assert peer.store(Film())[0] == 0xA700
        (tmp_path / "incoming").mkdir()
        assert peer.store(Film(), message_id=2) == (0, "")


@pytest.mark.slow
def test_forty_idle_associations_cost_next_to_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_per_calling_ae=0) as (receiver, _):
        peers = [RawPeer(receiver.address) for _ in range(40)]
        for peer in peers:
            assert peer.associate()[0] == 2
        time.sleep(1)
        before = time.process_time()
        time.sleep(5)
        burnt = time.process_time() - before
        assert receiver.active_associations == 40
        assert all(peer.store(Film()) == (0, "") for peer in peers)
        for peer in peers:
            peer.socket.close()
    assert burnt / 5 < 0.05


def test_random_bytes_in_an_association_never_end_the_receiver(tmp_path: Path) -> None:
    import random

    chance = random.Random(3)
    with receiving(tmp_path, acse_timeout_s=2.0) as (receiver, inbox):
        for _ in range(150):
            with RawPeer(receiver.address) as peer:
                peer.associate()
                for _ in range(chance.randint(1, 4)):
                    noise = chance.randbytes(chance.randint(0, 300))
                    kind = chance.choice([0x04, 0x04, 0x04, 0x01, 0x02, 0x06, chance.randrange(256)])
                    try:
                        if kind == 0x04 and chance.random() < 0.7:
                            peer.send_fragment(noise, chance.randrange(4))
                        else:
                            peer.send_pdu(kind, noise)
                    except OSError:
                        break
        assert still_serves(receiver)
        assert eventually(lambda: receiver.active_associations == 0)
        assert len(inbox.instances) == 1
        assert list((tmp_path / "incoming").iterdir()) == []


def test_stopping_while_a_peer_that_was_aborted_lingers_is_no_error(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(reactor, "_LINGER_S", 2.0)
    with receiving(tmp_path) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_pdu(0x77, b"no PDU that the standard knows")
        assert peer.read_pdu()[0] == 7
        receiver.stop(grace_s=0.1)
    assert [record.message for record in caplog.records if record.exc_info] == []


def test_data_that_comes_before_an_association_is_not_kept(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()  # what hangs in a cycle would be found only by the collector, and keep 256 KiB until then
    try:
        with receiving(tmp_path) as (receiver, _):
            for _ in range(5):
                with RawPeer(receiver.address) as peer:
                    peer.send_fragment(b"too early", 0x02)
                    assert peer.read_pdu()[0] == 7
            assert eventually(lambda: not receiver._open())
            assert not [one for one in gc.get_objects() if isinstance(one, reactor.DataPdu)]
    finally:
        gc.enable()
