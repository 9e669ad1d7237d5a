"""``deliveries``: what is to go out, what went out, and what an administrator may do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from firstread.agent.commands.common import (
    WRONG_USE,
    ConfigOption,
    JsonOption,
    LimitOption,
    fail,
    opened,
    print_json,
    say,
)
from firstread.agent.commands.studies import _print_deliveries

app = typer.Typer(no_args_is_help=True, help="The outbox: list, retry, release what is on hold, cancel.")

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="As `firstread deliveries list` shows it.")]
ACTOR = "command line"


@app.command("list")
def list_deliveries(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    destination: Annotated[str | None, typer.Option(help="Only this destination.")] = None,
    state: Annotated[str, typer.Option(help="pending, sending, stored, delivered, rejected ...")] = "",
    limit: LimitOption = 200,
) -> None:
    """Deliveries, newest first."""
    with opened(config) as (settings, store):
        from firstread.agent.listing import delivery_object
        from firstread.agent.store import deliveries
        from firstread.agent.store.tables import DeliveryState

        if state and state not in set(DeliveryState):
            fail(f"--state {state!r} is unknown: use {', '.join(DeliveryState)}", WRONG_USE)
        if destination is not None and settings.destination(destination) is None:
            fail(f"no destination {destination!r} in the settings", WRONG_USE)
        states = [DeliveryState(state)] if state else []
        with store.read() as connection:
            rows = deliveries.listed(connection, destination=destination, states=states, limit=limit)
            found = [delivery_object(row) for row in rows]
    if as_json:
        print_json(found)
    else:
        _print_deliveries(found)


@app.command()
def retry(delivery: IdArgument, config: ConfigOption = None) -> None:
    """Send a pending, stored, rejected or cancelled delivery now."""
    with opened(config) as (_, store):
        from firstread.agent import clock
        from firstread.agent.store import deliveries, watch

        with store.write() as connection:
            now = clock.now()
            done = deliveries.retry_now(connection, delivery, ACTOR, now)
            if done:
                watch.clear_alarm(connection, f"delivery/{delivery}", actor=ACTOR, now=now)
    _say(
        done,
        delivery,
        "is sent now",
        "it is being sent, was delivered, a newer revision took its place, or there is none of that number",
    )


@app.command()
def cancel(
    delivery: IdArgument,
    why: Annotated[str, typer.Option(help="The reason, kept in the trail.")],
    config: ConfigOption = None,
) -> None:
    """Give a pending, stored or rejected delivery up, with a reason."""
    if not why.strip():
        fail("--why is empty: say why this result is not to go out", WRONG_USE)
    with opened(config) as (_, store):
        from firstread.agent import clock
        from firstread.agent.store import deliveries, watch

        with store.write() as connection:
            now = clock.now()
            done = deliveries.cancel(connection, delivery, why, ACTOR, now)
            if done:
                watch.clear_alarm(connection, f"delivery/{delivery}", actor=ACTOR, now=now)
    _say(done, delivery, "is cancelled", "only a pending, stored or rejected delivery can be cancelled")


@app.command()
def release(
    destination: Annotated[str, typer.Argument(help="Name of the destination on hold.")],
    config: ConfigOption = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop what was kept back instead of sending it.")] = False,
) -> None:
    """Send (or drop) what a destination on hold kept back. Set hold = false for what comes later."""
    with opened(config) as (settings, store):
        from firstread.agent import clock
        from firstread.agent.store import deliveries

        known = settings.destination(destination)
        if known is None:
            names = ", ".join(one.name for one in settings.all_destinations)
            fail(f"no destination {destination!r}: the settings name {names or 'none'}", WRONG_USE)
        with store.write() as connection:
            count = deliveries.release(
                connection, known.name, on_hold=known.hold, send=not drop, actor=ACTOR, now=clock.now()
            )
    say(f"{count} deliveries to {known.name} {'dropped' if drop else 'released'}")


def _say(done: bool, delivery: int, yes: str, no: str) -> None:
    if not done:
        fail(f"delivery {delivery} was left as it is: {no}")
    say(f"delivery {delivery} {yes}")
