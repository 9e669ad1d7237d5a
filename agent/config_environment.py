"""Settings from the environment: ``FIRSTREAD_DICOM__AE_TITLE=PACS1`` is ``[dicom] ae_title``."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

PREFIX = "FIRSTREAD_"
_LISTS = ("destinations", "senders", "subscribers", "overrides")


def merge_environment(
    tree: dict[str, Any], environ: Mapping[str, str], known: Mapping[str, Collection[str]]
) -> list[str]:
    """Lay the environment over ``tree``; returns a sentence for each variable that fits nowhere.

    ``__`` parts section, key and deeper keys; names count in any case. In a list of tables the part after the list is
    a position from 0 or a name: ``FIRSTREAD_DESTINATIONS__PACS__HOST``. Lists are written as in TOML or with commas.
    An empty value is no value: the file's, or the default, stays. ``known``: the keys of each section, to recognise a
    variable with one underscore too few; any other (Kubernetes sets some of its own) is not ours.
    """
    problems = []
    for variable in sorted(environ):
        parts = variable.removeprefix(PREFIX).lower().split("__")
        meant = _meant(variable, known) if len(parts) < 2 else ""
        if meant:
            problems.append(f"{variable} sets nothing: did you mean {meant}?")
        if not variable.startswith(PREFIX) or len(parts) < 2 or environ[variable] == "":
            continue
        problem = _put(tree, parts, _value(environ[variable]))
        if problem:
            problems.append(f"{variable}: {problem}")
    return problems


def _meant(variable: str, known: Mapping[str, Collection[str]]) -> str:
    """The variable that was probably meant by one with a single underscore, or without its section; empty if none."""
    name = variable.removeprefix(PREFIX).lower()
    if not variable.startswith(PREFIX):
        return ""
    for section, keys in known.items():
        if name.startswith(section + "_") and name.removeprefix(section + "_") in keys:
            return f"{PREFIX}{section}__{name.removeprefix(section + '_')}".upper()
    owners = [section for section, keys in known.items() if name in keys]
    return f"{PREFIX}{owners[0]}__{name}".upper() if len(owners) == 1 else ""


def _value(text: str) -> Any:
    """TOML where it is a list, a table or a truth value, else the text itself (pydantic turns it into numbers)."""
    if text.lstrip()[:1] in ("[", "{") or text in ("true", "false"):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _put(tree: dict[str, Any], parts: list[str], value: Any) -> str:
    table: Any = tree
    for depth, part in enumerate(parts[:-1]):
        if isinstance(table, list):
            chosen = _of_list(table, part)
            if chosen is None:
                known = ", ".join(str(item.get("name", "?")) for item in table if isinstance(item, dict)) or "none yet"
                return f"{parts[depth - 1]} has no {part!r} (there is: {known})"
            table = chosen
        elif isinstance(table, dict):
            table = table.setdefault(
                _same(table, part),
                [] if part in ("destinations", "senders", "peers", "subscribers", "overrides") else {},
            )
        else:
            return f"{parts[depth - 1]} is a value, not a section"
    if not isinstance(table, dict):
        return f"{parts[-2]} is not a table"
    key = _same(table, parts[-1])
    secret = key.removesuffix("_file")
    if f"{secret}_file" in table or (key != secret and secret in table):
        # The environment wins over the file, whichever of the two ways either chose.
        table.pop(f"{secret}_file", None)
        table.pop(secret, None)
    table[key] = value
    return ""


def _same(table: dict[str, Any], part: str) -> str:
    return next((key for key in table if key.lower() == part), part)


def _of_list(table: list[Any], part: str) -> Any:
    if part.isdigit():
        if int(part) == len(table):
            table.append({})
        return table[int(part)] if int(part) < len(table) else None
    return next((item for item in table if isinstance(item, dict) and str(item.get("name", "")).lower() == part), None)
