"""Text into a field and out of it: control characters, delimiters, escape sequences (HL7 v2.5.1 2.7)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_ESCAPES = str.maketrans({"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\"})
_BREAKS = frozenset("\r\n\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029")
_HL7_NULL = '""'


def clean(text: str) -> str:
    """``text`` fit for a field: line breaks and tabs become blanks, other control characters and halves of surrogate
    pairs go. A text that is exactly ``""`` becomes empty: on the wire it would order the receiver to delete (2.5.3).
    """
    if not text.isprintable():
        text = "".join(map(_cleaned, text))
    return "" if text == _HL7_NULL else text


def tidy(text: str) -> str:
    """``text`` cleaned and without outer blanks: what a key or a name is, and empty exactly when its field will be."""
    return clean(clean(text).strip())


def legible(text: str) -> str:
    """``text`` with its line breaks and without other control characters: ``\\X1B\\`` would steer a terminal that shows
    it, and PostgreSQL refuses a NUL."""
    if text.isprintable():
        return text
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("".join(map(_cleaned, line)) for line in lines)


def _cleaned(char: str) -> str:
    if char in _BREAKS:
        return " "
    return "" if unicodedata.category(char) in ("Cc", "Cs") else char


def escape(text: str) -> str:
    """``text`` cleaned, its delimiters written as ``\\F\\ \\S\\ \\T\\ \\R\\ \\E\\`` (for the usual ``|^~\\&``)."""
    return clean(text).translate(_ESCAPES)


def unescape(text: str, *, escape_char: str = "\\", delimiters: str = "|^~&", charset: str = "utf-8") -> str:
    """The text that was meant: ``delimiters`` are field, component, repetition and subcomponent separator.

    ``\\.br\\`` and ``\\.sp\\`` become line breaks, highlighting and other formatting commands go, ``\\Xhh..\\`` is read
    as bytes of ``charset``. What is no escape sequence stays as it stands.
    """
    if not escape_char or escape_char not in text:
        return text
    field, component, repetition, subcomponent = tuple(delimiters)
    letters = {"F": field, "S": component, "T": subcomponent, "R": repetition, "E": escape_char, "H": "", "N": ""}
    mark = re.escape(escape_char)
    return re.sub(f"{mark}([^{mark}]*){mark}", _meant(letters, charset), text)


def _meant(letters: dict[str, str], charset: str) -> Callable[[re.Match[str]], str]:
    def meant(match: re.Match[str]) -> str:
        sequence = match.group(1)
        if sequence in letters:
            return letters[sequence]
        if re.fullmatch(r"X([0-9A-Fa-f]{2})+", sequence):
            return bytes.fromhex(sequence[1:]).decode(charset, errors="replace")
        if re.fullmatch(r"\.(br|sp ?\d*)", sequence):
            return "\n"
        if re.fullmatch(r"(\.(in|ti|fi|nf|ce|sk).*)|([CM][0-9A-Fa-f]{4,6})", sequence):
            return ""
        return match.group(0)

    return meant


def pieces(text: str, limit: int) -> list[str]:
    """``text`` cut into pieces of at most ``limit`` characters after escaping, at blanks where possible.

    Joined again they are the cleaned text. Receivers (hl7apy among them) hold OBX-5 to the 199 characters of an ST.
    """
    text = clean(text)
    found: list[str] = []
    while text:
        length, end = 0, 0
        while end < len(text) and length + len(escape(text[end])) <= limit:
            length += len(escape(text[end]))
            end += 1
        if end < len(text):
            blank = text.rfind(" ", 0, end)
            end = blank + 1 if blank > 0 else end
        found.append(text[:end])
        text = text[end:]
    return found
