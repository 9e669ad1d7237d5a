"""A RIS made of python-hl7's own MLLP server: keeps what it gets and answers as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

Answer = Callable[[hl7.Message], "hl7.Message | None"]


def accept(message: hl7.Message) -> hl7.Message:
    """AA."""
    return message.create_ack()


def refuse(message: hl7.Message) -> hl7.Message:
    """AE: an error in the message, says the receiver."""
    return message.create_ack("AE")


def hang_up(message: hl7.Message) -> None:
    """The message is taken and the answer is lost."""


def answer_another(message: hl7.Message) -> hl7.Message:
    """AA, but for another message."""
    answer = message.create_ack()
    answer.assign_field("SOMEBODY-ELSE", "MSA", 1, 2)
    return answer


class Ris:
    """Answers its first messages as the script says and the rest with AA."""

    def __init__(self, *script: Answer, port: int = 0) -> None:
        self.script: list[Answer] = list(script)
        self.received: list[hl7.Message] = []
        self._wanted_port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def destination(self) -> dict[str, Any]:
        """As [[destinations]] names it."""
        return destination(self.port)

    def about(self, study: str) -> list[hl7.Message]:
        """The messages about a study, in the order of arrival."""
        return [one for one in list(self.received) if study in str(one)]

    def close(self) -> None:
        """Ends it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        starting = start_hl7_server(self._serve, "127.0.0.1", self._wanted_port, encoding="utf-8")
        self._server = self._loop.run_until_complete(starting)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.received.append(message)
                answer = (self.script.pop(0) if self.script else accept)(message)
                if answer is None:
                    break
                writer.writemessage(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def ris(*script: Answer) -> Iterator[Ris]:
    """A RIS while the block runs."""
    peer = Ris(*script)
    try:
        yield peer
    finally:
        peer.close()


def destination(port: int, name: str = "ris", **values: Any) -> dict[str, Any]:
    """An HL7 destination that is tried again soon."""
    return {
        "name": name,
        "type": "hl7",
        "host": "127.0.0.1",
        "port": port,
        "retry": {"first_s": 0.3, "max_s": 1.0},
        **values,
    }


def value(message: hl7.Message, segment: str, field: int, component: int = 1) -> str:
    """A field of a message as text, empty when it is not there."""
    try:
        return str(message.extract_field(segment, 1, field, 1, component))
    except LookupError:
        return ""
