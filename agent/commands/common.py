"""What every command shares: settings, the store, JSON or tables, and errors as sentences with an exit code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from firstread.agent.config import Settings
    from firstread.agent.store.engine import Store

OK, FAILED, WRONG_USE, REFUSED = 0, 1, 2, 3
"""Exit codes: done; something failed or a problem was found; wrong usage or settings; another agent runs."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file (else $FIRSTREAD_CONFIG, ./firstread.toml, /etc/firstread)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]


def settings_from(config: Path | None) -> Settings:
    """The settings in force; what is wrong with them is printed, and the command ends with 2."""
    from firstread.agent.config import SettingsError, find_settings_file, load_settings

    try:
        return load_settings(config or find_settings_file())
    except SettingsError as error:
        fail(str(error), WRONG_USE)


@contextmanager
def opened(config: Path | None) -> Iterator[tuple[Settings, Store]]:
    """Settings and database; StoreError becomes a sentence."""
    from firstread.agent.store.engine import Store, StoreError

    settings = settings_from(config)
    os.umask(0o077)
    store = None
    try:
        if settings.database_url.startswith("sqlite:///"):
            path = Path(settings.database_url.removeprefix("sqlite:///"))
            if not path.exists():
                fail(f"there is no database at {path}: start the agent once, or check [storage] path", FAILED)
        store = Store(settings.database_url)
        yield settings, store
    except StoreError as error:
        fail(str(error), FAILED)
    finally:
        if store is not None:
            store.close()


_STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it: control characters, marks that turn the direction of writing."""


def harmless(text: str) -> str:
    """``text`` as a terminal may show it, whoever wrote it: what would steer it is written as an escape (\\u001b)."""
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def say(text: str = "", *, err: bool = False) -> None:
    """Prints lines that may hold text of others."""
    typer.echo(harmless(text), err=err)


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """Prints what is wrong to standard error and ends the command."""
    say(sentence, err=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """JSON, readable, UTF-8."""
    say(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: list[str], rows: list[list[Any]], nothing: str) -> None:
    """A table for people; ``nothing`` is said when there are no rows."""
    if not rows:
        typer.echo(nothing)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else harmless(str(cell))) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
