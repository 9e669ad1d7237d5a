"""Setting up and running: ``run``, ``demo``, ``init``, ``config check``, ``db upgrade``, ``send``, ``echo``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstread.agent.commands.common import (
    FAILED,
    REFUSED,
    WRONG_USE,
    ConfigOption,
    JsonOption,
    fail,
    print_json,
    print_table,
    settings_from,
)

if TYPE_CHECKING:
    from firstread.agent.config import Settings

if TYPE_CHECKING:
    from firstread.agent.config import Settings
    from firstread.integration.dicom.send import DicomPeer

config_app = typer.Typer(no_args_is_help=True, help="The settings: check what is in force.")
db_app = typer.Typer(no_args_is_help=True, help="The database: bring its schema up to date.")

PortOption = Annotated[int, typer.Option(min=1, max=65535)]


def run(
    config: ConfigOption = None,
    role: Annotated[
        str, typer.Option(help="One role alone: receive, analyse, studies, deliver or web. Default: all, supervised.")
    ] = "",
) -> None:
    """Start the agent; it runs until SIGTERM or Ctrl-C."""
    settings = settings_from(config)
    from firstread.agent.config import find_settings_file
    from firstread.agent.owner import ROLES
    from firstread.agent.service import PortInUse, Supervisor
    from firstread.agent.spool import SpoolInUse, SpoolUnusable
    from firstread.agent.store.errors import StoreError

    try:
        if not role:
            file = config or find_settings_file()
            Supervisor(settings, file and file.absolute()).run()
            return
        if role not in ROLES:
            fail(f"--role {role!r} is unknown: use {', '.join(ROLES)}", WRONG_USE)
        _run_alone(role, settings)
    except (SpoolInUse, PortInUse) as error:
        fail(str(error), REFUSED)
    except (SpoolUnusable, StoreError, OSError) as error:
        fail(str(error))


def _run_alone(role: str, settings: Settings) -> None:
    from firstread.agent.roles import run_role
    from firstread.agent.service import listen, probe_ports
    from firstread.agent.spool import prepare, share_spool
    from firstread.agent.store.engine import Store
    from firstread.agent.store.migrate import require_newest

    prepare(settings.spool)
    share_spool(settings.spool)
    listening = listen(settings.dicom.host, settings.dicom.port, "[dicom] port") if role == "receive" else None
    if role == "web":
        probe_ports(settings)
    store = Store(settings.database_url)
    try:
        require_newest(store)
    finally:
        store.close()
    run_role(role, settings, listening)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself: exit 0 only when the list was reordered.")] = (
        False
    ),
    folder: Annotated[Path | None, typer.Option(help="Where the demo keeps its files; else a new one.")] = None,
) -> None:
    """The whole chain on this machine: phantom films in, reports, heat maps and a reordered list out."""
    from firstread.agent.demo import run_demo

    raise typer.Exit(run_demo(once=once, folder=folder))


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("firstread.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented settings file."""
    from firstread.agent.settings_file import render_template

    if file.exists() and not force:
        fail(f"{file} is there already: give another name, or --force to overwrite it", WRONG_USE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(render_template())
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")
    typer.echo(f"{file} written: edit it, then `firstread config check -c {file}` and `firstread run -c {file}`")


@config_app.command("check")
def check_config(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the settings in force, secrets masked, and ask every destination (C-ECHO, MLLP connect)."""
    settings = settings_from(config)
    from firstread.agent.config_check import check

    lines = check(settings)
    if as_json:
        print_json(
            {
                "settings": settings.masked(),
                "checks": [{"subject": one.subject, "level": str(one.level), "text": one.text} for one in lines],
            }
        )
    else:
        from firstread.agent.settings_file import render_in_force

        typer.echo(render_in_force(settings))
        print_table(
            ["", "what", "answer"], [[str(one.level), one.subject, one.text] for one in lines], "nothing to ask"
        )
    if not all(one.ok for one in lines):
        raise typer.Exit(FAILED)


@db_app.command("upgrade")
def upgrade_database(config: ConfigOption = None) -> None:
    """Create the schema, or bring it to this release; a copy of an SQLite database is kept."""
    settings = settings_from(config)
    from firstread.agent.spool import SpoolUnusable, prepare
    from firstread.agent.store.engine import Store, StoreError
    from firstread.agent.store.migrate import schema_version, upgrade

    os.umask(0o077)
    try:
        prepare(settings.spool)
        store = Store(settings.database_url)
        copy = upgrade(store)
        version = schema_version(store)
        store.close()
    except (SpoolUnusable, StoreError) as error:
        fail(str(error))
    typer.echo(f"schema {version}" + (f"; the database as it was is kept as {copy}" if copy else ""))


def password() -> None:
    """Ask for a password and print its hash for [web] password_hash."""
    from firstread.agent.password import hash_password

    word = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    typer.echo(hash_password(word))


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="DICOM files, or folders of them.")],
    host: Annotated[str, typer.Option(help="Receiver; default: this agent.")] = "",
    port: Annotated[int, typer.Option(help="Its port; default: [dicom] port.")] = 0,
    ae_title: Annotated[str, typer.Option("--to", help="Its AE title; default: [dicom] ae_title.")] = "",
    calling: Annotated[str, typer.Option("--from", help="Our AE title.")] = "FIRSTREAD-SEND",
    config: ConfigOption = None,
) -> None:
    """Send DICOM files as a scanner would (a test sender)."""
    settings = settings_from(config)
    from firstread.agent.test_sender import send_paths

    if send_paths(paths, _peer(settings, host, port, ae_title, calling), typer.echo):
        raise typer.Exit(FAILED)


def echo(
    host: Annotated[str, typer.Option(help="Receiver; default: this agent.")] = "",
    port: Annotated[int, typer.Option(help="Its port; default: [dicom] port.")] = 0,
    ae_title: Annotated[str, typer.Option("--to", help="Its AE title; default: [dicom] ae_title.")] = "",
    calling: Annotated[str, typer.Option("--from", help="Our AE title.")] = "FIRSTREAD-ECHO",
    config: ConfigOption = None,
) -> None:
    """Ask a DICOM node whether it answers (C-ECHO)."""
    settings = settings_from(config)
    from firstread.integration.dicom.send import echo as ask

    peer = _peer(settings, host, port, ae_title, calling)
    answer = ask(peer)
    if not answer.ok:
        fail(answer.detail)
    typer.echo(f"{peer.ae_title} at {peer.host}:{peer.port} answers: {answer.detail}")


def _peer(settings: Settings, host: str, port: int, ae_title: str, calling: str) -> DicomPeer:
    """The node that was named; what was not named is this agent."""
    from firstread.integration.dicom.send import DicomPeer

    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.dicom.host, settings.dicom.host)  # noqa: S104
    title = ae_title or settings.dicom.ae_title
    return DicomPeer(title, host or own, port or settings.dicom.port, title, calling_ae_title=calling)
