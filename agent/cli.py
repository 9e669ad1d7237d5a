"""``firstread ...``: the commands, in the order in which a site meets them."""

from __future__ import annotations

import typer

from firstread.agent.commands import (
    alarms,
    archive,
    bundles,
    capacity,
    certs,
    data,
    fetching,
    keeping,
    outbox,
    reading,
    service,
    studies,
)

app = typer.Typer(
    name="firstread",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Reads chest radiographs first, so that a radiologist sees the worrisome ones first. Not a medical device. "
    "Exit codes: 0 done, 1 failed or a problem was found, 2 wrong usage or settings, 3 another agent runs.",
)

app.command()(service.demo)
app.command()(service.init)
app.add_typer(service.config_app, name="config")
app.command()(service.run)
app.command("studies")(studies.list_studies)
app.command("study")(studies.show_study)
app.command("sr")(studies.show_sr)
app.command("oru")(studies.show_oru)
app.command()(studies.replay)
app.command()(fetching.fetch)
app.add_typer(archive.app, name="archive")
app.add_typer(outbox.app, name="deliveries")
app.add_typer(reading.app, name="worklist")
app.add_typer(alarms.app, name="alarms")
app.add_typer(bundles.app, name="models")
app.add_typer(data.app, name="data")
app.command()(service.send)
app.command()(service.echo)
app.add_typer(service.db_app, name="db")
app.command()(keeping.verify)
app.command()(keeping.backup)
app.command()(keeping.restore)
app.command("legal-hold")(keeping.legal_hold)
app.command()(service.password)
app.command()(certs.certs)
app.command()(capacity.capacity)


def main() -> None:
    """Entry of the console script."""
    app()


if __name__ == "__main__":
    main()
