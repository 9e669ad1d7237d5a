"""Light stand-ins for what stands around the agent in a hospital: a modality that sends, a RIS that acknowledges.

Each is a process of its own that is told by lines of JSON on its standard input and answers on its standard output, so
that what it costs is told apart from what the agent costs.
"""

from __future__ import annotations

import json
import queue
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STUDY, SERIES, INSTANCE = "2.25.7", "2.25.8", "2.25.9"
UID_LENGTH = 40
ACCESSION = "A0000000"
HEAD_BYTES = 8192
"""Every identifier of a film stands within its first bytes, before the pixels."""


def placeholder(root: str) -> str:
    """A UID of fixed length that a film's own takes the place of."""
    return root.ljust(UID_LENGTH, "0")


def uid(root: str, number: int) -> str:
    """The UID of the film with that number."""
    return root + str(number).rjust(UID_LENGTH - len(root), "0")


class Standin:
    """A stand-in's process."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.standins", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.hello: Any = self._answer()

    def ask(self, question: object) -> Any:
        """Sends a question and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def modality(port: int, template: Path) -> None:
    """Sends films of fresh studies: asked with the first number, the moments (monotonic) and a number of associations.

    Answers with [study UID, moment it was due, moment of Success, status] for each film, in no order.
    """
    from firstread.integration.dicom.send import DicomPeer, Sender

    content = template.read_bytes()
    head, tail = content[:HEAD_BYTES], content[HEAD_BYTES:]
    peer = DicomPeer("agent", "127.0.0.1", port, "FIRSTREAD", calling_ae_title="MODALITY")

    def film(number: int) -> bytes:
        own = head
        for root in (STUDY, SERIES, INSTANCE):
            own = own.replace(placeholder(root).encode(), uid(root, number).encode())
        return own.replace(ACCESSION.encode(), f"A{number:07}".encode()) + tail

    def work(due: queue.SimpleQueue[tuple[int, float]], sent: list[list[object]]) -> None:
        with Sender(peer) as sender:
            while True:
                try:
                    number, moment = due.get_nowait()
                except queue.Empty:
                    return
                ready = film(number)
                time.sleep(max(0.0, moment - time.monotonic()))
                outcome = sender.store(ready)
                sent.append([uid(STUDY, number), moment, time.monotonic(), outcome.status])

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        first, moments, associations = json.loads(line)
        due: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        for place, moment in enumerate(moments):
            due.put((first + place, moment))
        sent: list[list[object]] = []
        workers = [threading.Thread(target=work, args=(due, sent)) for _ in range(associations)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(json.dumps(sent), flush=True)


_STUDY_UID = re.compile(rb"\|113014\^DICOM Study\^DCM\|\|([0-9.]+)\|")


def ris() -> None:
    """Acknowledges every message; asked, answers with {study UID: moment (monotonic) of the acknowledgement}."""
    acknowledged: dict[str, float] = {}

    class Line(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            held = b""
            while chunk := self.request.recv(65536):
                held += chunk
                while b"\x1c\r" in held:
                    message, held = held.split(b"\x1c\r", 1)
                    control_id = message.split(b"|", 10)[9]
                    moment = time.strftime("%Y%m%d%H%M%S").encode()
                    head = b"MSH|^~\\&|RIS||FIRSTREAD||" + moment + b"||ACK^R01^ACK|" + control_id + b"|P|2.5.1\r"
                    self.request.sendall(b"\x0b" + head + b"MSA|AA|" + control_id + b"\r\x1c\r")
                    found = _STUDY_UID.search(message)
                    if found:
                        acknowledged[found.group(1).decode()] = time.monotonic()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Line) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps(server.server_address[1]), flush=True)
        for _ in sys.stdin:
            print(json.dumps(dict(acknowledged)), flush=True)
        server.shutdown()


def main(arguments: Sequence[str]) -> None:
    """``modality PORT FILM`` or ``ris``."""
    if arguments[0] == "modality":
        modality(int(arguments[1]), Path(arguments[2]))
    else:
        ris()


if __name__ == "__main__":
    main(sys.argv[1:])
