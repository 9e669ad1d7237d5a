"""A message's bytes as segments, fields, repetitions, components, and back (ER7, HL7 v2.5.1 2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firstread.integration.hl7.charset import decode
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from firstread.integration.hl7.escape import escape, legible, tidy, unescape

ENCODING_CHARACTERS = "^~\\&"
_SEGMENT_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")


@dataclass(frozen=True)
class Delimiters:
    """The five characters that a message announces in MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


@dataclass(frozen=True)
class Segment:
    """One segment; ``fields[0]`` is its name, ``fields[n]`` field n, still escaped.

    ``sequence``: the how-manieth of its name in the message, from one.
    """

    fields: tuple[str, ...]
    sequence: int
    delimiters: Delimiters
    charset: str

    @property
    def name(self) -> str:
        """``OBX``"""
        return self.fields[0]

    def field(self, number: int) -> str:
        """Field ``number`` as it stands on the wire; empty when absent or HL7 null."""
        text = self.fields[number] if number < len(self.fields) else ""
        return "" if text == '""' else text

    def repetitions(self, number: int) -> list[str]:
        """The repetitions of a field as they stand, none for an empty field."""
        text = self.field(number)
        return text.split(self.delimiters.repetition) if text else []

    def parts(self, number: int, repetition: int = 1) -> list[str]:
        """Components of one repetition as they stand."""
        found = self.repetitions(number)
        return found[repetition - 1].split(self.delimiters.component) if repetition <= len(found) else []

    def value(self, number: int, component: int = 1, subcomponent: int = 1, repetition: int = 1) -> str:
        """One value on one line, unescaped, without control characters and outer blanks; empty when absent or HL7
        null."""
        components = self.parts(number, repetition)
        if component > len(components):
            return ""
        values = components[component - 1].split(self.delimiters.subcomponent)
        return tidy(self.text(values[subcomponent - 1])) if subcomponent <= len(values) else ""

    def text(self, escaped: str) -> str:
        """A piece of this segment, unescaped: line breaks stay, no other control character does."""
        if escaped == '""':
            return ""
        marks = self.delimiters
        meant = unescape(
            escaped,
            escape_char=marks.escape,
            delimiters=marks.field + marks.component + marks.repetition + marks.subcomponent,
            charset=self.charset,
        )
        return legible(meant)

    def at(self, field: int = 0, component: int = 0) -> ErrorLocation:
        """The location of a field of this segment, for an error."""
        return ErrorLocation(self.name, self.sequence, field, component)


@dataclass(frozen=True)
class Message:
    """A whole message, taken apart but not judged. ``remark``: what was odd about its characters."""

    segments: tuple[Segment, ...]
    charset: str
    remark: str = ""

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    def all(self, *names: str) -> Iterator[Segment]:
        """Segments of these names, in order."""
        return (segment for segment in self.segments if segment.name in names)

    def first(self, name: str) -> Segment | None:
        """The first segment of this name."""
        return next(self.all(name), None)


def read(message: bytes) -> Message:
    """Take a message apart. CR ends a segment; LF or CR LF, which many send, are taken too.

    Raises ``UnreadableMessage`` (100, 101, 102) where there is no header to go by.
    """
    at = ErrorLocation("MSH")
    stripped = message.strip(b"\r\n\x00 \x0b\x1c\xef\xbb\xbf")
    if stripped[:3] != b"MSH" and message[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableMessage(100, at, "the message does not begin with MSH: send HL7 v2 in ER7, one message a frame")
    text, charset, remark = decode(stripped)
    text = text.lstrip("\ufeff")
    lines = [line.lstrip("\n") for line in text.split("\r" if "\r" in text else "\n")]
    delimiters = _delimiters(lines[0], at)
    segments: list[Segment] = []
    counts: dict[str, int] = {}
    for line in _joined(lines, delimiters.field):
        fields = line.split(delimiters.field)
        if fields[0] == "MSH":
            fields.insert(1, delimiters.field)
        counts[fields[0]] = counts.get(fields[0], 0) + 1
        segments.append(Segment(tuple(fields), counts[fields[0]], delimiters, charset))
    if counts["MSH"] > 1:
        raise UnreadableMessage(100, ErrorLocation("MSH", 2), "two messages in one frame: frame each message by itself")
    return Message(tuple(segments), charset, remark)


def _delimiters(header: str, at: ErrorLocation) -> Delimiters:
    marks = header[4:].split(header[3:4], 1)[0] if len(header) > 8 else ""
    characters = header[3:4] + marks
    if len(marks) < 3 or len(set(characters)) != len(characters) or any(c.isalnum() or c.isspace() for c in characters):
        raise UnreadableMessage(102, at, "MSH-1 and MSH-2 do not hold the delimiters: send |^~\\& there")
    return Delimiters(characters[0], marks[0], marks[1], marks[2], marks[3] if len(marks) > 3 else "&")


def _joined(lines: Sequence[str], field: str) -> Iterator[str]:
    """Segments; a line that is none belongs to the OBX or NTE before it (a report's own line break, sent raw)."""
    current = ""
    for line in lines:
        if not line.strip():
            continue
        if _SEGMENT_NAME.fullmatch(line[:3]) and line[3:4] in (field, ""):
            if current:
                yield current
            current = line
        elif current[:3] in ("OBX", "NTE"):
            current += "\\.br\\" + line
        else:
            raise UnreadableMessage(
                100, ErrorLocation(current[:3]), "a line after this segment is no segment: end segments with CR alone"
            )
    yield current


def component(*subcomponents: str) -> str:
    """Subcomponents, escaped and joined by ``&``; trailing empty ones left out."""
    return "&".join(map(escape, subcomponents)).rstrip("&")


def field(*components: str) -> str:
    """Components, escaped and joined by ``^``; trailing empty ones left out."""
    return "^".join(map(escape, components)).rstrip("^")


def compose(*escaped: str) -> str:
    """Components that are escaped already, joined by ``^``; trailing empty ones left out."""
    return "^".join(escaped).rstrip("^")


def segment(name: str, fields: dict[int, str]) -> str:
    """A segment from field number to field text (already escaped by ``field`` or ``component``)."""
    numbers = [number for number, text in fields.items() if text]
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(numbers, default=0) + 1))])


def header(fields: dict[int, str]) -> str:
    """MSH, where field 1 is the separator itself; 2 is written here."""
    return segment("MSH", {number - 1: text for number, text in (fields | {2: ENCODING_CHARACTERS}).items()})
