"""The table of spellings by which films say what they show, and how a site extends it (``eligibility.toml``)."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

_LETTERS_APART = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d", "þ": "th"})
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")
"""Scripts that write words without spaces (or glue particles to them): matched anywhere."""

_LETTER = r"[^\W\d_]"


class EligibilityTableError(ValueError):
    """A table of spellings that cannot be used; the message names the entry and what to do."""


@dataclass(frozen=True)
class EligibilityTable:
    """Words (compiled) and codes by group name; the groups are those of ``eligibility.toml``."""

    words: Mapping[str, re.Pattern[str]]
    codes: Mapping[str, frozenset[str]]

    def word(self, group: str, said: str) -> str | None:
        """The first word of a group in a text, as it was understood; None when there is none."""
        found = self.words[group].search(plain(said))
        return found.group(0).strip() if found else None

    def without(self, group: str, said: str) -> str:
        """The text in plain form with every word of a group taken out."""
        return self.words[group].sub(" | ", plain(said))

    def code(self, group: str, value: str) -> bool:
        """Does a code (or a coded string, whatever its capitals and separators) belong to a group?"""
        return _same_code(value) in self.codes[group]


def plain(said: str) -> str:
    """Small letters without accents, anything but letters and digits one space: ``Rx-TÓRAX_PA`` is ``rx torax pa``."""
    folded = unicodedata.normalize("NFKD", said.casefold()).translate(_LETTERS_APART)
    kept = "".join(letter for letter in folded if unicodedata.category(letter) != "Mn")
    return re.sub(r"[\W_]+", " ", kept).strip()


def _same_code(value: str) -> str:
    return re.sub(r"[\s_\-./]+", " ", value).strip().upper()


def load_table(extra: Path | Mapping[str, Any] | None = None) -> EligibilityTable:
    """The product's table, extended by a site's file (TOML of the same form) or mapping.

    An entry of the site's that begins with ``-`` takes one away. Raises ``EligibilityTableError`` for a file that
    cannot be read, an unknown group, or entries that are not lists of text.
    """
    groups = {section: {name: list(words) for name, words in part.items()} for section, part in _own().items()}
    if extra is not None:
        _extend(groups, _parsed(extra) if isinstance(extra, Path) else extra)
    return EligibilityTable(
        words={name: _pattern(entries) for name, entries in groups["words"].items()},
        codes={name: frozenset(map(_same_code, entries)) for name, entries in groups["codes"].items()},
    )


@functools.cache
def own_table() -> EligibilityTable:
    """The product's own table."""
    return load_table()


@functools.cache
def _own() -> Mapping[str, Mapping[str, list[str]]]:
    text = resources.files("firstread.models").joinpath("eligibility.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EligibilityTableError(f"{path}: cannot be read ({error.strerror}); name a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EligibilityTableError(f"{path}: not TOML in UTF-8 ({error}); correct the file") from error


def _extend(groups: dict[str, dict[str, list[str]]], extra: Mapping[str, Any]) -> None:
    for section, part in extra.items():
        if section not in groups or not isinstance(part, Mapping):
            raise EligibilityTableError(f"[{section}] is no section: use [words] and [codes]")
        for name, entries in part.items():
            if name not in groups[section]:
                near = difflib.get_close_matches(name, groups[section], 1, 0)
                raise EligibilityTableError(f"[{section}] {name} is no group: did you mean {near[0]}?")
            if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
                raise EligibilityTableError(f"[{section}] {name} must be a list of texts")
            for entry in entries:
                _change(groups[section][name], entry, f"[{section}] {name}")


def _change(known: list[str], entry: str, where: str) -> None:
    if not entry.startswith("-"):
        known.append(entry)
    elif entry[1:] in known:
        known.remove(entry[1:])
    else:
        raise EligibilityTableError(f"{where}: there is no entry {entry[1:]!r} to take away")


def _pattern(entries: Iterable[str]) -> re.Pattern[str]:
    """One pattern for a group, longest entries first, so that "thoracic spine" is found before "spine"."""
    parts = [part for entry in sorted(set(entries), key=len, reverse=True) if (part := _one(entry))]
    return re.compile("|".join(parts) or r"(?!)")


def _one(entry: str) -> str:
    # The star has to survive plain(), which knows letters and digits alone.
    words = [[plain(piece) for piece in word.split("*")] if "*" in word else [plain(word)] for word in entry.split()]
    if not any(piece for word in words for piece in word):
        return ""
    spelled = []
    for word in words:
        stars = f"{_LETTER}+" if word == ["", ""] else f"{_LETTER}*"
        spelled.append(stars.join(re.escape(piece).replace(r"\ ", " +") for piece in word))
    body = " +".join(spelled)
    if _UNSPACED.search(entry):
        return body
    return f"(?<!{_LETTER}){body}(?!{_LETTER})"
