"""Who may associate, and with which contexts: the decisions, and the answers on the wire (PS3.8 9.3.4)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from firstread.integration.dicom import contexts, reactor
from firstread.integration.dicom.admission import Rules, decide
from firstread.integration.dicom.receive import PortInUse, Receiver
from firstread.integration.dicom.received import AssociationOutcome
from tests.integration.dicom_wire import (
    CR,
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    VERIFICATION,
    Film,
    Inbox,
    RawPeer,
    ReceivedInstance,
    StoreStatus,
    receiving,
)


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch) -> None:
    monkeypatch.setattr(reactor, "_LINGER_S", 0.2)


RULES = Rules("FIRSTREAD", True, ("XRAY_1", "XRAY_2"), ("10.1.0.0/16", "192.168.7.9", "fd00::/8"), 4, 2)
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def ask(**changes):
    asked = {
        "calling_ae_title": "XRAY_1",
        "called_ae_title": "FIRSTREAD",
        "address": "10.1.2.3",
        "active": 0,
        "active_of_calling_ae": 0,
    }
    return decide(RULES, **(asked | changes))


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, None),
        ({"calling_ae_title": "XRAY_1   "}, None),
        ({"address": "192.168.7.9"}, None),
        ({"address": "::ffff:10.1.2.3"}, None),
        ({"address": "fd00::17%eth0"}, None),
        ({"address": "10.2.0.1"}, (1, 1, 1)),
        ({"address": "no address"}, (1, 1, 1)),
        ({"called_ae_title": "firstread"}, (1, 1, 7)),
        ({"calling_ae_title": "INTRUDER"}, (1, 1, 3)),
        ({"closed_because": "disk full"}, (2, 3, 1)),
        ({"active": 4}, (2, 3, 2)),
        ({"active_of_calling_ae": 2}, (2, 3, 2)),
    ],
)
def test_admission_decides_as_the_standard_says(changes: dict, answer: tuple[int, int, int] | None) -> None:
    rejection = ask(**changes)
    assert (rejection and (rejection.result, rejection.source, rejection.reason)) == answer
    assert rejection is None or rejection.why


def test_address_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match=r"10\.1\.2\.300"):
        Rules("FIRSTREAD", allowed_addresses=("10.1.2.300",))


@pytest.mark.parametrize(
    ("settings", "called", "answer"),
    [
        ({}, "SOMEBODY", bytes((0, 1, 1, 7))),
        ({"allowed_calling_ae": ("OTHER",)}, "FIRSTREAD", bytes((0, 1, 1, 3))),
        ({"allowed_addresses": ("10.0.0.0/8",)}, "FIRSTREAD", bytes((0, 1, 1, 1))),
    ],
)
def test_rejection_on_the_wire_says_why_and_is_reported(tmp_path: Path, settings, called: str, answer: bytes) -> None:
    with receiving(tmp_path, **settings) as (receiver, inbox), RawPeer(receiver.address) as peer:
        assert peer.associate(called=called) == (3, answer)
        assert peer.read_pdu()[0] == 0
        (event,) = inbox.events
        assert event.outcome is AssociationOutcome.REJECTED
        assert (event.result, event.source, event.reason) == tuple(answer[1:])
        assert event.calling_ae_title == "MODALITY"


def test_limits_reject_transiently_and_a_release_makes_room(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations=3, maximum_per_calling_ae=2) as (receiver, _):
        first, second, third, fourth = (RawPeer(receiver.address) for _ in range(4))
        assert first.associate(calling="A")[0] == 2
        assert second.associate(calling="A")[0] == 2
        assert third.associate(calling="A") == (3, bytes((0, 2, 3, 2)))
        assert fourth.associate(calling="B")[0] == 2
        with RawPeer(receiver.address) as fifth:
            assert fifth.associate(calling="C") == (3, bytes((0, 2, 3, 2)))
        assert receiver.active_associations == 3
        first.release()
        first.socket.close()
        for _ in range(100):
            with RawPeer(receiver.address) as again:
                if again.associate(calling="A")[0] == 2:
                    break
        else:
            pytest.fail("the place of a released association stayed taken")
        for peer in (second, third, fourth):
            peer.socket.close()


def test_peers_that_were_aborted_and_hold_their_connections_take_nobodys_place(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reactor, "_LINGER_S", 4.0)
    with receiving(tmp_path, maximum_associations=2, maximum_per_calling_ae=2) as (receiver, _):
        rude = [RawPeer(receiver.address) for _ in range(2)]
        for peer in rude:
            peer.associate()
            peer.send_pdu(0x77, b"no PDU that the standard knows")
            assert peer.read_pdu()[0] == 7
        # Both stay connected, as somebody may who means harm; our side waits for seconds until they go.
        for _ in range(100):
            if not receiver.active_associations:
                break
            time.sleep(0.01)
        with RawPeer(receiver.address) as peer:
            assert peer.associate()[0] == 2
            assert peer.store(Film()) == (0, "")
        for peer in rude:
            peer.socket.close()


def test_refusing_new_associations_leaves_open_ones_alone(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, inbox), RawPeer(receiver.address) as peer:
        peer.associate()
        receiver.refuse_new("disk nearly full")
        with RawPeer(receiver.address) as late:
            assert late.associate() == (3, bytes((0, 2, 3, 1)))
        assert inbox.events[-1].why == "disk nearly full"
        assert peer.store(Film()) == (0, "")
        receiver.refuse_new(None)
        with RawPeer(receiver.address) as later:
            assert later.associate()[0] == 2


def test_odd_bytes_in_ae_titles_do_no_harm(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _):
        for calling in ("\\..\\", "Ü", " ", "\x00\x01\x02"):
            with RawPeer(receiver.address) as peer:
                assert peer.associate(calling=calling)[0] in (0, 2, 3, 7)
        with RawPeer(receiver.address) as peer:
            assert peer.associate()[0] == 2


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ([JPEG_BASELINE, IMPLICIT, EXPLICIT], EXPLICIT),
        ([JPEG_BASELINE, JPEG_LOSSLESS], JPEG_LOSSLESS),
        ([JPEG_BASELINE], JPEG_BASELINE),
        (["1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90"], "1.2.840.10008.1.2.4.90"),
        (["1.2.840.10008.1.2.4.201"], "1.2.840.10008.1.2.4.201"),
        (["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.81"], "1.2.840.10008.1.2.5"),
        (["1.2.840.10008.1.2.4.94"], None),
        (["1.2.840.10008.1.2.4.102"], None),
        (["1.2.3.4"], None),
    ],
)
def test_lossy_syntax_is_never_taken_where_a_better_one_is_offered(tmp_path: Path, offered, taken) -> None:
    with receiving(tmp_path) as (receiver, _), RawPeer(receiver.address) as peer:
        kind, answer = peer.associate([(CR, offered)])
        assert kind == 2
        assert peer.accepted(answer) == ({1: taken} if taken else {})


def test_every_storage_class_of_the_standard_is_accepted_and_nothing_else() -> None:
    from pynetdicom import sop_class
    from pynetdicom.presentation import AllStoragePresentationContexts

    for context in AllStoragePresentationContexts:
        assert contexts.is_storage_class(context.abstract_syntax)
    for uid in sop_class._QR_CLASSES.values():
        assert not contexts.is_storage_class(uid)
    assert not contexts.is_storage_class("1.2.840.10008.1.20.1")
    assert not contexts.is_storage_class("1.2.840.10008.5.1.4.31")
    assert not contexts.is_storage_class("1.2.840.10008.9.99")
    assert contexts.is_storage_class("1.2.840.10008.5.1.4.1.1.999.1")


def test_hundred_and_twenty_eight_contexts_and_extended_negotiation_are_answered(tmp_path: Path) -> None:
    role = b"\x54\x00\x00\x1f\x00\x19" + CR.encode() + b"\x01\x01"
    window = b"\x53\x00\x00\x04\x00\x05\x00\x05"
    identity = b"\x58\x00\x00\x0a\x01\x00\x00\x04user\x00\x00"
    offered = [(VERIFICATION, [IMPLICIT])] + [(CR, [EXPLICIT])] * 127
    role = b"\x54\x00" + (len(CR) + 4).to_bytes(2, "big") + len(CR).to_bytes(2, "big") + CR.encode() + b"\x01\x01"
    with receiving(tmp_path) as (receiver, _), RawPeer(receiver.address) as peer:
        kind, answer = peer.associate(offered, extra=role + window + identity)
        assert kind == 2
        assert len(peer.accepted(answer)) == 128
        assert peer.store(Film(), context_id=255) == (0, "")


def test_port_in_use_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, inbox):
        from dataclasses import replace

        second = Receiver(replace(receiver.settings, port=receiver.address[1]), inbox.take)
        with pytest.raises(PortInUse, match=r"is in use: stop what listens there .* or set another \[dicom\] port"):
            second.start()


def test_socket_that_is_handed_in_is_served(tmp_path: Path) -> None:
    import socket

    listening = socket.create_server(("127.0.0.1", 0))
    inbox = Inbox(tmp_path / "inbox")
    with receiving(tmp_path) as (other, _):
        receiver = Receiver(other.settings, inbox.take, listening_socket=listening)
        receiver.start()
        with RawPeer(receiver.address) as peer:
            peer.associate()
            assert peer.store(Film()) == (0, "")
        receiver.stop()


def test_stop_lets_the_film_under_way_end_and_releases_the_association(tmp_path: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Inbox):
        def take(self, instance: ReceivedInstance) -> StoreStatus:
            entered.set()
            go_on.wait(5)
            return super().take(instance)

    inbox = Slow(tmp_path / "inbox")
    with receiving(tmp_path, inbox) as (receiver, _), RawPeer(receiver.address) as peer:
        peer.associate()
        peer.send_store(Film())
        assert entered.wait(5)
        stopping = threading.Thread(target=receiver.stop)
        stopping.start()
        go_on.set()
        assert peer.read_response() == (0, "")
        assert peer.read_pdu()[0] == 0x05
        peer.send_pdu(0x06, bytes(4))
        stopping.join(5)
        assert not stopping.is_alive()
        assert len(inbox.instances) == 1
        assert inbox.events[-1].outcome is AssociationOutcome.RELEASED
