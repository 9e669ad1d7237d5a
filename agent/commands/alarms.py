"""``alarms``: what somebody must look at, and clearing what was looked at."""

from __future__ import annotations

from typing import Annotated

import typer

from firstread.agent.commands.common import ConfigOption, JsonOption, fail, opened, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Alarms: list what stands, clear what was looked at.")
ACTOR = "command line"


@app.command("list")
def list_alarms(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The standing alarms, oldest first, each with its remedy."""
    with opened(config) as (_, store):
        from firstread.agent.store import watch

        with store.read() as connection:
            found = [
                {
                    "key": one.key,
                    "severity": one.severity,
                    "since": one.since.isoformat(),
                    "sightings": one.sightings,
                    "text": one.text,
                    "remedy": one.remedy,
                }
                for one in watch.alarms(connection)
            ]
    if as_json:
        print_json(found)
        return
    print_table(
        ["key", "severity", "since", "what", "remedy"],
        [[one["key"], one["severity"], str(one["since"])[:19], one["text"], one["remedy"]] for one in found],
        "no alarm stands",
    )


@app.command("test")
def send_test(config: ConfigOption = None) -> None:
    """Send a test notice over every channel of [notices]; exit code 1 when one does not take it."""
    from firstread.agent import clock
    from firstread.agent.commands.common import FAILED, settings_from
    from firstread.agent.notices import NotSent, channels
    from firstread.agent.store.notices import Notice, What
    from firstread.agent.store.watch import Alarm

    settings = settings_from(config)
    found = channels(settings.notices)
    if not found:
        fail("no channel is set: name email_to and smtp_host, or webhook_url, in [notices]", FAILED)
    now = clock.now().at
    alarm = Alarm("test", "warning", "this is a test, nothing is wrong", "nothing", now, now, 1, None)
    failed = False
    for channel in found:
        try:
            missed = channel.send([Notice(What.RAISED, alarm)], settings.site.name)
            failed = failed or bool(missed)
            say(f"{channel.name}: taken" + (f", but {missed}" if missed else ""), err=bool(missed))
        except NotSent as error:
            failed = True
            say(f"{channel.name}: not taken: {error}", err=True)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def clear(
    key: Annotated[str, typer.Argument(help="As `firstread alarms list` shows it.")], config: ConfigOption = None
) -> None:
    """Clear an alarm; it comes back when its cause is still there."""
    with opened(config) as (_, store):
        from firstread.agent import clock
        from firstread.agent.store import watch

        with store.write() as connection:
            standing = any(one.key == key for one in watch.alarms(connection))
            watch.clear_alarm(connection, key, actor=ACTOR, now=clock.now())
    if not standing:
        fail(f"no alarm {key!r} stands: see `firstread alarms list`")
    say(f"alarm {key} cleared")
