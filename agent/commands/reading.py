"""``worklist``: the built-in reading list as the page shows it, and taking a study off or putting it back."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from firstread.agent.commands.common import (
    WRONG_USE,
    ConfigOption,
    JsonOption,
    fail,
    opened,
    print_json,
    print_table,
    say,
)

app = typer.Typer(no_args_is_help=True, help="The built-in reading list: show it, take a study off, put it back.")

EntryArgument = Annotated[int, typer.Argument(metavar="ENTRY", help="As `firstread worklist list` shows it.")]
ACTOR = "command line"


@app.command("list")
def show_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The open studies in reading order, with the reason for each place."""
    with opened(config) as (settings, store):
        from firstread.agent import clock
        from firstread.agent.store import reading_list
        from firstread.agent.web.rows import ordering_entry
        from firstread.agent.worklist.ordering import order
        from firstread.models.prediction import Priority

        wait = settings.worklist.longest_wait_min
        longest = {priority: timedelta(minutes=getattr(wait, priority.name)) for priority in Priority}
        with store.read() as connection:
            entries = {one.id: one for one in reading_list.open_entries(connection) if one.readable}
        placed = order([ordering_entry(one) for one in entries.values()], clock.now().at, longest)
        found = [
            {
                "entry": one.entry.key,
                "rank": one.rank,
                "priority": one.priority.name,
                "why": one.why,
                "arrived_at": one.entry.arrived_at.isoformat(),
                "accession_number": entries[one.entry.key].identity.accession_number,
                "patient_id": entries[one.entry.key].identity.patient_id,
                "study_instance_uid": entries[one.entry.key].identity.study_instance_uid,
            }
            for one in placed
        ]
    if as_json:
        print_json(found)
        return
    print_table(
        ["entry", "rank", "priority", "arrived", "accession", "patient", "why"],
        [
            [
                one["entry"],
                one["rank"],
                one["priority"],
                str(one["arrived_at"])[:19].replace("T", " "),
                one["accession_number"],
                one["patient_id"],
                one["why"],
            ]
            for one in found
        ],
        "the list is empty: nothing waits to be read",
    )


@app.command()
def remove(
    entry: EntryArgument,
    why: Annotated[str, typer.Option(help="The reason, kept in the trail.")],
    config: ConfigOption = None,
) -> None:
    """Take a study off the list by hand."""
    if not why.strip():
        fail("--why is empty: say why this study need not be read", WRONG_USE)
    with opened(config) as (_, store):
        from firstread.agent import clock
        from firstread.agent.store import worklist

        with store.write() as connection:
            done = worklist.remove_entry(connection, entry, why, clock.now(), ACTOR)
    if not done:
        fail(f"entry {entry} is not on the list: see `firstread worklist list`")
    say(f"entry {entry} is off the list; `firstread worklist restore {entry}` puts it back")


@app.command()
def restore(entry: EntryArgument, config: ConfigOption = None) -> None:
    """Put a study back that was reported, cancelled or taken off."""
    with opened(config) as (_, store):
        from firstread.agent import clock
        from firstread.agent.store import worklist

        with store.write() as connection:
            done = worklist.restore_entry(connection, entry, clock.now(), ACTOR)
    if not done:
        fail(f"entry {entry} was not taken off: see `firstread worklist list`")
    say(f"entry {entry} is on the list again")
