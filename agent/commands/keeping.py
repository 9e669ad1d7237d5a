"""Care for what is kept: ``verify``, ``backup``, ``restore``, ``legal-hold``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstread.agent.commands.common import (
    FAILED,
    REFUSED,
    ConfigOption,
    JsonOption,
    fail,
    opened,
    print_json,
    print_table,
    say,
    settings_from,
)

if TYPE_CHECKING:
    from firstread.agent.config import Settings
    from firstread.agent.store.engine import Store


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _nobody_runs(settings: Settings, store: Store) -> bool:
    """True where no agent runs on this folder: then no file is on its way to its row, however young it is."""
    from firstread.agent.spool import SpoolInUse, note_clean_end, take_spool

    if not store.is_sqlite:
        return False  # other machines may work on the same folder
    try:
        lock, left_open = take_spool(settings.spool)
        if not left_open:
            note_clean_end(lock)
        os.close(lock)  # at once: looking takes long, and must not keep an agent from starting
    except SpoolInUse:
        return False
    return True


def verify(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move files that no row names into the spool's folder unlisted/.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Look at sizes only, without reading every file.")] = False,
) -> None:
    """Compares every file in the spool with the database, both ways; exit code 1 when something is amiss."""
    from firstread.agent.inspection import SETTLED_S, inspect, report_faults, set_aside

    with opened(config) as (settings, store), _progress("files") as bar:
        found = inspect(
            settings,
            store,
            hashes=not quick,
            settled_s=0.0 if _nobody_runs(settings, store) else SETTLED_S,
            on_progress=lambda done: bar(done, None),
        )
        report_faults(store, found)
        moved = set_aside(settings, store, found.unlisted) if repair else 0
    if as_json:
        print_json({**asdict(found), "sound": found.sound, "set_aside": moved})
    else:
        say(f"{found.films} films and {found.results} results were compared with the database")
        if found.faults:
            print_table(
                ["file", "problem", "study", "received", "what to do"],
                [
                    [one.path, one.problem, one.study_instance_uid, f"{one.received_at:%Y-%m-%d %H:%M}", one.remedy]
                    for one in found.faults
                ],
                "",
            )
        for name in found.unlisted:
            say(f"{name}: no row names it; its sender was never told that it is stored")
        if moved:
            say(f"{moved} files were moved into {settings.spool / 'unlisted'}")
        elif found.unlisted:
            say("--repair moves these files into the spool's folder unlisted/")
    if found.faults or (found.unlisted and not moved):
        raise typer.Exit(FAILED)


def backup(
    target: Annotated[Path, typer.Argument(help="New folder for the backup.")],
    config: ConfigOption = None,
) -> None:
    """Copies database, films and results into a new folder, while the agent runs, and checks each by its hash."""
    from firstread.agent.backup import BackupError, back_up

    settings = settings_from(config)
    os.umask(0o077)
    try:
        with _progress("files") as bar:
            kept = back_up(settings, target, bar)
    except BackupError as error:
        fail(str(error))
    say(f"{kept.files} files, {kept.size_bytes >> 20} MB in {kept.folder}")
    for name in kept.missing:
        say(f"{name} is named by the database and was not there as it says: see `firstread verify`", err=True)


def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `firstread backup` made.")],
    config: ConfigOption = None,
    only_check: Annotated[bool, typer.Option("--check", help="Only read the backup again and compare hashes.")] = False,
) -> None:
    """Puts a backup into the empty folder that [storage] path names; the agent must not run."""
    from firstread.agent.backup import BackupError, check_backup
    from firstread.agent.backup import restore as put_back

    os.umask(0o077)
    from firstread.agent.spool import SpoolInUse, SpoolUnusable, prepare, take_spool

    settings = settings_from(config)
    try:
        with _progress("files") as bar:
            if only_check:
                kept = check_backup(source, bar)
            else:
                if settings.spool.exists():
                    take_spool(settings.spool)  # until this command ends
                kept = put_back(settings, source, bar)
                prepare(settings.spool)
    except SpoolInUse as error:
        fail(str(error), REFUSED)
    except (BackupError, SpoolUnusable) as error:
        fail(str(error))
    done = "is whole" if only_check else f"was restored to {settings.spool}"
    say(f"the backup of {kept.made_at:%Y-%m-%d %H:%M} UTC, {kept.files} files, {done}")
    if not only_check:
        say("send what came in since then from the PACS again: what is here already is kept once")


def legal_hold(
    study: Annotated[str, typer.Argument(help="Study Instance UID or accession number.")],
    reason: Annotated[str, typer.Option(help="Why its films must be kept; stands in the trail.")] = "",
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    config: ConfigOption = None,
) -> None:
    """Keeps a study's films whatever retention says, until the hold is released."""
    from firstread.agent import clock
    from firstread.agent.commands.studies import one_study
    from firstread.agent.store import studies

    if not release and not reason.strip():
        fail("give --reason: whoever finds the hold in years must know why")
    with opened(config) as (_, store), store.write() as connection:
        row = one_study(connection, study)
        studies.set_legal_hold(connection, row.id, None if release else reason.strip(), "cli", clock.now())
    say(f"the films of {row.study_instance_uid} are {'no longer held' if release else 'held'}")
