"""The MLLP server: any chunking, everything bounded, every message that can be made out is answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from firstread.integration.hl7.acknowledge import AckKind, acknowledge, read_acknowledgement
from firstread.integration.hl7.errors import ErrorLocation, MllpAddressError, UnreadableMessage
from firstread.integration.hl7.framing import FrameDecoder, frame
from firstread.integration.hl7.mllp import MllpClient, MllpServer
from tests.integration.hl7_examples import oru

GOOD = oru()


class Handler:
    """Takes what comes, and fails on request."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.peers: set[str] = set()
        self.error: Exception | None = None
        self.wait_s = 0.0

    def __call__(self, message: bytes, peer: str) -> bytes:
        time.sleep(self.wait_s)
        if self.error:
            raise self.error
        self.taken.append(message)
        self.peers.add(peer)
        return acknowledge(message)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[MllpServer]:
    with MllpServer(
        "127.0.0.1",
        0,
        handler,
        max_message_bytes=100_000,
        receive_timeout_s=0.5,
        idle_timeout_s=1.0,
        max_connections=3,
    ) as running:
        yield running


@pytest.fixture
def peer(server: MllpServer) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=5) as connection:
        yield connection


def answers(connection: socket.socket, count: int = 1) -> list[bytes]:
    """The next answers, fewer when the server hangs up."""
    decoder, found = FrameDecoder(1 << 20), []
    while len(found) < count and (chunk := connection.recv(65536)):
        found += decoder.feed(chunk)
    return found


def test_a_message_is_handed_on_as_it_came_and_answered(peer: socket.socket, handler: Handler) -> None:
    peer.sendall(frame(GOOD))
    assert read_acknowledgement(answers(peer)[0], "FR0001").delivered
    assert handler.taken == [GOOD]
    assert handler.peers == {f"127.0.0.1:{peer.getsockname()[1]}"}


def test_a_trickled_message_is_taken(peer: socket.socket, handler: Handler) -> None:
    stream = frame(GOOD)
    for at in range(0, len(stream), 97):
        peer.sendall(stream[at : at + 97])
        time.sleep(0.002)
    assert read_acknowledgement(answers(peer)[0], "FR0001").delivered
    assert handler.taken == [GOOD]


def test_a_message_whose_last_byte_is_left_out_is_taken(peer: socket.socket, handler: Handler) -> None:
    for _ in range(2):
        peer.sendall(b"\x0b" + GOOD + b"\x1c")
        assert read_acknowledgement(answers(peer)[0], "FR0001").delivered
    assert handler.taken == [GOOD, GOOD]


def test_several_messages_in_one_packet_are_answered_in_order(peer: socket.socket) -> None:
    stream = b"".join(frame(oru(control_id=f"FR{number}")) for number in range(5))
    peer.sendall(stream + b"\x0bMSH|half of the sixth")
    told = answers(peer, 5)
    assert [read_acknowledgement(reply, f"FR{number}").kind for number, reply in enumerate(told)] == ["delivered"] * 5


def test_garbage_before_a_message_is_passed_over(peer: socket.socket, handler: Handler) -> None:
    peer.sendall(b"\r\nnoise\x1c\r" + frame(GOOD))
    assert read_acknowledgement(answers(peer)[0], "FR0001").delivered
    assert handler.taken == [GOOD]


def test_garbage_without_end_costs_the_connection(peer: socket.socket) -> None:
    peer.sendall(b"x" * 5000)
    assert answers(peer) == []


def test_a_half_sent_message_times_out_however_it_trickles(peer: socket.socket, handler: Handler) -> None:
    begun = time.monotonic()
    peer.sendall(b"\x0bMSH|")
    peer.settimeout(0.05)
    closed = False
    while not closed and time.monotonic() - begun < 5:
        try:
            peer.sendall(b"x")
            closed = peer.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            closed = True
    assert closed
    assert 0.4 < time.monotonic() - begun < 2.0
    assert handler.taken == []


def test_an_idle_connection_is_closed_in_time(peer: socket.socket) -> None:
    begun = time.monotonic()
    assert peer.recv(1) == b""
    assert 0.8 < time.monotonic() - begun < 3.0


def test_an_oversized_message_is_refused_with_a_reason_and_by_name(peer: socket.socket, handler: Handler) -> None:
    peer.sendall(b"\x0b" + GOOD + b"NTE|1|L|" + b"x" * 300_000 + b"\x1c\r")
    reply = answers(peer)[0]
    outcome = read_acknowledgement(reply, "FR0001")
    assert (outcome.kind, outcome.code, outcome.err_code) == (AckKind.REJECTED, "AR", "102")
    assert "longer than 100000 bytes" in outcome.text
    assert handler.taken == []


def test_an_unreadable_message_is_answered_with_its_error_and_the_connection_stays(
    peer: socket.socket, handler: Handler
) -> None:
    for error, code in (
        (UnreadableMessage(101, ErrorLocation("OBR", 1, 18), "no accession number"), "AE"),
        (UnreadableMessage(200, ErrorLocation("MSH", 1, 9), "not taken here"), "AR"),
    ):
        handler.error = error
        peer.sendall(frame(GOOD))
        outcome = read_acknowledgement(answers(peer)[0], "FR0001")
        assert (outcome.kind, outcome.code, outcome.err_code) == (AckKind.REJECTED, code, str(error.code))
        assert error.sentence in outcome.text
    handler.error = None
    peer.sendall(frame(GOOD))
    assert read_acknowledgement(answers(peer)[0], "FR0001").delivered


def test_a_failing_handler_is_answered_as_later_and_the_connection_stays(peer: socket.socket, handler: Handler) -> None:
    handler.error = RuntimeError("the database is locked")
    peer.sendall(frame(GOOD))
    reply = answers(peer)[0]
    outcome = read_acknowledgement(reply, "FR0001")
    assert (outcome.kind, outcome.code, outcome.err_code) == (AckKind.RETRY, "AE", "207")
    assert b"database" not in reply
    handler.error = None
    peer.sendall(frame(GOOD))
    assert read_acknowledgement(answers(peer)[0], "FR0001").delivered


def test_a_slow_handler_does_not_hold_up_another_connection(server: MllpServer, handler: Handler) -> None:
    handler.wait_s = 0.4
    begun = time.monotonic()
    with MllpClient(*server.address) as one, MllpClient(*server.address) as other:
        outcomes: list[bool] = []
        threads = [
            threading.Thread(target=lambda sender=sender: outcomes.append(sender.send(GOOD, "FR0001").delivered))
            for sender in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [True, True]
    assert time.monotonic() - begun < 0.75


def test_more_connections_than_allowed_are_closed_and_places_become_free_again(server: MllpServer) -> None:
    held = [socket.create_connection(server.address, timeout=5) for _ in range(3)]
    for connection in held:
        connection.sendall(frame(GOOD))
        assert answers(connection)
    with socket.create_connection(server.address, timeout=5) as refused:
        assert refused.recv(1) == b""
    for connection in held:
        connection.close()
    time.sleep(0.1)
    with MllpClient(*server.address) as again:
        assert again.send(GOOD, "FR0001").delivered


def test_a_port_in_use_is_said_with_what_to_do(server: MllpServer, handler: Handler) -> None:
    host, port = server.address
    with pytest.raises(MllpAddressError, match=rf"MLLP port {port} on 127.0.0.1 is in use.*mllp_port"):
        MllpServer(host, port, handler).start()


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_a_foreign_address_is_said_with_what_to_do(host: str, handler: Handler) -> None:
    with pytest.raises(MllpAddressError, match=r"no address of this machine.*mllp_host"):
        MllpServer(host, 0, handler).start()


def test_stopping_lets_the_message_in_hand_be_answered_and_frees_the_port(handler: Handler) -> None:
    handler.wait_s = 0.3
    server = MllpServer("127.0.0.1", 0, handler)
    server.start()
    host, port = server.address
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(frame(GOOD))
        time.sleep(0.1)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 2.0
        assert read_acknowledgement(answers(connection)[0], "FR0001").delivered
        assert connection.recv(1) == b""
    with MllpServer(host, port, handler) as again:
        assert again.address == (host, port)


def test_stopping_with_idle_connections_is_quick(server: MllpServer, peer: socket.socket) -> None:
    peer.sendall(frame(GOOD))
    answers(peer)
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 1.0
    assert peer.recv(1) == b""
