"""Every periodic job, in one list, run by APScheduler in the role that owns it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from firstread.agent import clock

log = structlog.get_logger()

Call = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """``name`` is done by ``role`` every ``every_s`` seconds."""

    name: str
    role: str
    every_s: float
    why: str


JOBS: tuple[Job, ...] = (
    Job("close studies", "studies", 0.2, "a quiet study gets its result at once"),
    Job("free leases", "studies", 5.0, "what a dead or stopped worker held is claimed again"),
    Job(
        "watch",
        "studies",
        10.0,
        "what must be known becomes an alarm: silence, disk, waiting films, certificates, the clock",
    ),
    Job("retention", "studies", 3600.0, "films of finished studies go when their days are over"),
    Job("spool check", "studies", 3600.0, "what is missing on the disk is told before somebody looks for it"),
    Job("upkeep", "studies", 300.0, "the database's file and its log stay small"),
    Job("notices by e-mail", "deliver", 10.0, "alarms leave the house"),
    Job("notices by webhook", "deliver", 10.0, "a mail server that does not answer holds up no webhook"),
    Job("older objects", "studies", 1.0, "what was received before an upgrade can be searched as well"),
    Job("admission", "receive", 1.0, "a full disk or queue refuses senders before they have sent"),
    Job("certificates", "receive", 10.0, "a renewed certificate needs no restart"),
    Job("certificates", "web", 10.0, "a renewed certificate needs no restart"),
    Job("canary", "analyse", 3600.0, "a model that changed its mind stops reporting"),
    Job("beat", "every role", 5.0, "health knows who lives"),
)

JUMP_S = 2.0
"""Wall and boot clock drift apart by less than this between two looks, or somebody set the clock."""


class Schedule:
    """Runs the jobs of one role. A clock that is set re-plans them, since APScheduler counts wall time."""

    def __init__(self, role: str, calls: Mapping[str, Call]) -> None:
        wanted = {job.name: job for job in JOBS if job.role in (role, "every role")}
        if set(calls) != set(wanted):
            raise ValueError(f"role {role} must do {sorted(wanted)}, not {sorted(calls)}")
        self._jobs = wanted
        self._calls = calls
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max_workers=max(2, len(wanted)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._stop = threading.Event()
        self._watchdog = threading.Thread(target=self._watch_clock, name="clock-watchdog", daemon=True)

    def start(self) -> None:
        """Begins; every job runs for the first time within its interval."""
        for job in self._jobs.values():
            self._scheduler.add_job(self._guarded(job), "interval", seconds=job.every_s, id=job.name, name=job.name)
        self._scheduler.start()
        self._watchdog.start()

    def stop(self) -> None:
        """Ends after the jobs that are running."""
        self._stop.set()
        self._scheduler.shutdown(wait=True)

    def _guarded(self, job: Job) -> Call:
        call = self._calls[job.name]

        def run() -> None:
            try:
                call()
            except Exception:
                log.exception("a periodic job failed; it runs again", job=job.name)

        return run

    def _watch_clock(self) -> None:
        wall, boot = time.time(), clock.boot_seconds()
        while not self._stop.wait(1.0):
            new_wall, new_boot = time.time(), clock.boot_seconds()
            jumped = (new_wall - wall) - (new_boot - boot)
            wall, boot = new_wall, new_boot
            if abs(jumped) > JUMP_S:
                log.warning("the clock was set", seconds=round(jumped, 1))
                for job in self._jobs.values():
                    self._scheduler.reschedule_job(job.name, trigger="interval", seconds=job.every_s)
