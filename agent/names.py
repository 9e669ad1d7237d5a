"""Person names as they are compared: without case and accents; for fuzzy matching by word and by sound."""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 256
_SOUNDS = {
    **dict.fromkeys("BFPV", "1"),
    **dict.fromkeys("CGJKQSXZ", "2"),
    **dict.fromkeys("DT", "3"),
    "L": "4",
    **dict.fromkeys("MN", "5"),
    "R": "6",
}


def name_key(name: str) -> str:
    """The name in capitals, accents off, without empty components at the end of a representation (PS3.5 6.2.1)."""
    groups = [re.sub(r"\s*\^\s*", "^", group).strip().rstrip("^ ") for group in plain(name).split("=")]
    return "=".join(groups).rstrip("=")[:_LONGEST]


def name_words(name: str) -> str:
    """Every word of a name with its sound (``=`` in front), each once, a space around each: `` ANNA =A500 ``."""
    parts: list[str] = []
    for word in _words(name):
        parts += [word] if not (sound := soundex(word)) else [word, f"={sound}"]
    kept = " ".join(dict.fromkeys(parts))[: 2 * _LONGEST - 2]
    return f" {kept} "


def fuzzy_words(value: str) -> list[tuple[str, str]]:
    """The words that a fuzzy query asks for, each with its sound (empty where it has none). Wildcards mean nothing."""
    return [(word, soundex(word)) for word in _words(value)]


def soundex(word: str) -> str:
    """Russell's code of a word in Latin letters, empty for any other: ``M600`` for MAIER and MEYER."""
    if not word.isascii() or not word[:1].isalpha():
        return ""
    code, last = word[0], _SOUNDS.get(word[0], "")
    for letter in word[1:]:
        sound = _SOUNDS.get(letter, "")
        if sound and sound != last:
            code += sound
        if letter not in "HW":
            last = sound
    return code[:4].ljust(4, "0")


def plain(text: str) -> str:
    """Capitals without accents; letters without a Latin base stay as they are."""
    apart = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).upper()


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s^=,.*?'-]+", plain(name)) if word]
