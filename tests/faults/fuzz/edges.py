"""The edges: what each takes from strangers, how one hostile input is made for it, and what it must answer.

An edge raises ``Found`` for what must not happen. Anything else that a parser of ours raises is a finding as well.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Protocol

from firstread.agent.config import SettingsError, load_settings
from firstread.agent.decoders import Decoders
from firstread.agent.film import FilmOrder, ReadFilm, read_film
from firstread.agent.identify import identify
from firstread.agent.settings_file import render_template
from firstread.integration.dicom.header import read_header
from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.requestor import DicomPeer
from firstread.integration.dicom.send import Sender
from firstread.integration.dicom.status import CannotUnderstand
from firstread.integration.hl7 import order, reported
from firstread.integration.hl7.acknowledge import AckKind, acknowledge
from firstread.integration.hl7.errors import Hl7Error
from firstread.integration.hl7.framing import FrameDecoder, FramingError, frame
from firstread.integration.hl7.mllp import MllpClient
from firstread.models.preprocess import Preprocessing
from tests.faults.fuzz import material
from tests.faults.fuzz.mutate import mutated, random_text
from tests.integration.dicom_wire import CR, DEFLATED, EXPLICIT, IMPLICIT, Film, RawPeer

PATIENCE_S = 0.5
"""How long our clients wait for those who lie to them here."""

HANG_S = 5.0
"""Nothing may take longer than this to answer, refuse or hang up."""


class Found(Exception):
    """Something that must not happen; the message says what."""


class Late(Found):
    """It took too long. On a machine that does other work as well, that is a finding when it happens again alone."""


class Targets(Protocol):
    """Where the roles under attack listen, on 127.0.0.1."""

    dicom_port: int
    mllp_port: int
    web_port: int


@contextmanager
def liar(lie: Callable[[socket.socket], None]) -> Iterator[int]:
    """A listener that treats one caller so; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(HANG_S)

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(HANG_S)
                    lie(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
    thread.join(2 * HANG_S)
    if thread.is_alive():
        raise Found("the connection was left open")


def _after_hearing(connection: socket.socket, *answers: bytes) -> None:
    """Each answer when something was heard, and then silence until the other side ends."""
    for answer in answers:
        connection.recv(1 << 20)
        connection.sendall(answer)
    while connection.recv(1 << 20):
        pass


class Edge:
    """One place where strangers' bytes come in. ``real``: over a socket into a role of the running agent.

    ``make`` draws an input from the seed; ``try_`` gives it to the edge.
    """

    name = ""
    real = False
    weight = 1
    late = 0
    """How many were late once and in time when tried again."""
    at_once = 1
    """How many inputs are tried at the same time: those that wait for somebody's time-out may wait together."""

    def make(self, random: Random) -> bytes:
        """An input."""
        raise NotImplementedError

    def try_(self, content: bytes) -> None:
        """Gives it to the edge. Raises Found."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what the edge holds."""


def hung_up(connection: socket.socket, content: bytes) -> bytes:
    """Writes everything, says that it was all, and reads until the other side ends. Raises Late when it does not."""
    connection.settimeout(HANG_S)
    reader: list[bytes] = []
    began = time.monotonic()
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            reader.append(part)
            if time.monotonic() - began > 2 * HANG_S:
                raise Late(f"still talks after {2 * HANG_S:.0f} s")
    except TimeoutError:
        raise Late(f"neither answered nor hung up within {HANG_S:.0f} s") from None
    except OSError:
        pass
    return b"".join(reader)


class _Socket(Edge):
    real, at_once = True, 8

    def __init__(self, port: int) -> None:
        self._port = port

    def try_(self, content: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=HANG_S) as connection:
            hung_up(connection, content)


class Pdus(_Socket):
    """ACSE and DIMSE PDUs: mutated captures of real associations (DCMTK, pynetdicom), into the receiver."""

    name, weight = "pdus", 20

    def __init__(self, port: int, captures: Sequence[bytes]) -> None:
        super().__init__(port)
        self._captures = captures

    def make(self, random: Random) -> bytes:
        content = random.choice(self._captures)
        if random.random() < 0.15:  # a PDU's length alone
            at = random.choice(material.pdu_starts(content))
            lie = random.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4, "big")
            return content[: at + 2] + lie + content[at + 6 :]
        return mutated(random, content, self._captures)


class FilmsSent(Edge):
    """Data sets in well-formed C-STOREs, into the receiver, intake, analyser and summing up."""

    name, real, weight, at_once = "films sent", True, 4, 4

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()

    def make(self, random: Random) -> bytes:
        syntax = random.choice((EXPLICIT, EXPLICIT, IMPLICIT, DEFLATED))
        return syntax.encode() + b"\n" + material.hostile_data_set(random, syntax)

    def try_(self, content: bytes) -> None:
        syntax, _, data_set = content.partition(b"\n")
        film = Film()
        try:
            with RawPeer(("127.0.0.1", self._port), timeout_s=HANG_S) as peer:
                kind, _ = peer.associate([(CR, [syntax.decode()])], calling="FUZZ")
                if kind == 3:
                    return
                if kind != 2:
                    raise Found(f"no association for a well-formed request: PDU {kind}")
                status, _ = peer.store(film, data_set.replace(b"$UID$", film.sop_instance_uid.encode()))
                if status < 0:
                    raise Found("no answer to a well-formed C-STORE")
                peer.release()
        except TimeoutError:
            raise Late(f"no answer to a C-STORE within {HANG_S:.0f} s") from None


class FilmsRead(Edge):
    """Files, into the header reader of intake and, in a process with limits, into the reader of films."""

    name, weight = "films read", 2

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="firstread-fuzz-"))
        self._decoders: Decoders[FilmOrder, ReadFilm] = Decoders(read_film, count=1, timeout_s=20.0)
        self.contained = 0

    def make(self, random: Random) -> bytes:
        syntax = random.choice((EXPLICIT, EXPLICIT, IMPLICIT, DEFLATED))
        data_set = material.hostile_data_set(random, syntax)
        content = bytes(128) + b"DICM" + meta_header(CR, "2.25.1", syntax)[132:] + data_set
        return mutated(random, content) if random.random() < 0.3 else content

    def try_(self, content: bytes) -> None:
        path = self._folder / "film.dcm"
        path.write_bytes(content)
        began = time.monotonic()
        _header(content, path)
        if time.monotonic() - began > HANG_S:
            raise Found(f"the header alone took {time.monotonic() - began:.1f} s")
        wanted = Preprocessing(input_size=64)
        self._decoders.submit(0, FilmOrder(str(path), str(self._folder / "preview.pgm"), wanted, 18.0))
        ended = self._decoders.collect(60.0)
        if ended is None:
            raise Found("a process that reads films outlived its time limit")
        if ended.failure:
            self.contained += 1  # a crash or a runaway codec costs that film, which is what the process is for
            if "Error" in ended.failure and "MemoryError" not in ended.failure:
                raise Found(f"the reader of films raised instead of naming a reason: {ended.failure}")

    def close(self) -> None:
        self._decoders.close()


def _header(content: bytes, path: Path) -> None:
    at = content.find(b"DICM")
    if at != 128 or content[132:138] != b"\x02\0\0\0UL":
        return
    syntax = next((each for each in (DEFLATED, IMPLICIT, EXPLICIT) if each.encode() in content[:400]), EXPLICIT)
    offset = 144 + int.from_bytes(content[140:144], "little")
    if offset > len(content):
        return
    with suppress(CannotUnderstand):
        identify(read_header(path, offset, syntax, inflate_limit=64 << 20))


class Mllp(_Socket):
    """MLLP frames with orders and results, into the reading list's port."""

    name, weight = "mllp", 20

    def make(self, random: Random) -> bytes:
        messages = [
            mutated(random, random.choice(material.MESSAGES), material.MESSAGES)
            for _ in range(random.choice((1, 1, 3)))
        ]
        framed = b"".join(frame(one) for one in messages)
        return mutated(random, framed) if random.random() < 0.5 else framed


class Messages(Edge):
    """HL7 messages, into the parsers of orders, of results and of acknowledgements."""

    name, weight = "hl7 messages", 20

    def make(self, random: Random) -> bytes:
        content = random.choice(material.MESSAGES)
        if random.random() < 0.3:
            fields = content.split(b"|")
            for _ in range(random.choice((1, 3, 10))):
                fields[random.randrange(len(fields))] = random_text(random, random.choice((0, 1, 5, 80)))
            return b"|".join(fields)
        return mutated(random, content, material.MESSAGES)

    def try_(self, content: bytes) -> None:
        began = time.monotonic()
        for parse in (order.parse_orders, reported.parse_results, reported.parse_result):
            with suppress(Hl7Error):
                parse(content)  # type: ignore[operator]
        answer = acknowledge(content)
        if b"\x0b" in answer or b"\x1c" in answer:
            raise Found("our acknowledgement holds a frame's bytes")
        decoder = FrameDecoder(1 << 16)
        with suppress(FramingError):
            decoder.feed(content)
            decoder.feed(frame(content))
        if time.monotonic() - began > HANG_S:
            raise Found("parsing took too long")


class Acknowledgements(Edge):
    """What a lying receiver answers, into our MLLP client: never taken for an acceptance of another message."""

    name, weight, at_once = "acknowledgements", 5, 16

    def make(self, random: Random) -> bytes:
        good = frame(material.ACKNOWLEDGEMENT)
        other = frame(material.ACKNOWLEDGEMENT.replace(b"FR0001", b"FR0002"))
        return mutated(random, random.choice((good, other, good + good)), (good, other))

    def try_(self, content: bytes) -> None:
        began = time.monotonic()
        with (
            liar(lambda connection: _after_hearing(connection, content)) as port,
            MllpClient("127.0.0.1", port, PATIENCE_S, PATIENCE_S) as client,
        ):
            outcome = client.send(material.MESSAGES[0], "FR0001")
        if outcome.kind is AckKind.DELIVERED and b"FR0001" not in content:
            raise Found(f"an answer without our control id was taken for ours: {outcome}")
        if time.monotonic() - began > HANG_S:
            raise Found("the client waited beyond its time")


class Responses(Edge):
    """What a lying PACS answers, into our Storage SCU: never taken for a success that it was not."""

    name, weight, at_once = "dimse responses", 4, 16

    def __init__(self, captures: Sequence[bytes], film: bytes) -> None:
        self._captures, self._film = captures, film

    def make(self, random: Random) -> bytes:
        return mutated(random, random.choice(self._captures), self._captures)

    def try_(self, content: bytes) -> None:
        starts = [*material.pdu_starts(content), len(content)]
        began = time.monotonic()
        with liar(lambda connection: _after_hearing(connection, content[: starts[1]], content[starts[1] :])) as port:
            peer = DicomPeer("pacs", "127.0.0.1", port, "PACS", "FIRSTREAD", *[PATIENCE_S] * 4)
            with Sender(peer) as sender:
                outcome = sender.store(self._film)
            took = time.monotonic() - began
        if outcome.delivered and b"\x00\x09\x02\x00\x00\x00" not in content:
            raise Found(f"a film was called delivered though no status came: {outcome}")
        if took > HANG_S:
            raise Found(f"the SCU took {took:.1f} s with time-outs of half a second")


class Http(_Socket):
    """Requests, into the page, the login and the operating endpoints."""

    name, weight = "http", 18

    def make(self, random: Random) -> bytes:
        request = random.choice(material.REQUESTS)
        if random.random() < 0.2:
            path = b"/" + random_text(random, random.choice((1, 20, 300, 9000))).replace(b" ", b"%20")
            return b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        return mutated(random, request, material.REQUESTS)

    def try_(self, content: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=HANG_S) as connection:
            answer = hung_up(connection, content)
        if answer.startswith(b"HTTP/1.1 5") and b" 501 " not in answer[:20] and b" 503 " not in answer[:20]:
            raise Found(f"a request was answered {answer[:60]!r}")
        if b"Traceback" in answer:
            raise Found("a traceback went out")


class Toml(Edge):
    """Settings files: what cannot be used is said in sentences."""

    name, weight = "settings", 4

    def __init__(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="firstread-fuzz-")) / "site.toml"
        live = "\n".join(line.lstrip("#") if " = " in line else line for line in render_template().splitlines())
        self._files = [render_template().encode(), live.encode(), material.SETTINGS]

    def make(self, random: Random) -> bytes:
        return mutated(random, random.choice(self._files), self._files)

    def try_(self, content: bytes) -> None:
        self._path.write_bytes(content)
        began = time.monotonic()
        try:
            load_settings(self._path, {})
        except SettingsError as error:
            if not error.sentences or not all(one.strip() for one in error.sentences):
                raise Found("settings were refused without a sentence") from error
        if time.monotonic() - began > HANG_S:
            raise Found("reading the settings took too long")


def all_edges(targets: Targets, sent: Sequence[bytes], answered: Sequence[bytes], film: bytes) -> list[Edge]:
    """Every edge. ``sent``, ``answered``: captures of both sides of real associations; ``film``: a Part 10 file."""
    makers: list[Callable[[], Edge]] = [
        lambda: Pdus(targets.dicom_port, sent),
        lambda: FilmsSent(targets.dicom_port),
        FilmsRead,
        lambda: Mllp(targets.mllp_port),
        Messages,
        Acknowledgements,
        lambda: Responses(answered, film),
        lambda: Http(targets.web_port),
        Toml,
    ]
    return [make() for make in makers]
