"""The supervisor: starts every role, starts dead ones again, frees what they held, and stops them gracefully."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from firstread.agent import clock, logs, spool
from firstread.agent.config import Settings
from firstread.agent.owner import ROLES

if TYPE_CHECKING:
    from firstread.agent.role_book import RoleBook

log = structlog.get_logger()

STOP_S = 25.0
"""What is not down by then is killed; the whole stop stays under 30 s."""

SETTLE_AGAIN_S = 1.0
LONGEST_PAUSE_S = 4.0
"""Starting one takes two seconds of a core. A longer pause would break the promise to receive again within 10 s of a
kill, and would let three films that kill their analyser hold up the others for minutes."""
STEADY_S = 10.0
"""A role that lived so long may be started again at once."""

FIRST = ("receive", "web")
"""They are started before the schema is looked at, and wait for it: most of their start is loading libraries."""

FIRST_ALONE_S = 5.0
"""The other roles wait until the first ones live, but no longer: films are taken while the model loads."""

_FRUGAL = {"MALLOC_ARENA_MAX": "2"}
"""glibc gives every thread an arena and keeps what was freed there: the page's threads held 40 MB for nothing."""

_PR_SET_PDEATHSIG = 1


class PortInUse(Exception):
    """Somebody else listens on a port that the settings name."""


@dataclass
class _Role:
    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause_s: float = 0.0
    start_at: float = 0.0


class Supervisor:
    """All roles of one agent on one spool."""

    def __init__(self, settings: Settings, config_file: Path | None) -> None:
        self._settings = settings
        self._config_file = config_file
        self._stop = threading.Event()
        self._roles = [_Role(name) for name in ROLES]
        self._dead: list[tuple[str, int, int]] = []
        self._settle_at = 0.0
        self._found: frozenset[str] | None = None
        self._compared = True
        self._some_died = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises SpoolInUse, SpoolUnusable, PortInUse or StoreError when it cannot begin."""
        os.umask(0o077)
        settings = self._settings
        spool.prepare(settings.spool)
        lock, left_open = spool.take_spool(settings.spool)
        # Before any role of ours lives: what lies there now and is named by no row will never be.
        self._found = spool.films_there(settings.spool) if left_open else None
        self._compared = not left_open
        try:
            with listen(settings.dicom.host, settings.dicom.port, "[dicom] port") as listening:
                probe_ports(settings)
                logs.set_up("supervisor")
                signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
                signal.signal(signal.SIGINT, lambda *_: self._stop.set())
                self._run(listening)
                if self._compared and not self._some_died:
                    spool.note_clean_end(lock)
        finally:
            os.close(lock)

    def stop(self) -> None:
        """Asks for the graceful stop (the signals do the same)."""
        self._stop.set()

    def _run(self, listening: socket.socket) -> None:
        book = None
        try:
            book = self._begin(listening)
            self._supervise(book, listening)
        finally:
            listening.close()
            self._stop_all(book)

    def _begin(self, listening: socket.socket) -> RoleBook:
        gate, opener = os.pipe()
        first = [role for role in self._roles if role.name in FIRST]
        try:
            for role in first:
                self._start(role, listening, gate)
            from firstread.agent.role_book import RoleBook  # loads the database's libraries while the roles load theirs

            book = RoleBook(self._settings)
            book.begin(ROLES)
            os.write(opener, b"." * len(first))
        finally:
            os.close(gate)
            os.close(opener)
        return book

    def _supervise(self, book: RoleBook, listening: socket.socket) -> None:
        rest_at = clock.boot_seconds() + FIRST_ALONE_S
        while not self._stop.is_set():
            now = clock.boot_seconds()
            if now < rest_at and book.living() >= set(FIRST):
                rest_at = now
            if self._found is not None and now >= rest_at:  # receiving comes first
                threading.Thread(target=self._compare, args=(self._found,), name="compare", daemon=True).start()
                self._found = None
            for role in self._roles:
                if role.process is not None and role.process.poll() is not None:
                    self._died(role, role.process, now)
                if role.process is None and now >= role.start_at and (role.name in FIRST or now >= rest_at):
                    self._start(role, listening)
            self._settle(book, now)
            self._stop.wait(0.1)

    def _compare(self, found: frozenset[str]) -> None:
        """Spool against database both ways, beside the work, after an end that was not graceful."""
        from firstread.agent.inspection import after_unclean_end
        from firstread.agent.store.engine import Store

        try:
            store = Store(self._settings.database_url)
            try:
                after_unclean_end(self._settings, store, found)
            finally:
                store.close()
            self._compared = True
        except Exception:
            log.exception("the spool was not compared with the database; the hourly check does so")

    def _start(self, role: _Role, listening: socket.socket, gate: int | None = None) -> None:
        command = [sys.executable, "-m", "firstread.agent.role_process", role.name]
        if self._config_file is not None:
            command += ["--config", str(self._config_file)]
        inherited = []
        if role.name == "receive":
            command += ["--listening-fd", str(listening.fileno())]
            inherited.append(listening.fileno())
        if gate is not None:
            command += ["--gate-fd", str(gate)]
            inherited.append(gate)
        role.process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
            command,
            pass_fds=inherited,
            env={**_FRUGAL, **os.environ, "FIRSTREAD_SUPERVISED": str(os.getpid())},
            preexec_fn=_die_with_parent,
        )
        role.started = clock.boot_seconds()
        log.info("role started", name=role.name, process=role.process.pid)

    def _died(self, role: _Role, process: subprocess.Popen[bytes], now: float) -> None:
        lived = now - role.started
        role.pause_s = pause_after(role.pause_s, lived)
        role.start_at = now + role.pause_s
        role.process = None
        self._some_died = True
        log.error("role died", name=role.name, exit_code=process.returncode, lived_s=round(lived, 1))
        self._dead.append((role.name, process.pid, process.returncode))
        self._settle_at = now

    def _settle(self, book: RoleBook, now: float) -> None:
        """Writes down who died and frees what they held; what the database does not take now is tried again."""
        while self._dead and now >= self._settle_at:
            name, process, exit_code = self._dead[0]
            try:
                book.died(name, process, exit_code)
            except Exception:
                log.exception("what a dead role held is not free yet; it is tried again", name=name)
                self._settle_at = now + SETTLE_AGAIN_S
                return
            del self._dead[0]

    def _stop_all(self, book: RoleBook | None) -> None:
        if book is not None:
            book.going_down()
        living = [role.process for role in self._roles if role.process is not None and role.process.poll() is None]
        for process in living:
            process.terminate()
        deadline = clock.boot_seconds() + STOP_S
        for process in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - clock.boot_seconds()))
        for process in living:
            if process.poll() is None:
                log.warning("a role did not stop in time and is killed", process=process.pid)
                self._some_died = True
                process.kill()
                process.wait()
        if book is None:
            return
        try:
            book.end(ROLES)
        except Exception:
            log.exception("what the roles held was not freed; the next start frees it")
        book.close()
        log.info("agent stopped")


def pause_after(pause_s: float, lived_s: float) -> float:
    """Seconds until a role that lived ``lived_s`` is started again; ``pause_s`` was the pause before that life."""
    return 0.0 if lived_s > STEADY_S else min(LONGEST_PAUSE_S, max(0.2, pause_s * 2))


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens on the address. Raises PortInUse with what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise PortInUse(
            f"{host} port {port} cannot be listened on ({error.strerror or error}): "
            f"stop what uses it, or set another {setting}"
        ) from error
    return listening


def probe_ports(settings: Settings) -> None:
    """Raises PortInUse when page or reading list could not listen; DICOM's port is listened on by who asks."""
    listen(settings.web.host, settings.web.port, "[web] port").close()
    if settings.worklist.enabled:
        listen(settings.worklist.mllp_host, settings.worklist.mllp_port, "[worklist] mllp_port").close()


def _die_with_parent() -> None:
    """Linux: a role gets SIGTERM when its supervisor dies, so that no orphan holds port and leases."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
