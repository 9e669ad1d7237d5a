"""The agent under test, with everything that can be broken: processes, disk, clock, database, peers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.faults.receivers import Pacs, Ris
from tests.faults.senders import answers
from tests.system import pacs as pacs_module
from tests.system import ris as ris_module
from tests.system.agent import Agent, psutil_gone

HOOKS = Path(__file__).parent / "hooks"
PATIENCE_S = 2.0
"""How long the agent waits for a receiver's answer."""

DISK_MB = 160

RULES: dict[str, Any] = {
    **{
        name: {"priority": "none"}
        for name in ("Pneumothorax", "Consolidation", "Edema", "Effusion", "Pneumonia", "Mass")
    },
    "Cardiomegaly": {"priority": "STAT", "threshold": 0.695},
    "Fibrosis": {"priority": "URGENT", "threshold": 0.755},
}
"""Between what the tiny bundle says of the films that are sent: some come out as routine, some urgent, some STAT."""


class Rig:
    """One agent, a PACS and a RIS that misbehave, and DCMTK as an archive that gets the reports.

    The spool lies on a disk of its own (``disk_mb``) where one may be mounted.
    """

    def __init__(
        self, folder: Path, bundle: Path, *, disk_mb: int = DISK_MB, pacs: Pacs | None = None, **sections: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.spool = folder / "disk" / "data"
        self.disk = disk_mb > 0 and _mount(folder / "disk", disk_mb)
        self.control, self.order = folder / "faults.json", folder / "crash-at"
        self.pacs, self.ris = pacs or Pacs(PATIENCE_S), Ris(PATIENCE_S)
        self.archive = pacs_module.StoreScp(folder / "archive").start()
        retry = {"first_s": 0.2, "max_s": 1.0, "max_refusals": 10}
        self.agent = Agent(
            folder / "agent",
            bundle=bundle,
            **{
                "storage": {"path": str(self.spool), "reserve_mb": 4},
                "analysis": {"batch_size": 4, "film_timeout_s": 20},
                "triage": {"use_experimental": True, "findings": RULES},
                "worklist": {"enabled": True},
                "destinations": [
                    pacs_module.destination(
                        self.pacs.port, retry=retry, connect_timeout_s=2, acse_timeout_s=3, dimse_timeout_s=PATIENCE_S
                    ),
                    pacs_module.destination(
                        self.archive.port, "archive", sends=["sr"], retry=retry, connect_timeout_s=2, acse_timeout_s=3
                    ),
                    ris_module.destination(
                        self.ris.port, retry=retry, connect_timeout_s=2, answer_timeout_s=PATIENCE_S
                    ),
                ],
                **sections,
            },
        )

    def start(self) -> None:
        """Starts the agent as systemd would: again and again until it stays."""
        deadline = time.monotonic() + 60
        while True:
            with _environment(self.control, self.order):
                self.agent.start(ready=False)
            while time.monotonic() < deadline:
                assert self.agent.process is not None
                if self.agent.process.poll() is not None:
                    break
                if self.receives:
                    return
                time.sleep(0.1)
            if time.monotonic() > deadline:
                raise AssertionError(f"the agent does not start: {self.agent.log.read_text()[-3000:]}")
            time.sleep(0.3)

    @property
    def runs(self) -> bool:
        """The supervisor lives."""
        return self.agent.process is not None and self.agent.process.poll() is None

    @property
    def receives(self) -> bool:
        """An association is accepted now."""
        return answers(self.agent.dicom_port)

    def close(self) -> None:
        """Ends everything and takes the disk away."""
        self.agent.close()
        self.pacs.down()
        self.ris.down()
        self.archive.stop()
        if self.disk:
            for _ in range(50):
                if subprocess.run(["umount", str(self.folder / "disk")], capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)

    # What is broken

    def set_faults(self, **faults: Any) -> None:
        """What the hooks do from now on; nothing without arguments."""
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(faults))
        fresh.replace(self.control)

    def crash_at(self, point: str, count: int) -> None:
        """The next process that gets there for the ``count``-th time is killed."""
        self.order.write_text(f"{point}:{count}")

    def signal_role(self, role: str, number: int) -> psutil.Process | None:
        """A signal to one role; answers with its process, None when it does not run just now."""
        if not self.runs:
            return None
        with psutil_gone():
            process = self.agent.roles().get(role)
            if process is not None:
                process.send_signal(number)
                return process
        return None

    def orphans(self) -> list[str]:
        """Roles of this agent that its supervisor has not started."""
        assert self.agent.process is not None
        found = []
        for process in psutil.process_iter():
            with psutil_gone(), suppress(psutil.AccessDenied):
                command = process.cmdline()
                ours = str(self.agent.config) in command and "firstread.agent.role_process" in command
                if ours and process.ppid() != self.agent.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(command[3:4]) + f" {process.pid}")
        return found

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone; its roles end by themselves."""
        assert self.agent.process is not None
        self.agent.process.send_signal(signal.SIGKILL)
        self.agent.process.wait(10)

    def fill_disk(self) -> None:
        """Nothing more can be written, whoever tries."""
        ballast = self.folder / "disk" / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        with suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(bytes(512)):
                pass

    def free_disk(self) -> None:
        """There is room again."""
        (self.folder / "disk" / "ballast").unlink(missing_ok=True)

    @contextmanager
    def hold_database(self) -> Iterator[None]:
        """Somebody holds the write lock of the database."""
        with closing(sqlite3.connect(self.spool / "firstread.sqlite3", timeout=5, isolation_level=None)) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                with suppress(sqlite3.OperationalError):
                    connection.execute("ROLLBACK")

    def fail_system_calls(self, role: str, what: str, seconds: float) -> bool:
        """strace makes system calls of a role fail (``fdatasync:error=EIO``), those of SQLite too."""
        strace = shutil.which("strace")
        if strace is None or not self.runs:
            return False
        process = self.agent.roles().get(role)
        if process is None:
            return False
        names = what.split(":")[0]
        tracer = subprocess.Popen(
            [
                strace,
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                f"trace={names}",
                "-e",
                f"inject={what}",
                "-p",
                str(process.pid),
            ],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        tracer.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            tracer.wait(5)
        if tracer.poll() is None:
            tracer.kill()
        return True


class Recovery(threading.Thread):
    """Measures how long nobody receives after a kill; ``seconds`` is None when it took longer than ``limit_s``."""

    def __init__(self, rig: Rig, limit_s: float) -> None:
        super().__init__(daemon=True)
        self._rig = rig
        self._limit_s = limit_s
        self.seconds: float | None = None

    def run(self) -> None:
        """Asks until an association is accepted."""
        began = time.monotonic()
        while time.monotonic() - began < self._limit_s:
            if self._rig.receives:
                took = time.monotonic() - began
                self.seconds = took if took <= self._limit_s else None  # the last question may end after the limit
                return
            time.sleep(0.1)


def _mount(folder: Path, megabytes: int) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "firstread-faults", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def _environment(control: Path, order: Path) -> Iterator[None]:
    """The hooks reach the agent's processes by their environment."""
    values = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HOOKS), os.environ.get("PYTHONPATH", "")])),
        "FIRSTREAD_FAULTS": str(control),
        "FIRSTREAD_CRASH_AT": f"@{order}",
        "OMP_NUM_THREADS": "1",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
