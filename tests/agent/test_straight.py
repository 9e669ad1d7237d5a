"""A store request over a real socket: its body is read past the event loop, and every way it may end is answered."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import select

from firstread.agent.store.tables import instance
from firstread.agent.web import dicomweb_store, straight
from firstread.agent.web.app import serve
from tests.agent.builders import Bench, chest_film
from tests.stow import DICOM_PARTS, body, multipart, part10

PLACE = "/dicom-web/studies"


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "spool")
    yield made
    made.store.close()


@pytest.fixture
def lent(monkeypatch):
    """Every body that was asked for past the event loop: what was lent, or None."""
    seen = []

    def borrow(request):
        seen.append(straight.borrow(request))
        return seen[-1]

    monkeypatch.setattr(dicomweb_store, "borrow", borrow)
    return seen


class Server:
    def __init__(self, bench):
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen(8)
        self.port = bound.getsockname()[1]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=serve, args=(bench.settings, bench.store, self.stop, bound), daemon=True)
        self.thread.start()

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def end(self):
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server did not end"


@pytest.fixture
def server(bench):
    made = Server(bench)
    yield made
    made.end()


def large_film(sop="1.2.3.1.1"):
    one = chest_film()
    one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = sop
    one.Rows, one.Columns = 1200, 1000
    pixels = np.random.default_rng(len(sop)).integers(0, 4096, (1200, 1000), np.uint16)
    one.PixelData = pixels.tobytes()
    return one


def head(length, more=""):
    lines = (f"POST {PLACE} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {DICOM_PARTS}", f"Content-Length: {length}")
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode()


def response(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer


def paths(bench):
    with bench.store.read() as connection:
        return [bench.settings.spool / row.path for row in connection.execute(select(instance).order_by(instance.c.id))]


def wait_until(holds, what):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def left_over(bench):
    return list((bench.settings.spool / "incoming").iterdir())


def test_films_over_one_connection_are_read_past_the_loop_and_kept_as_they_were(bench, server, lent):
    films = [large_film("1.2.3.1.1"), large_film("1.2.3.1.22"), large_film("1.2.3.1.333")]
    connection = server.connection()
    for film in films:
        connection.request("POST", PLACE, body(part10(film)), {"Content-Type": DICOM_PARTS})
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
    assert len(lent) == 3 and all(one is not None for one in lent)
    assert [dcmread(path).PixelData for path in paths(bench)] == [film.PixelData for film in films]
    assert left_over(bench) == []


def test_the_second_packet_of_an_answer_does_not_wait_for_the_first_to_be_acknowledged(server, monkeypatch):
    at_once = []

    def borrow(request):
        rest = straight.borrow(request)
        at_once.append(rest.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return rest

    monkeypatch.setattr(dicomweb_store, "borrow", borrow)
    connection = server.connection()
    connection.request("POST", PLACE, body(part10(large_film())), {"Content-Type": DICOM_PARTS})
    assert connection.getresponse().status == 200
    assert len(at_once) == 1 and at_once[0]


def test_requests_sent_without_waiting_for_answers_do_not_run_into_each_other(bench, server, lent):
    bodies = [body(part10(large_film(sop))) for sop in ("1.2.3.1.1", "1.2.3.1.22")]
    sent = b"".join(head(len(one)) + one for one in bodies)
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        sending = threading.Thread(target=peer.sendall, args=(sent,), daemon=True)
        sending.start()
        assert [response(peer).status, response(peer).status] == [200, 200]
        sending.join(10)
    assert lent[0] is not None and len(paths(bench)) == 2


def test_a_sender_that_asks_before_it_sends_is_told_to_go_on(bench, server, lent):
    content = body(part10(large_film()))
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(head(len(content), "Expect: 100-continue\r\n"))
        assert peer.recv(4096).startswith(b"HTTP/1.1 100")
        peer.sendall(content)
        assert response(peer).status == 200
    assert lent[0] is not None and len(paths(bench)) == 1


def test_a_body_in_chunks_comes_through_the_loop(bench, server, lent):
    content = body(part10(large_film()))
    connection = server.connection()
    pieces = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
    connection.request("POST", PLACE, pieces, {"Content-Type": DICOM_PARTS}, encode_chunked=True)
    assert connection.getresponse().status == 200
    assert lent == [None] and len(paths(bench)) == 1


def test_a_peer_that_goes_away_leaves_nothing(bench, server, lent):
    content = body(part10(large_film()))
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(head(len(content)) + content[:1_000_000])
        wait_until(lambda: lent and left_over(bench), "the film never began to come in")
    wait_until(lambda: not left_over(bench), "half a film was left over")
    assert paths(bench) == [] and lent[0] is not None


def test_a_peer_that_falls_silent_is_told_and_let_go(bench, server, lent, monkeypatch):
    monkeypatch.setattr(dicomweb_store, "SILENCE_S", 0.5)
    content = body(part10(large_film()))
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(head(len(content)) + content[:1_000_000])
        answer = response(peer)
        assert answer.status == 408 and answer.getheader("connection") == "close"
        assert peer.recv(1) == b""
    assert lent[0] is not None and paths(bench) == [] and left_over(bench) == []


def test_what_is_wrong_in_the_middle_of_a_body_is_told_and_the_rest_of_it_is_read_over(bench, server, lent):
    parts = ({"Content-Type": "application/dicom"}, part10(large_film())), ({"X": "y" * 70_000}, bytes(500_000))
    content = multipart(*parts)
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(head(len(content)) + content[:-400_000])
        assert response(peer).status == 202
        peer.sendall(content[-400_000:] + head(len(body(b"x"))) + body(b"x"))
        assert response(peer).status == 409
    assert lent[0] is not None and len(paths(bench)) == 1 and left_over(bench) == []


def test_a_server_that_stops_does_not_wait_for_a_sender_that_dawdles(bench, lent, monkeypatch):
    server = Server(bench)
    content = body(part10(large_film()))
    with socket.create_connection(("127.0.0.1", server.port), 60) as peer:
        peer.sendall(head(len(content)) + content[:1_000_000])
        wait_until(lambda: lent and left_over(bench), "the film never began to come in")
        server.end()
        wait_until(lambda: not left_over(bench), "a thread still waits for the rest")
    assert paths(bench) == []
