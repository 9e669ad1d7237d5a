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
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from firstread.agent import clock, logs, spool
from firstread.agent.config import Settings
from firstread.agent.roles import ROLES, owner_name, owner_prefix
from firstread.agent.store import deliveries, events, images, watch
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import upgrade

log = structlog.get_logger()

STOP_S = 25.0
"""What is not down by then is killed; the whole stop stays under 30 s."""

LONGEST_PAUSE_S = 30.0
STEADY_S = 30.0
"""A role that lived so long may be started again at once."""

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
    deaths: int = field(default=0)


class Supervisor:
    """All roles of one agent on one spool."""

    def __init__(self, settings: Settings, config_file: Path | None) -> None:
        self._settings = settings
        self._config_file = config_file
        self._stop = threading.Event()
        self._roles = [_Role(name) for name in ROLES]

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises SpoolInUse, SpoolUnusable, PortInUse or StoreError before anything starts."""
        os.umask(0o077)
        settings = self._settings
        spool.prepare(settings.spool)
        lock = spool.take_spool(settings.spool)
        listening = listen(settings.dicom.host, settings.dicom.port, "[dicom] port")
        listen(settings.web.host, settings.web.port, "[web] port").close()
        if settings.worklist.enabled:
            listen(settings.worklist.mllp_host, settings.worklist.mllp_port, "[worklist] mllp_port").close()
        logs.set_up("supervisor")
        store = Store(settings.database_url)
        copy = upgrade(store)
        if copy:
            log.info("schema upgraded", copy=copy)
        self._after_start(store)
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        signal.signal(signal.SIGINT, lambda *_: self._stop.set())
        try:
            self._supervise(store, listening)
        finally:
            listening.close()
            self._stop_all(store)
            store.close()
            os.close(lock)

    def stop(self) -> None:
        """Asks for the graceful stop (the signals do the same)."""
        self._stop.set()

    def _supervise(self, store: Store, listening: socket.socket) -> None:
        while not self._stop.is_set():
            now = clock.boot_seconds()
            for role in self._roles:
                if role.process is not None and role.process.poll() is not None:
                    self._died(role, store, now)
                if role.process is None and now >= role.start_at:
                    self._start(role, listening)
            self._stop.wait(0.1)

    def _start(self, role: _Role, listening: socket.socket) -> None:
        command = [sys.executable, "-m", "firstread.agent.role_process", role.name]
        if self._config_file is not None:
            command += ["--config", str(self._config_file)]
        inherited: tuple[int, ...] = ()
        if role.name == "receive":
            command += ["--listening-fd", str(listening.fileno())]
            inherited = (listening.fileno(),)
        role.process = subprocess.Popen(
            command,
            pass_fds=inherited,
            env={**os.environ, "FIRSTREAD_SUPERVISED": "1"},
            preexec_fn=_die_with_parent,
        )
        role.started = clock.boot_seconds()
        log.info("role started", name=role.name, process=role.process.pid)

    def _died(self, role: _Role, store: Store, now: float) -> None:
        process = role.process
        if process is None:
            return
        lived = now - role.started
        role.pause_s = 0.0 if lived > STEADY_S else min(LONGEST_PAUSE_S, max(0.2, role.pause_s * 2))
        role.start_at = now + role.pause_s
        role.process = None
        role.deaths += 1
        log.error("role died", name=role.name, exit_code=process.returncode, lived_s=round(lived, 1))
        try:
            self._free(store, owner_name(self._settings, role.name, process.pid) + "#")
            with store.write() as connection:
                events.record(
                    connection, clock.now(), "role died", "supervisor", name=role.name, exit_code=process.returncode
                )
        except Exception:
            log.exception("the leases of a dead role were not freed; they end by themselves", name=role.name)

    def _after_start(self, store: Store) -> None:
        self._free(store, owner_prefix(self._settings))
        with store.write() as connection:
            events.record(connection, clock.now(), "agent started", "supervisor", process=os.getpid())

    def _free(self, store: Store, prefix: str) -> None:
        with store.write() as connection:
            now, most = clock.now(), self._settings.analysis.max_attempts
            images.free_leases(connection, dead_prefix=prefix, max_attempts=most, actor="supervisor", now=now)
            deliveries.free_leases(connection, dead_prefix=prefix, actor="supervisor", now=now)

    def _stop_all(self, store: Store) -> None:
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
                process.kill()
                process.wait()
        with contextlib.suppress(Exception):
            self._free(store, owner_prefix(self._settings))
            with store.write() as connection:
                for role in self._roles:
                    watch.forget_role(connection, role.name)
                events.record(connection, clock.now(), "agent stopped", "supervisor")
        log.info("agent stopped")


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


def _die_with_parent() -> None:
    """Linux: a role gets SIGTERM when its supervisor dies, so that no orphan holds port and leases."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
