"""multipart/related bodies: read piece by piece as they come, and written piece by piece (RFC 2387, PS3.18 8.6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from firstread.integration.dicomweb.errors import BadRequest

_LARGEST_HEADER = 16 * 1024
_LONGEST_BOUNDARY = 256
"""RFC 2046 allows 70 characters, Orthanc's plug-in sends 73."""
MOST_PARTS = 100_000


class Part(Protocol):
    """Takes the content of one part as it comes."""

    def write(self, content: bytes | memoryview) -> None:
        """The next piece."""

    def end(self) -> None:
        """It is complete."""


class MultipartReader:
    """Feeds parts to what ``open_part(headers)`` makes for each; header names in lower case.

    Raises BadRequest for a body that is no multipart with this boundary. What the parts raise passes through.
    """

    def __init__(self, boundary: str, open_part: Callable[[Mapping[str, str]], Part]) -> None:
        if not boundary or len(boundary) > _LONGEST_BOUNDARY:
            raise BadRequest("multipart/related without a boundary, or with one beyond reason")
        self._open_part = open_part
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._part: Part | None = None
        self._ended = False
        self.parts = 0
        self._parser = MultipartParser(
            boundary.encode("latin-1", "replace"),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._content_of_field,
                "on_header_end": self._field_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._content,
                "on_part_end": self._end,
                "on_end": self._all,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """The next piece of the body."""
        if self._ended:
            return  # an epilogue means nothing
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from error

    def close(self) -> None:
        """The body is over. Raises BadRequest where it ends too early."""
        if not self._ended:
            raise BadRequest("the body was cut short: its closing boundary is missing")
        if not self.parts:
            raise BadRequest("the multipart body has no parts")

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise BadRequest(f"more than {MOST_PARTS} parts")
        self._headers = {}

    def _field(self, content: bytes, start: int, end: int) -> None:
        self._name += content[start:end]
        self._look_at_length()

    def _content_of_field(self, content: bytes, start: int, end: int) -> None:
        self._value += content[start:end]
        self._look_at_length()

    def _field_ends(self) -> None:
        self._headers[self._name.decode("latin-1").strip().lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _look_at_length(self) -> None:
        if len(self._name) + len(self._value) > _LARGEST_HEADER or len(self._headers) > 64:
            raise BadRequest("a part's header is longer than any that means something")

    def _headers_end(self) -> None:
        self._part = self._open_part(self._headers)

    def _content(self, content: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.write(memoryview(content)[start:end])

    def _end(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.end()

    def _all(self) -> None:
        self._ended = True


def new_boundary() -> str:
    """A boundary that occurs in no content."""
    return uuid.uuid4().hex


def written(boundary: str, parts: Iterable[tuple[Mapping[str, str], Iterable[bytes]]]) -> Iterator[bytes]:
    """A multipart/related body of parts, each with its headers and its content in pieces."""
    for headers, content in parts:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"--{boundary}\r\n{head}\r\n".encode("latin-1")
        yield from content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode("latin-1")
