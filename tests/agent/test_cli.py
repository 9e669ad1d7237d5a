"""The commands: JSON that parses, exit codes that mean what --help says, sentences instead of tracebacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w
import typer
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.agent.config import load_settings
from firstread.agent.objects import ResultObjects
from firstread.agent.store import deliveries
from firstread.agent.studies import SummingUp
from tests.agent.builders import Bench, moment
from tests.models.tiny import make_tiny_bundle
from tests.peers import free_port


class Site:
    """A settings file and a database in which one study has ended and its results wait."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.config = folder / "site.toml"
        values = {
            "dicom": {"host": "127.0.0.1", "port": free_port()},
            "web": {"port": free_port()},
            "storage": {"path": str(folder / "data"), "reserve_mb": 0},
            "worklist": {"enabled": False},
            "analysis": {"bundle": str(bundle), "device": "cpu"},
            "destinations": [
                {"name": "pacs", "type": "dicom", "host": "127.0.0.1", "port": 1, "ae_title": "PACS"},
                {"name": "ris", "type": "hl7", "host": "127.0.0.1", "port": 2, "hold": True},
            ],
        }
        self.config.write_text(tomli_w.dumps(values))
        self.bench = Bench(folder / "data", bundle=bundle)
        self.bench.receive()
        for claim in self.bench.claim(moment(0)):
            self.bench.end_analysed(claim, moment(0), Pneumonia=0.9)
        settings = load_settings(self.config, {})
        objects = ResultObjects(settings, self.bench.store, self.bench.site_uid)
        with self.bench.store.write() as connection:
            connection.exec_driver_sql("UPDATE study SET touched_boot_s = 0, touched_at = '2020-01-01 00:00:00.000000'")
        assert SummingUp(settings, self.bench.store, objects).run_once() == 1

    def run(self, *arguments: str, code: int = 0) -> str:
        """``firstread ...`` in this process; answers with what it printed."""
        done = CliRunner().invoke(app, [*arguments, "-c", str(self.config)])
        assert done.exit_code == code, (arguments, done.exit_code, done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    def delivery(self, destination: str) -> int:
        with self.bench.store.read() as connection:
            return int(deliveries.listed(connection, destination=destination)[0].id)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def site(tmp_path: Path, tiny: Path) -> Iterator[Site]:
    made = Site(tmp_path, tiny)
    yield made
    made.bench.store.close()


def commands(group: click.Command, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


EVERY = dict(commands(typer.main.get_command(app)))
IN_JSON: dict[tuple[str, ...], tuple[str, ...]] = {
    ("studies",): (),
    ("study",): ("ACC1",),
    ("deliveries", "list"): (),
    ("alarms", "list"): (),
    ("worklist", "list"): (),
    ("models", "list"): (),
    ("models", "show"): (),
    ("replay",): ("ACC1", "--from", "deliver", "--dry-run"),
    ("config", "check"): (),
    ("verify",): (),
}


BESIDE_THE_AGENT = ("list", "show", "verify")
"""The commands on models that ask which bundle is in force."""


def is_lab(name: tuple[str, ...]) -> bool:
    """The data scientist's commands need no settings, and write their JSON into files."""
    return name[0] == "data" or (name[0] == "models" and name[1] not in BESIDE_THE_AGENT)


def test_every_command_that_can_print_json_is_tried_here() -> None:
    can = {
        name
        for name, command in EVERY.items()
        if not is_lab(name) and any("--json" in one.opts for one in command.params)
    }
    assert can == {*IN_JSON, ("capacity",)}, "capacity needs no site, and has its own tests"


@pytest.mark.parametrize("command", IN_JSON)
def test_json_parses_and_is_not_empty(site: Site, command: tuple[str, ...]) -> None:
    # the destinations of this site do not answer, and config check says so
    found = site.json(*command, *IN_JSON[command], code=1 if command == ("config", "check") else 0)
    assert found or command in {("worklist", "list"), ("alarms", "list")}
    assert site.run(*command, *IN_JSON[command], code=1 if command == ("config", "check") else 0), "and for people"


def test_every_command_takes_a_settings_file_and_explains_itself() -> None:
    without = {name for name, command in EVERY.items() if not any("--config" in one.opts for one in command.params)}
    assert without == {("demo",), ("init",), ("password",), ("certs",), ("capacity",)} | {
        name for name in EVERY if is_lab(name)
    }
    for name, command in EVERY.items():
        assert command.help, name
        assert all(one.help for one in command.params if isinstance(one, click.Option)), name


def test_studies_are_filtered_by_state_date_accession_and_patient(site: Site) -> None:
    (study,) = site.json("studies")
    assert study["accession_number"] == "ACC1" and study["state"] == "analysed" and study["result"]["priority"]
    for meant in (
        ("--state", "analysed"),
        ("--accession", "ACC1"),
        ("--patient-id", "PH0001"),
        ("--since", "20200101"),
    ):
        assert site.json("studies", *meant) == [study]
    for other in (("--state", "receiving"), ("--accession", "X"), ("--patient-id", "X"), ("--until", "20200101")):
        assert site.json("studies", *other) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("studies", "--state", "dreaming"), 2, "use receiving, analysed, not_analysed"),
        (("studies", "--since", "yesterday"), 2, "write YYYYMMDD"),
        (("study", "NOBODY"), 1, "no study NOBODY"),
        (("deliveries", "list", "--state", "lost"), 2, "pending"),
        (("deliveries", "retry", "999"), 1, "left as it is"),
        (("deliveries", "cancel", "1", "--why", " "), 2, "say why"),
        (("deliveries", "release", "nobody"), 2, "the settings name pacs, ris"),
        (("oru", "ACC1", "--to", "nobody"), 1, "nobody"),
        (("replay",), 2, "say which studies"),
        (("replay", "ACC1", "--to", "pacs"), 2, "--from deliver"),
        (("run", "--role", "cook"), 2, "cook"),
        (("models", "show", "/nowhere"), 1, "/nowhere"),
        (("no-such-command",), 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(site: Site, arguments, code: int, said: str) -> None:
    assert said in site.run(*arguments, code=code)


def test_a_delivery_is_cancelled_with_its_reason_and_sent_after_all(site: Site) -> None:
    key = str(site.delivery("pacs"))
    site.run("deliveries", "cancel", key, "--why", "sent on film")
    (row,) = site.json("deliveries", "list", "--state", "cancelled")
    assert (row["id"], row["detail"]) == (int(key), "sent on film")
    trail = site.json("study", "ACC1")["trail"]
    assert {"what": "delivery cancelled", "who": "command line"}.items() <= trail[-1].items()
    site.run("deliveries", "retry", key)
    assert site.json("deliveries", "list", "--state", "cancelled") == []


def test_what_a_destination_on_hold_kept_back_is_released_once(site: Site) -> None:
    assert "1 deliveries to ris released" in site.run("deliveries", "release", "RIS")
    assert "0 deliveries to ris released" in site.run("deliveries", "release", "ris")


def test_report_and_message_are_shown(site: Site) -> None:
    assert Path(site.run("sr", "ACC1").strip()).is_file()
    assert "Pneumonia" in site.run("sr", "ACC1", "--dump")
    assert site.run("oru", "ACC1").startswith("MSH|")
    assert site.run("oru", "ACC1", "--dry-run").startswith("MSH|")


def test_without_a_database_every_command_says_to_start_the_agent(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text(f'[storage]\npath = "{tmp_path / "none"}"\n')
    for name in (("studies",), ("study", "1"), ("deliveries", "list"), ("replay", "1"), ("worklist", "list")):
        done = CliRunner().invoke(app, [*name, "-c", str(config)])
        assert done.exit_code == 1 and "start the agent once" in done.output, name


def test_a_bundle_is_verified(site: Site, tiny: Path) -> None:
    assert "is whole" in site.run("models", "verify")
    listed = site.json("models", "list")
    assert [one["folder"] for one in listed if one["in_force"]] == [str(tiny)]
    assert len(site.json("models", "show")["labels"]) == 15


def test_init_writes_a_file_that_can_be_used_and_overwrites_none(tmp_path: Path) -> None:
    file = tmp_path / "new" / "firstread.toml"
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(file)]).exit_code == 0
    assert load_settings(file, {}).study.max_age_days == 7 and file.stat().st_mode & 0o077 == 0
    again = runner.invoke(app, ["init", str(file)])
    assert again.exit_code == 2 and "--force" in again.output
    assert runner.invoke(app, ["init", str(file), "--force"]).exit_code == 0


def test_db_upgrade_makes_the_schema_and_says_which(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text(f'[storage]\npath = "{tmp_path / "data"}"\n')
    for _ in range(2):
        done = CliRunner().invoke(app, ["db", "upgrade", "-c", str(config)])
        assert done.exit_code == 0 and done.output.startswith("schema "), done.output
