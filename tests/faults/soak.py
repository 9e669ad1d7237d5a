"""The soak: ``python -m tests.faults.soak [--minutes 30] [--share 0.8] [--json FILE]``.

Measures how many films a second the whole chain carries, then sends that share of it for minutes: eight scanners, films
of 1, 5 and 15 MB, and one destination that is down for the middle third. Watches each role's memory, the queues, and
whether the dead destination delays the others. Exit code 0 only when memory stayed flat, the queues are empty at the
end, and the campaign's oracle finds nothing.

Half an hour of films is more than many disks hold: what is finished goes, as on a disk that is too full, by the agent's
own retention; each film is read and hashed before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from PIL import Image

from firstread.agent import clock
from firstread.agent.care import Care
from firstread.agent.store.errors import StoreBusy
from firstread.models.bundle import reference_bundle
from tests.faults import oracle
from tests.faults.receivers import Held, Pacs
from tests.faults.rig import Rig
from tests.faults.senders import DRAWN, Scanner, Sent, encoded
from tests.integration.dicom_wire import EXPLICIT, data_set_of
from tests.system.agent import psutil_gone
from tests.system.films import film, new_uid

SCANNERS = 8
SIZES = {1: (700, 720), 5: (1600, 1560), 15: (3000, 2500)}
"""Megabytes of a film and its rows and columns at 16 bits."""

MIX = (1, 1, 1, 1, 1, 5, 5, 5, 15, 15)
"""How often each size is sent."""

SAMPLE_EVERY_S = 5.0
KEEP_EVERY_S = 10.0
FLAT_MB = 64.0
"""A role that would grow by less than this over the whole soak, by the line through its samples, is flat."""

DELAY_S = 1.0
"""By how much a dead destination may delay another one, at the 99th percentile."""

DRAINED_S = 120.0


@dataclass
class Light(Sent):
    """A film of which only the hash is kept once it was taken: thousands of them are sent."""

    kept_sha256: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the data set."""
        return self.kept_sha256 or super().sha256

    def forget(self) -> None:
        """Lets the bytes go."""
        self.kept_sha256 = self.sha256
        self.content = b""


class HashingPacs(Pacs):
    """Keeps reports whole, of heat maps the hash alone."""

    def keep(self, one: Held) -> None:
        """Takes an object."""
        super().keep(one if one.kind == "SR" else replace(one, content=one.sha256.encode()))


class Factory:
    """Films of every size; their pixels are made once, their headers are new each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._random = Random(1)
        self._pixels = {(number, size): _enlarged(number, *SIZES[size]) for number in DRAWN[:3] for size in SIZES}

    def film(self) -> Light:
        """One film of a study of its own."""
        with self._lock:
            number, size = self._random.choice(DRAWN[:3]), self._random.choice(MIX)
        dataset = film(number, new_uid(), PatientID=f"P{new_uid()[-10:]}")
        rows, columns = SIZES[size]
        dataset.file_meta.TransferSyntaxUID = EXPLICIT
        dataset.Rows, dataset.Columns = rows, columns
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        for keyword in ("WindowCenter", "WindowWidth", "ImagerPixelSpacing", "PixelSpacing"):
            if keyword in dataset:
                delattr(dataset, keyword)
        del dataset.PixelData  # drawn films are compressed
        dataset.add_new("PixelData", "OW", self._pixels[number, size])
        return Light(
            str(dataset.StudyInstanceUID), str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), encoded(dataset)
        )


def _enlarged(number: int, rows: int, columns: int) -> bytes:
    """The drawn film at another size, 12 bits with some noise."""
    drawn = film(number)
    pixels = np.asarray(drawn.pixel_array, np.float32)
    pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1.0)
    large = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(number).normal(0, 6, large.shape)
    return np.clip(large * 3500 + 200 + noise, 0, 4095).astype("<u2").tobytes()


@dataclass
class Pace:
    """When the next film is due, shared by all scanners; films a second."""

    rate: float
    next_at: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Until it is this scanner's turn."""
        with self.lock:
            at = self.next_at = max(self.next_at, time.monotonic() - 5.0) + 1.0 / self.rate
        time.sleep(max(0.0, at - time.monotonic()))


class Soak:
    """One agent with the reference bundle, two receivers, eight scanners."""

    def __init__(self, folder: Path, room_gb: float) -> None:
        usage = shutil.disk_usage(folder)
        most = math.ceil((usage.used + room_gb * 1e9) * 100 / (usage.used + usage.free))
        self.rig = Rig(
            folder,
            reference_bundle(),
            disk_mb=0,
            pacs=HashingPacs(20.0),
            analysis={"threads": 1, "decode_workers": 1, "batch_size": 8},
            storage={"path": str(folder / "disk" / "data"), "reserve_mb": 512, "max_disk_percent": min(most, 95)},
        )
        self.factory = Factory()
        self.films: list[Sent] = []
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self.backlog: list[tuple[float, int]] = []
        self.seen: set[str] = set()
        self._read: set[Path] = set()
        self._lock = threading.Lock()

    def send(self, seconds: float, pace: Pace | None, limit: int | None = None) -> None:
        """Eight scanners for so long, each film in an association of its own."""
        until = time.monotonic() + seconds
        left = deque(range(limit)) if limit is not None else None

        def scan() -> None:
            while time.monotonic() < until:
                if left is not None:
                    try:
                        left.pop()
                    except IndexError:
                        return
                one = self.factory.film()
                if pace is not None:
                    pace.wait()
                with self._lock:
                    self.films.append(one)
                Scanner(self.rig.agent.dicom_port, [one], give_up_s=120).run()
                one.forget()

        with ThreadPoolExecutor(SCANNERS) as pool:
            for scanning in [pool.submit(scan) for _ in range(SCANNERS)]:
                scanning.result()

    def capacity(self, films: int) -> float:
        """Films a second from the first byte to the last result acknowledged, with everything to hand."""
        self.send(600, None, limit=SCANNERS)  # libraries, engine and receivers are warm after these
        self.drain(DRAINED_S)
        began = time.monotonic()
        self.send(600, None, limit=films)
        self.drain(600)
        return films / (time.monotonic() - began)

    def drain(self, limit_s: float) -> float:
        """Seconds until the queues are empty; infinity when they are not within ``limit_s``."""
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if not oracle.open_work(self.rig):
                return time.monotonic() - began
            time.sleep(0.25)
        return math.inf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Samples memory and queues while the block runs."""

        def watch(stop: threading.Event) -> None:
            began = time.monotonic()
            while not stop.wait(SAMPLE_EVERY_S):
                at = time.monotonic() - began
                with psutil_gone():
                    for name, role in self.rig.agent.roles().items():
                        self.samples.setdefault(name, []).append((at, _resident_mb(role)))
                self.backlog.append((at, sum(value for value in oracle.open_work(self.rig).values() if value)))

        with _beside(watch):
            yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While the block runs, what is new on the disk is read, and then the agent's retention makes room."""

        def keep(stop: threading.Event) -> None:
            with self.rig.agent.store() as store:
                care = Care(self.rig.agent.settings, store)
                while not stop.wait(KEEP_EVERY_S):
                    began = clock.now().at
                    self.look()
                    with suppress(StoreBusy):  # what came since the look is not seen yet, and stays
                        care.make_room(began)

        with _beside(keep):
            yield

    def look(self) -> None:
        """Hashes the data sets of films that were not read yet."""
        for path in (self.rig.spool / "films").rglob("*.dcm"):
            if path not in self._read:
                with suppress(FileNotFoundError):  # a film that came twice is kept once
                    self.seen.add(hashlib.sha256(data_set_of(path)).hexdigest())
                self._read.add(path)

    def purged(self) -> int:
        """How many films the retention took."""
        return int(self._rows("select count(*) from event where kind = 'film purged'")[0][0])

    def delays(self, destination: str, since: datetime, until: datetime) -> list[float]:
        """Seconds from a result to its delivery, of results made in this time."""
        rows = self._rows(
            "select created_at, ended_at from delivery where destination = ? and state = 'delivered' "
            "and created_at >= ? and created_at < ?",
            destination, _stored(since), _stored(until),
        )  # fmt: skip
        return [(_moment(end) - _moment(begin)).total_seconds() for begin, end in rows]

    def _rows(self, query: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.rig.spool / 'firstread.sqlite3'}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()


@contextmanager
def _beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """``work`` goes on in a thread until the block ends and its event is set; what it raises is raised then."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, stop)
        try:
            yield
        finally:
            stop.set()
        working.result()


def run(folder: Path, minutes: float, share: float, films_for_capacity: int, room_gb: float) -> dict[str, Any]:
    """Plays the soak and returns its log."""
    soak = Soak(folder, room_gb)
    rig = soak.rig
    try:
        rig.start()
        capacity = soak.capacity(films_for_capacity)
        print(f"the chain carries {capacity:.2f} films/s; {share:.0%} of it for {minutes:g} minutes", flush=True)
        third = minutes * 60 / 3
        moments = [datetime.now(UTC)]
        before = len(soak.films)
        pace = Pace(capacity * share)
        with soak.watched(), soak.kept():
            soak.send(third, pace)
            rig.ris.down()
            moments.append(datetime.now(UTC))
            soak.send(third, pace)
            rig.ris.up()
            moments.append(datetime.now(UTC))
            soak.send(third, pace)
            drained_s = soak.drain(DRAINED_S)
        moments.append(datetime.now(UTC))
        found = oracle.findings(rig, soak.films, soak.seen)
        up = soak.delays("pacs", moments[0], moments[1])
        down = soak.delays("pacs", moments[1], moments[2])
        delay_s = _p99(down) - _p99(up)
        growth = {name: _growth_mb(of_role) for name, of_role in soak.samples.items()}
        found += [f"role {name} grew by {mb:.0f} MB" for name, mb in growth.items() if mb > FLAT_MB]
        if drained_s == math.inf:
            found.append(f"the queues were not empty {DRAINED_S:.0f} s after the last film: {oracle.open_work(rig)}")
        if not up or not down:
            found.append(f"{len(up)} and {len(down)} deliveries to the PACS say nothing of a delay")
        elif delay_s > DELAY_S:
            found.append(f"the dead RIS delayed the PACS by {delay_s:.2f} s at the 99th percentile")
        return {
            "date": moments[0].isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "minutes": minutes,
            "capacity_films_per_s": round(capacity, 2),
            "share": share,
            "films": len(soak.films) - before,
            "purged": soak.purged(),
            "refused_or_unanswered": sum(len(one.told) for one in soak.films) - len(soak.films),
            "most_waiting": max((count for _, count in soak.backlog), default=0),
            "drained_s": round(drained_s, 1) if drained_s < math.inf else None,
            "pacs_p99_s_while_ris_up": round(_p99(up), 3),
            "pacs_p99_s_while_ris_down": round(_p99(down), 3),
            "memory_mb": {
                name: {
                    "first": round(statistics.median(mb for _, mb in of_role[: max(1, len(of_role) // 5)])),
                    "last": round(statistics.median(mb for _, mb in of_role[-max(1, len(of_role) // 5) :])),
                    "most": round(max(mb for _, mb in of_role)),
                    "growth_by_line": round(growth[name], 1),
                }
                for name, of_role in sorted(soak.samples.items())
            },
            "findings": found,
        }
    finally:
        rig.close()


def _resident_mb(role: psutil.Process) -> float:
    """The role and the processes that it started, in MB of resident memory."""
    total = role.memory_info().rss
    for child in role.children(recursive=True):
        with psutil_gone():
            total += child.memory_info().rss
    return float(total) / 1e6


def _growth_mb(samples: Sequence[tuple[float, float]]) -> float:
    """What the line through the samples rises over their time, the first fifth (warming up) left out."""
    kept = samples[len(samples) // 5 :]
    if len(kept) < 3:
        return 0.0
    at, mb = zip(*kept, strict=True)
    slope, _ = statistics.linear_regression(at, mb)
    return slope * (at[-1] - at[0])


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99)) if values else math.nan


def _stored(moment: datetime) -> str:
    """As SQLite holds it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _moment(stored: str) -> datetime:
    return datetime.fromisoformat(stored)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--share", type=float, default=0.8, help="of what the chain carries")
    parser.add_argument("--films", type=int, default=80, help="films by which that is measured")
    parser.add_argument("--room-gb", type=float, default=12, help="of finished films that stay on the disk")
    parser.add_argument("--json", type=Path, help="write the log here")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="firstread-soak-"))
    try:
        log = run(folder, asked.minutes, asked.share, asked.films, asked.room_gb)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps(log, indent=1))
    return 1 if log["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
