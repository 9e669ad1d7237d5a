"""The MLLP client against receivers that behave badly: what is not certainly our answer is never taken for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from firstread.integration.hl7.acknowledge import AckKind, acknowledge
from firstread.integration.hl7.framing import FrameDecoder, frame
from firstread.integration.hl7.mllp import MllpClient, probe
from tests.integration.hl7_examples import oru
from tests.peers import free_port

Script = Callable[[socket.socket, Iterator[bytes], int], None]


class Receiver:
    """A receiver that follows a script for each connection: (socket, messages as they come, connection number)."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.received: list[bytes] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection, len(self.connections)), daemon=True).start()

    def _run(self, connection: socket.socket, number: int) -> None:
        try:
            self._script(connection, self._messages(connection), number)
        except OSError:
            return

    def _messages(self, connection: socket.socket) -> Iterator[bytes]:
        decoder = FrameDecoder(1 << 20)
        while chunk := connection.recv(65536):
            for message in decoder.feed(chunk):
                self.received.append(message)
                yield message

    def close(self) -> None:
        self.listener.close()
        for connection in self.connections:
            connection.close()


@contextmanager
def receiver(script: Script) -> Iterator[Receiver]:
    peer = Receiver(script)
    try:
        yield peer
    finally:
        peer.close()


def client(peer: Receiver, answer_timeout_s: float = 5.0) -> MllpClient:
    return MllpClient("127.0.0.1", peer.port, connect_timeout_s=2.0, answer_timeout_s=answer_timeout_s)


def message(number: int) -> tuple[bytes, str]:
    control_id = f"FR{number:04}"
    return oru(control_id=control_id), control_id


def yes(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
    for received in messages:
        connection.sendall(frame(acknowledge(received)))


def test_messages_go_one_after_another_over_one_connection() -> None:
    with receiver(yes) as peer, client(peer) as sender:
        assert all(sender.send(*message(number)).delivered for number in range(20))
        assert peer.received == [message(number)[0] for number in range(20)]
        assert len(peer.connections) == 1
        assert sender.connected


def test_an_answer_in_single_bytes_is_an_answer() -> None:
    def trickle(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            for byte in frame(acknowledge(received)):
                connection.sendall(bytes([byte]))

    with receiver(trickle) as peer, client(peer) as sender:
        assert sender.send(*message(1)).delivered


@pytest.mark.parametrize("hang_up", [False, True])
def test_an_answer_whose_last_byte_is_left_out_is_an_answer(hang_up: bool) -> None:
    def short(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            connection.sendall(b"\x0b" + acknowledge(received) + b"\x1c")
            if hang_up:
                connection.shutdown(socket.SHUT_RDWR)

    with receiver(short) as peer, client(peer) as sender:
        assert [sender.send(*message(number)).delivered for number in range(2)] == [True, True]


def test_no_answer_in_time_is_a_retry_and_drops_the_connection() -> None:
    with receiver(lambda connection, messages, number: list(messages) and None) as peer, client(peer, 0.2) as sender:
        outcome = sender.send(*message(1))
        assert outcome.kind is AckKind.RETRY
        assert f"no answer from 127.0.0.1:{peer.port} within 0.2 s" in outcome.text
        assert not sender.connected


def test_an_answer_that_trickles_past_the_deadline_is_none() -> None:
    def slow(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            for byte in frame(acknowledge(received)):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    with receiver(slow) as peer, client(peer, 0.4) as sender:
        begun = time.monotonic()
        assert sender.send(*message(1)).kind is AckKind.RETRY
        assert time.monotonic() - begun < 1.0


def test_a_late_answer_is_never_taken_for_the_next_message() -> None:
    def late(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            if number == 1:
                time.sleep(0.4)
            code = "AE" if number == 1 else "AA"
            connection.sendall(frame(acknowledge(received, code)))

    with receiver(late) as peer, client(peer, 0.2) as sender:
        assert sender.send(*message(1)).kind is AckKind.RETRY
        time.sleep(0.3)
        assert sender.send(*message(2)).delivered
        assert len(peer.connections) == 2


def test_an_answer_to_another_message_is_passed_over_until_ours_comes() -> None:
    def two(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            other = acknowledge(received).replace(b"FR0001", b"FR9999")
            connection.sendall(frame(other) + frame(acknowledge(received, "AE")))

    with receiver(two) as peer, client(peer) as sender:
        outcome = sender.send(*message(1))
        assert (outcome.kind, outcome.code) == (AckKind.REJECT_AFTER_TRIES, "AE")


def test_answers_to_other_messages_alone_are_a_retry_and_never_a_delivery() -> None:
    def wrong(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            connection.sendall(frame(acknowledge(received).replace(b"FR0001", b"FR9999")))

    with receiver(wrong) as peer, client(peer, 0.3) as sender:
        outcome = sender.send(*message(1))
        assert outcome.kind is AckKind.RETRY
        assert "names another message" in outcome.text
        assert not sender.connected


def test_bytes_that_nobody_asked_for_cost_the_connection_before_the_next_message() -> None:
    def chatty(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        for received in messages:
            twice = frame(acknowledge(received))
            connection.sendall(twice + (twice if number == 1 else b""))

    with receiver(chatty) as peer, client(peer) as sender:
        assert sender.send(*message(1)).delivered
        time.sleep(0.1)
        assert sender.send(*message(2)).delivered
        assert len(peer.connections) == 2


def test_a_kept_connection_that_the_receiver_closed_is_replaced_without_a_word() -> None:
    def once(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        connection.sendall(frame(acknowledge(next(messages))))
        connection.shutdown(socket.SHUT_RDWR)

    with receiver(once) as peer, client(peer) as sender:
        assert sender.send(*message(1)).delivered
        time.sleep(0.05)
        assert sender.send(*message(2)).delivered
        assert len(peer.connections) == 2


def test_a_kept_connection_that_dies_under_a_message_is_replaced_once_under_the_same_id() -> None:
    def dies(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        connection.sendall(frame(acknowledge(next(messages))))
        if number == 1:
            next(messages)
            connection.shutdown(socket.SHUT_RDWR)

    with receiver(dies) as peer, client(peer) as sender:
        assert sender.send(*message(1)).delivered
        assert sender.send(*message(2)).delivered
        assert peer.received == [message(1)[0], message(2)[0], message(2)[0]]


def test_a_receiver_that_hangs_up_on_every_message_is_a_retry() -> None:
    def rude(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        next(messages)
        connection.shutdown(socket.SHUT_RDWR)

    with receiver(rude) as peer, client(peer) as sender:
        outcome = sender.send(*message(1))
        assert outcome.kind is AckKind.RETRY
        assert "closed the connection without an answer" in outcome.text
        assert len(peer.received) == 1


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100, b"\x0b" + b"x" * (2 << 20)])
def test_an_answer_that_is_not_mllp_is_a_retry(garbage: bytes) -> None:
    def talks_otherwise(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        next(messages)
        connection.sendall(garbage)
        list(messages)

    with receiver(talks_otherwise) as peer, client(peer) as sender:
        outcome = sender.send(*message(1))
        assert outcome.kind is AckKind.RETRY
        assert "not MLLP" in outcome.text


def test_nobody_listening_is_a_retry_with_a_question() -> None:
    port = free_port()
    outcome = MllpClient("127.0.0.1", port, 1.0, 1.0).send(*message(1))
    assert outcome.kind is AckKind.RETRY
    assert f"nothing listens on 127.0.0.1:{port}" in outcome.text


def test_a_receiver_that_takes_no_bytes_does_not_hold_the_sender_for_ever() -> None:
    def deaf(connection: socket.socket, messages: Iterator[bytes], number: int) -> None:
        time.sleep(3)

    with receiver(deaf) as peer, client(peer, 0.3) as sender:
        begun = time.monotonic()
        assert sender.send(b"MSH|" + b"x" * (16 << 20), "FR0001").kind is AckKind.RETRY
        assert time.monotonic() - begun < 1.5


def test_two_threads_take_turns_on_one_connection() -> None:
    with receiver(yes) as peer, client(peer) as sender:
        outcomes: list[bool] = []

        def work(first: int) -> None:
            outcomes.extend(sender.send(*message(first + number)).delivered for number in range(10))

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [True] * 20
        assert len(peer.connections) == 1


def test_a_probe_connects_and_sends_nothing() -> None:
    with receiver(yes) as peer:
        outcome = probe("127.0.0.1", peer.port)
        assert outcome.reachable
        assert "takes connections" in outcome.text
        time.sleep(0.05)
        assert peer.received == []
    told = probe("127.0.0.1", free_port(), 1.0)
    assert not told.reachable
    assert "nothing listens" in told.text


def test_a_name_that_does_not_resolve_is_said() -> None:
    assert "cannot be resolved" in probe("no-such-host.invalid", 2575, 1.0).text
