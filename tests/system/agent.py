"""The installed agent as real processes, for tests: started, asked, wounded, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import tomli_w

from firstread.agent.config import Settings, load_settings
from firstread.agent.listing import delivery_object, trail_object
from firstread.agent.models_at_hand import bundle_folder
from firstread.agent.store import deliveries, events, studies, watch
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.studies import StudyFilter
from firstread.models import engine_choice
from firstread.models.bundle import BundleError, load_bundle
from tests.peers import free_port

PATIENCE_S = 90.0
"""How long anything may take before a test gives up: many times what it takes on an idle machine."""

QUIET_PERIOD_S = 0.5
COMPILED = Path(tempfile.gettempdir()) / f"firstread-tests-pyc-{os.getuid()}"
"""Where the agents of tests keep their bytecode, as an installed agent has it beside its sources."""

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: str, timeout_s: float = PATIENCE_S) -> Found:
    """Looks again and again until something true is seen, and answers with it."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:.0f} s; the last look gave {found!r}")
        time.sleep(0.05)


class Agent:
    """One agent on one folder. ``sections`` overlay settings that suit tests: few threads, a short quiet period."""

    def __init__(self, folder: Path, *, bundle: Path | str, **sections: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.dicom_port, self.web_port, self.mllp_port = free_port(), free_port(), free_port()
        self.config = folder / "site.toml"
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.values: dict[str, Any] = {
            "dicom": {"host": "127.0.0.1", "port": self.dicom_port},
            "study": {"quiet_period_s": QUIET_PERIOD_S},
            "storage": {"path": str(folder / "data"), "reserve_mb": 0},
            "analysis": {"bundle": str(bundle), "threads": 1, "decode_workers": 1, "device": "cpu"},
            "web": {"port": self.web_port},
            "worklist": {"enabled": False, "mllp_port": self.mllp_port},
        }
        self.change(**sections)

    def change(self, **sections: Any) -> None:
        """Writes other settings; they count from the next start."""
        for name, section in sections.items():
            old = self.values.get(name)
            merge = isinstance(section, Mapping) and isinstance(old, Mapping)
            self.values[name] = {**old, **section} if merge else section
        self.config.write_text(tomli_w.dumps(self.values), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return load_settings(self.config, {})

    @property
    def spool(self) -> Path:
        """Where films and results lie."""
        return self.settings.spool

    # Life

    def start(self, *arguments: str, ready: bool = True) -> Agent:
        """Runs ``firstread run``; with ``ready`` until associations are accepted."""
        self.choose_engine()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "firstread.agent.cli", "run", "-c", str(self.config), *arguments],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=environment(),
                cwd=self.folder,
            )
        if ready:
            wait_for(lambda: self.ready or self._ended(), "the agent is ready")
            assert self.ready, self.log.read_text()[-3000:]
        return self

    def choose_engine(self) -> None:
        """Remembers an engine as if all had been measured here: else every fresh agent does that, for many seconds."""
        settings = self.settings
        try:
            bundle = load_bundle(bundle_folder(settings.analysis.bundle))
        except BundleError:
            return
        cache = settings.spool / "engines"
        cache.mkdir(parents=True, exist_ok=True)
        chosen = engine_choice._file(bundle, cache, settings.analysis.threads)
        if chosen.exists():
            return
        chosen.write_text(json.dumps([{"name": "cpu/onnxruntime", "images_per_s": 10.0}]), encoding="utf-8")

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def ready(self) -> bool:
        """What /ready says."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.web_port}/ready", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def health(self) -> dict[str, Any]:
        """What /health says."""
        answer = httpx.get(f"http://127.0.0.1:{self.web_port}/health", timeout=30)
        assert answer.headers["content-type"].startswith("application/json"), answer.text + self.log.read_text()[-3000:]
        found: dict[str, Any] = answer.json()
        return found

    def metrics(self) -> str:
        """What /metrics says."""
        return httpx.get(f"http://127.0.0.1:{self.web_port}/metrics", timeout=30).text

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Asks the agent to end, and answers with its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """The machine goes dark for every process of the agent at once."""
        family = self._family()
        for one in family:
            with psutil_gone():
                one.kill()
        psutil.wait_procs(family, timeout=10)
        assert self.process is not None
        self.process.wait(10)

    def close(self) -> None:
        """Ends whatever still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _family(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def roles(self) -> dict[str, psutil.Process]:
        """The process of each role that runs now."""
        found = {}
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            with psutil_gone():
                command = child.cmdline()
                if "firstread.agent.role_process" in command and child.status() != psutil.STATUS_ZOMBIE:
                    found[command[command.index("firstread.agent.role_process") + 1]] = child
        return found

    def kill_role(self, name: str) -> int:
        """SIGKILL to one role; answers with its process id."""
        role = wait_for(lambda: self.roles().get(name), f"role {name} runs")
        role.kill()
        return int(role.pid)

    def roles_left(self) -> list[int]:
        """Role processes of this agent's settings that run, whoever started them."""
        found = []
        for one in psutil.process_iter(["cmdline"]):
            command = one.info["cmdline"] or []
            if "firstread.agent.role_process" in command and str(self.config) in command:
                found.append(int(one.pid))
        return found

    def wait_restarted(self, name: str, killed: int) -> None:
        """Until the role runs in another process."""

        def look() -> bool:
            role = self.roles().get(name)
            return role is not None and role.pid != killed

        wait_for(look, f"role {name} is started again")

    def wait_all_roles(self) -> None:
        """Until every role has given a sign of life."""
        wait_for(lambda: self.ready and self.health()["problems"] == [], "every role lives")

    # Commands

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """``firstread ...`` with these settings, in a process of its own; asserts its exit code unless None."""
        done = subprocess.run(
            self._command(*arguments), capture_output=True, text=True, timeout=120, env=environment(), cwd=self.folder
        )
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, without waiting for its end; it is the caller's to end."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            self._command(*arguments), stdout=quiet, stderr=quiet, env=environment(), cwd=self.folder
        )  # fmt: skip

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "firstread.agent.cli", *arguments, "-c", str(self.config)]

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """What ``firstread ... --json`` prints."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def studies(self, *filters: str) -> list[dict[str, Any]]:
        """``firstread studies --json``."""
        found: list[dict[str, Any]] = self.json("studies", *filters)
        return found

    # The same objects read in this process, for looking often

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The agent's database."""
        store = Store(self.settings.database_url)
        try:
            yield store
        finally:
            store.close()

    def trails(self) -> dict[str, dict[str, Any]]:
        """``firstread study UID --json`` for every study; empty while there is no database."""
        path = self.spool / "firstread.sqlite3"
        if self.settings.database.url is None and not path.exists():
            return {}
        try:
            with self.store() as store, store.read() as connection:
                rows = studies.selected(connection, StudyFilter(), 10_000)
                return {row.study_instance_uid: trail_object(connection, row) for row in rows}
        except StoreError:
            return {}

    def study(self, uid: str) -> dict[str, Any]:
        """One study with its whole trail; empty when it is unknown."""
        return self.trails().get(uid, {})

    def outbox(self) -> list[dict[str, Any]]:
        """``firstread deliveries list --json``."""
        with self.store() as store, store.read() as connection:
            return [delivery_object(row) for row in deliveries.listed(connection, limit=10_000)]

    def alarms(self) -> dict[str, watch.Alarm]:
        """Standing alarms by key."""
        with self.store() as store, store.read() as connection:
            return {one.key: one for one in watch.alarms(connection)}

    def events(self, kind: str) -> list[events.Event]:
        """Events of a kind, newest first."""
        with self.store() as store, store.read() as connection:
            return events.newest(connection, kind, 1000)

    def wait_ended(self, uid: str, revision: int = 1, *, delivered: bool = True) -> dict[str, Any]:
        """The study once it has the result of this revision, and all that goes out of it has gone."""

        def look() -> dict[str, Any]:
            found = self.study(uid)
            if not found or found["state"] == "receiving" or found["revision"] < revision:
                return {}
            open_ones = {"pending", "sending"} & set(found["deliveries"])
            return {} if delivered and open_ones else found

        return wait_for(look, f"revision {revision} of {uid} has its result")

    def deliveries(self, uid: str, destination: str = "", revision: int = 0) -> list[dict[str, Any]]:
        """Deliveries of a study, oldest first; of one destination or revision when these are given."""
        return [
            one
            for one in self.study(uid).get("delivery_list", [])
            if destination in ("", one["destination"]) and revision in (0, one["revision"])
        ]

    def wait_delivered(self, uid: str, *destinations: str, revision: int = 1) -> dict[str, Any]:
        """The study once these destinations have said yes to everything of a revision."""

        def look() -> bool:
            sent = [self.deliveries(uid, name, revision) for name in destinations]
            return all(of_one and {one["state"] for one in of_one} == {"delivered"} for of_one in sent)

        wait_for(look, f"revision {revision} of {uid} is delivered to {', '.join(destinations)}")
        return self.study(uid)


MakeAgent = Callable[..., Agent]


def psutil_gone() -> suppress:
    """A process that ends while it is looked at is no error."""
    return suppress(psutil.NoSuchProcess)


def environment() -> dict[str, str]:
    """The environment of an installed agent: bytecode is kept, no settings come from the machine."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(COMPILED), "FIRSTREAD_CONFIG": ""}
