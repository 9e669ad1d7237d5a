"""What is looked after while the agent runs: leases, disk, waiting films, bursts, retention."""

from __future__ import annotations

import contextlib
import shutil
from datetime import datetime, timedelta

import structlog

from firstread.agent import clock, inspection
from firstread.agent.config import Settings
from firstread.agent.config_wire import certificates
from firstread.agent.schedule import JUMP_S
from firstread.agent.silence import silence_words, working_seconds
from firstread.agent.store import (
    commitments,
    deliveries,
    images,
    messages,
    overdue,
    reading_items,
    upkeep,
    watch,
    work_items,
    work_subscriptions,
    worklist,
)
from firstread.agent.store.engine import Store
from firstread.agent.tls import SOON_DAYS, VERY_SOON_DAYS, TlsFilesError, days_left

log = structlog.get_logger()

ACTOR = "studies"
CLOCK_ALARM_S = 3600.0
BURST_FACTOR = 5
BURST_AT_LEAST = 10
PURGE_AT_ONCE = 200
PURGE_WHEN_FULL = 20
LOG_ALARM = 1 << 30
"""Bytes of write-ahead log that no ordinary reader brings about."""
LIST_DAYS = 180
"""Longer than any order waits for its film, or a sender repeats a message."""


EVENT_DAYS = 7
"""As long as a delivery is tried: who does not listen for longer asks how things stand."""


class Care:
    """The jobs of the role "studies" that are not the summing up."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._next_spool_check = 0.0
        self._clock_words = ""
        self._clock = (clock.now().at.timestamp() - clock.boot_seconds(), 0.0)

    def free_leases(self) -> None:
        """Leases that ran out: their work is claimed again."""
        now = clock.now()
        with self._store.read() as connection:
            if not overdue.any_lease_ended(connection, now):
                return
        with self._store.write() as connection:
            freed = images.free_leases(
                connection,
                dead_prefix=None,
                max_attempts=self._settings.analysis.max_attempts,
                actor=ACTOR,
                now=now,
            )
            freed += deliveries.free_leases(connection, dead_prefix=None, actor=ACTOR, now=now)
        log.warning("leases freed", count=freed)

    def make_missing_items(self) -> int:
        """Work items for what an older release left on the reading list without one; answers how many."""
        made = 0
        while True:
            with self._store.write() as connection:
                count = reading_items.make_missing(connection, clock.now(), limit=PURGE_AT_ONCE)
            made += count
            if count < PURGE_AT_ONCE:
                return made

    def watch(self) -> None:
        """Conditions that somebody must know of become alarms, and are cleared when they are gone."""
        self._watch_disk()
        self._watch_waiting()
        self._watch_bursts()
        self._watch_certificates()
        self._watch_silence()
        self._watch_clock()

    def retention(self) -> int:
        """Deletes films whose days are over, or the oldest when the disk is too full: of finished studies only, nothing
        pending, no legal hold; result and trail stay.

        What left the reading list half a year ago is forgotten there too. Answers how many films went.
        """
        long_ago = clock.now().at - timedelta(days=LIST_DAYS)
        with self._store.write() as connection:
            messages.forget_before(connection, long_ago)
            worklist.forget_ended(connection, long_ago)
            commitments.forget_before(connection, long_ago)
            work_items.forget_ended(connection, long_ago)
            work_subscriptions.forget_events(connection, clock.now().at - timedelta(days=EVENT_DAYS))
        removed = 0
        days = self._settings.storage.keep_days
        if days is not None:
            before = clock.now().at - timedelta(days=days)
            while gone := self._purge(before, PURGE_AT_ONCE):
                removed += gone
        removed += self.make_room(clock.now().at)
        if days is not None:
            self._forget_set_aside(days)
        return removed

    def make_room(self, before: datetime) -> int:
        """While the disk is too full, deletes the oldest finished films that came before this; answers how many.

        Trials go first: the archive has them, and nobody reads them.
        """
        removed = 0
        while self._too_full() and (
            gone := self._purge(before, PURGE_WHEN_FULL, trials=True) or self._purge(before, PURGE_WHEN_FULL)
        ):
            removed += gone
        return removed

    def _forget_set_aside(self, days: int) -> None:
        """Films and results that no row names stay as long as any film, counted from the day they were set aside."""
        before = (clock.now().at - timedelta(days=days)).timestamp()
        gone = 0
        for path in (self._settings.spool / inspection.UNLISTED).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ctime < before:
                    path.unlink()
                    gone += 1
        if gone:
            log.info("files that were set aside purged", count=gone)

    def _purge(self, before: datetime, limit: int, *, trials: bool = False) -> int:
        # First the row, then the file: a replay that comes between must not find a film that is named and gone.
        with self._store.write() as connection:
            rows = overdue.films_to_purge(connection, before, limit=limit, trials=trials)
            rows = overdue.mark_purged(connection, rows, actor=ACTOR, now=clock.now())
        for row in rows:
            for place in (row.path, row.preview_path):
                if place:
                    (self._settings.spool / place).unlink(missing_ok=True)
        if rows:
            log.info("films purged", count=len(rows))
        return len(rows)

    def _too_full(self) -> bool:
        most = self._settings.storage.max_disk_percent
        if most is None:
            return False
        usage = shutil.disk_usage(self._settings.spool)
        return usage.used * 100 > most * (usage.used + usage.free)

    def upkeep(self) -> None:
        """The database's file and its log stay small; a log that cannot be emptied is an alarm."""
        size = upkeep.empty_log(self._store)
        upkeep.shrink(self._store)
        self._condition(
            "database/log",
            size > LOG_ALARM,
            "warning",
            f"the database's log has grown to {size >> 20} MB: somebody has been reading the database for long",
            "end what reads it (a shell with an open SELECT, a copy that hangs); then it shrinks by itself",
        )

    def check_spool(self) -> None:
        """Files that rows name are there, in full size; files that no row names are set aside."""
        began = clock.boot_seconds()
        if began < self._next_spool_check:
            return
        found = inspection.inspect(self._settings, self._store, hashes=False)
        inspection.set_aside(self._settings, self._store, found.unlisted)
        inspection.report_faults(self._store, found)
        # A spool of years must not be looked at all the time.
        self._next_spool_check = clock.boot_seconds() + 100 * (clock.boot_seconds() - began)

    def _watch_disk(self) -> None:
        free = shutil.disk_usage(self._settings.spool).free
        reserve = self._settings.storage.reserve_mb << 20
        self._condition(
            "disk",
            free < reserve,
            "critical",
            f"{free >> 20} MB are free where the spool lies, the reserve is {reserve >> 20} MB: films are refused",
            "free some disk, shorten [storage] keep_days, or lower reserve_mb; senders try again by themselves",
        )

    def _watch_waiting(self) -> None:
        with self._store.read() as connection:
            oldest = overdue.oldest_waiting(connection)
        age = 0.0 if oldest is None else (clock.now().at - oldest).total_seconds()
        self._condition(
            "waiting",
            age > 60 * self._settings.alarms.waiting_after_min,
            "warning",
            f"a film has waited {age / 60:.0f} min to be analysed",
            "look at the analyser (`firstread config check`, the log); films are kept and will be analysed",
        )

        most = self._settings.analysis.max_waiting
        with self._store.read() as connection:
            waiting = overdue.waiting(connection, most)
        self._condition(
            "queue",
            waiting >= most,
            "critical",
            f"{waiting} films wait to be analysed, [analysis] max_waiting is {most}: new associations are refused",
            "look at the analyser; what waits is kept, and senders try again by themselves",
        )

    def _watch_bursts(self) -> None:
        now = clock.now().at
        with self._store.read() as connection:
            last_hour = overdue.raised_between(connection, now - timedelta(hours=1), now)
            day = overdue.raised_between(connection, now - timedelta(hours=25), now - timedelta(hours=1))
        usual = day / 24
        self._condition(
            "burst",
            last_hour >= BURST_AT_LEAST and last_hour > BURST_FACTOR * max(usual, 1.0),
            "warning",
            f"{last_hour} studies were raised within an hour, {usual:.1f} an hour are usual",
            "see whether old studies are being sent ([study] max_age_days), or whether the films changed",
        )

    def _watch_certificates(self) -> None:
        for name, path in certificates(self._settings).items():
            try:
                left = days_left(path)
                text = f"the certificate of {name} ({path}) ends in {left:.0f} days"
                if left < 0:
                    text = f"the certificate of {name} ({path}) ended {-left:.0f} days ago: others refuse to talk to us"
            except TlsFilesError as error:
                left, text = 0.0, str(error)
            self._condition(
                f"certificate/{name}",
                left < SOON_DAYS,
                "critical" if left < VERY_SOON_DAYS else "warning",
                text,
                "put the renewed certificate and key in their place: they are taken up without a restart",
            )

    def _watch_silence(self) -> None:
        settings, now = self._settings.alarms, clock.now().at
        if not settings.silent_after_h:
            return
        for sender in settings.expected_senders or ("",):
            with self._store.read() as connection:
                last = overdue.last_study(connection, sender or None)
                receiver = next((one for one in watch.roles(connection) if one.name == "receive"), None)
            # While nobody listened nobody could send.
            listening = receiver.started_at if receiver is not None else now
            since = (max(last, listening) if last is not None else listening).astimezone()
            hours = settings.working_days, settings.working_from, settings.working_to
            silent_h = working_seconds(since, now.astimezone(since.tzinfo), *hours) / 3600
            self._condition(
                f"silence/{sender}" if sender else "silence",
                silent_h >= settings.silent_after_h,
                "warning",
                silence_words(sender, since, silent_h),
                "see whether the PACS still sends to us: its route, its queue, `firstread config check`, the network",
            )

    def _watch_clock(self) -> None:
        """Quiet periods and leases count on boot time; what a clock that is set spoils is the times in reports."""
        offset, jumped_at = self._clock
        new = clock.now().at.timestamp() - clock.boot_seconds()
        if abs(new - offset) > JUMP_S:
            jumped_at = clock.boot_seconds()
            self._clock_words = (
                f"the clock was set {'forward' if new > offset else 'back'} by {abs(new - offset):.0f} s"
            )
        self._clock = (new, jumped_at)
        self._condition(
            "clock",
            jumped_at > 0 and clock.boot_seconds() - jumped_at < CLOCK_ALARM_S,
            "warning",
            self._clock_words,
            "see that NTP keeps the time (chrony, systemd-timesyncd): reports and messages carry times of this clock",
        )

    def _condition(self, key: str, holds: bool, severity: str, text: str, remedy: str) -> None:
        now = clock.now()
        with self._store.read() as connection:
            standing = any(one.key == key for one in watch.alarms(connection))
        if not holds and not standing:
            return
        with self._store.write() as connection:
            if holds:
                watch.raise_alarm(connection, key, severity=severity, text=text, remedy=remedy, actor=ACTOR, now=now)
            else:
                watch.clear_alarm(connection, key, actor=ACTOR, now=now)
