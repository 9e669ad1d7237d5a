"""``firstread demo``: the whole chain on this machine, with phantom films, a stand-in PACS and the built-in list."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import typer

from firstread.agent.demo_report import DemoList, verdict
from firstread.agent.demo_scanner import Scanner
from firstread.agent.standin_pacs import StandInPacs

READY_S = 30.0
END_S = 150.0
QUIET_PERIOD_S = 2.0

_SETTINGS = """\
# Settings of a demo: everything on this machine, findings on phantoms may raise although the bundle calls them
# experimental (no evidence on real films supports them).
[dicom]
host = "127.0.0.1"
port = {dicom}
[study]
quiet_period_s = {quiet}
max_age_days = 7
[storage]
path = "{folder}/data"
reserve_mb = 64
[triage]
use_experimental = true
[site]
name = "Demo, phantoms only"
use_test_processing_id = true
[web]
port = {web}
[worklist]
enabled = true
mllp_port = {mllp}
[[destinations]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "DEMOPACS"
sends = ["sr", "heatmap"]
"""


def run_demo(*, once: bool, folder: Path | None) -> int:
    """Runs the demo; answers with the exit code: 0 when every study came to its end and the list was reordered."""
    folder = (folder or Path(tempfile.mkdtemp(prefix="firstread-demo-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "firstread.toml"
    ports = {"dicom": _port(11112), "web": _port(8080), "mllp": _port(2575), "pacs": _port(11113)}
    config.write_text(_SETTINGS.format(folder=folder, quiet=QUIET_PERIOD_S, **ports), encoding="utf-8")
    page = f"http://127.0.0.1:{ports['web']}/"
    with contextlib.ExitStack() as stack:
        pacs = stack.enter_context(StandInPacs(ports["pacs"], folder / "pacs"))
        agent = stack.enter_context(_agent(config, folder / "agent.log"))
        began = time.monotonic()
        if not _wait_ready(ports["web"], agent):
            typer.echo(f"the agent did not start; its log is {folder / 'agent.log'}", err=True)
            return 1
        typer.echo(f"agent ready after {time.monotonic() - began:.1f} s; the reading list: {page}")
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        shown = DemoList(config)
        scanner = Scanner(ports["dicom"], folder / "films")
        films = scanner.send_morning(datetime.now(), stopped, typer.echo)
        if stopped.is_set():
            return 1
        typer.echo("\nall films are sent; waiting until every study has its result ...")
        ended = shown.wait_until_ended(films, stopped, END_S)
        code = _tell(shown, films, ended, pacs, folder, page, time.monotonic() - began)
        if not once:
            typer.echo(f"\nthe agent goes on: open {page} (Ctrl-C ends it; everything lies in {folder})")
            while not stopped.wait(0.5):
                if agent.poll() is not None:
                    typer.echo(f"the agent ended; its log is {folder / 'agent.log'}", err=True)
                    return 1
        return code


def _tell(
    shown: DemoList, films: Sequence[object], ended: bool, pacs: StandInPacs, folder: Path, page: str, seconds: float
) -> int:
    typer.echo("\nBEFORE: the list by arrival")
    typer.echo(shown.by_arrival())
    typer.echo("\nNOW: the list as Firstread orders it")
    typer.echo(shown.in_order())
    example = shown.example()
    if example is not None:
        sr, heat_map = pacs.objects_of(example.study_instance_uid)
        typer.echo(f"\none study, {example.accession_number}:")
        typer.echo(f"  Structured Report  {sr or 'missing'}")
        typer.echo(f"  heat map           {heat_map or 'missing'}")
        message = folder / "example.hl7"
        message.write_bytes(example.message)
        typer.echo(f"  ORU message        {message}")
        _validate(sr)
        typer.echo(f"  the same in words  firstread study {example.accession_number} -c {folder / 'firstread.toml'}")
    problems = verdict(shown, pacs, ended)
    typer.echo(f"\nthe page: {page}")
    for problem in problems:
        typer.echo(f"PROBLEM: {problem}", err=True)
    if not problems:
        typer.echo(
            f"{len(films)} films, {shown.studies} studies: each came to its end and the list was reordered "
            f"({seconds:.0f} s)"
        )
    return 1 if problems else 0


def _validate(sr: Path | None) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None or sr is None:
        return
    run = subprocess.run([validator, str(sr)], capture_output=True, text=True, check=False)  # noqa: S603 - a validator found on the path
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
    typer.echo(f"  dciodvfy           {'no errors' if not errors else '; '.join(errors)}")


@contextlib.contextmanager
def _agent(config: Path, log: Path):  # type: ignore[no-untyped-def]
    with open(log, "wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "firstread.agent.cli", "run", "--config", str(config)],
            stdout=out,
            stderr=out,
            env={**os.environ, "FIRSTREAD_CONFIG": ""},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_ready(port: int, agent: subprocess.Popen[bytes]) -> bool:
    import httpx

    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and agent.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=2).status_code == 200:
                return True
        time.sleep(0.1)
    return False


def _port(wanted: int) -> int:
    """The wanted port when it is free, else any free one."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
