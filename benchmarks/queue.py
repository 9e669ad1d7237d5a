"""Queue and pages after years: each transition, claims, lists and pages at 1,000, 100,000 and 1,000,000 studies.

    python -m benchmarks.queue [--short] [--json FILE] [--sizes 1000 100000 1000000] [--postgresql-sizes 1000 100000]

A year of studies of each size (benchmarks/year.py) is written into an SQLite file, and into a private PostgreSQL
server where Debian's package postgresql is there. Then fresh studies are taken through every transition of the queue,
in turn on each size, so that what else the machine does meets all of them alike; commit and its fsync are counted.
Lists and pages are asked of the whole application, without a socket. Milliseconds: least, median, most.

Last line, ``ratio``: the time at the smallest size divided by the time at the largest, of the claim or transition for
which that is worst, of the medians, on SQLite (1.0: as quick as in the first week; it must be above 0.67).
Every figure is checked first: what was claimed, ended and delivered is counted, filters and pages must hold what they
should. Disk: 26 kB a study.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import func, select
from starlette.testclient import TestClient

from benchmarks import harness
from benchmarks.year import OPEN, Year, build
from firstread.agent import clock
from firstread.agent.clock import Moment
from firstread.agent.identify import patient_key, patient_of
from firstread.agent.listing import study_objects
from firstread.agent.store import deliveries, images, overdue, results, studies
from firstread.agent.store.images import StoredInstance
from firstread.agent.store.results import Artifact
from firstread.agent.store.studies import StudyFilter
from firstread.agent.store.tables import EntryState, delivery, entry, study
from firstread.agent.store.totals import totals
from firstread.agent.store.worklist import ensure_entry
from firstread.agent.triage import ImageFact, assess
from firstread.agent.web.app import create_app
from firstread.agent.web.board import Board
from firstread.agent.worklist.inbox import Inbox
from firstread.models.prediction import ImageOutcome, Priority, StudyIdentity
from tests.agent.builders import DX, predict
from tests.agent.test_worklist_inbox import order, report
from tests.agent.web_seed import POLICY, Morning
from tests.peers import free_port

TRANSITIONS = (
    "order without its film", "film stored", "claim a film", "film analysed", "ready to sum up", "result committed",
    "claim a delivery", "delivered", "reported", "film purged", "leases looked at",
)  # fmt: skip
PAGES = ("/", "/?order=arrival", "/study", "/off", "/system", "/metrics", "/health")
LIMIT_MS = 100.0
"""A list must be there in this time, whatever its filter."""


@dataclass
class Place:
    """One database of one size, and what was measured on it: milliseconds by name."""

    database: str
    year: Year
    measured: dict[str, list[float]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        morning = self.year.morning
        self.store = morning.store
        self.inbox = Inbox(self.store)
        self.board = Board(morning.settings, self.store)
        self.client = TestClient(create_app(morning.settings, self.store), base_url="http://127.0.0.1:8080")

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Measures the block."""
        began = time.perf_counter()
        yield
        self.measured.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    def median(self, name: str) -> float:
        """Of one name, in milliseconds."""
        return statistics.median(self.measured[name])


def one_study(place: Place, number: int) -> None:
    """A fresh study through every transition, from its order to its final report."""
    store = place.store
    accession, uid = f"N{number}", f"2.25.777{number}"
    with place.time("order without its film"):
        answer = place.inbox(
            order(f"o{number}", accession=accession, patient=f"Q{number}", placer=f"NPL{number}"), "127.0.0.1:1"
        )
    _must(b"MSA|AA" in answer, f"the order was answered {answer!r}")
    identity = StudyIdentity(
        uid, patient_id=f"Q{number}", accession_number=accession, study_date="20261126", patient_name="DOE^JOHN",
        modality="DX", body_part="CHEST", view_position="PA", patient_age_years=60.0, station="XR1",
    )  # fmt: skip
    now = clock.now()
    with place.time("film stored"), store.write() as connection:
        _must(images.newest_version(connection, uid + ".1") is None, "the film is known")
        _must(studies.find(connection, uid) is None, "the study is known")
        ordered = studies.ordered_priority_of(connection, identity)
        study_id = studies.create(connection, identity, "PACS", ordered, now)
        ensure_entry(connection, identity, now.at, new_film=True)
        stored = StoredInstance(
            uid + ".1", uid + ".2", DX, "1.2.840.10008.1.2.1", patient_key(identity), True, f"films/bb/{number}", 1,
            "0" * 64, {"calling_ae_title": "PACS"},
        )  # fmt: skip
        images.add(connection, stored, study_id, None, now)
    _must(ordered == Priority.STAT, "the order was not found by the film's accession number")
    with place.time("claim a film"), store.write() as connection:
        (held,) = images.claim(connection, owner="b/b/analyse/1", lease_s=600, limit=8, now=clock.now())
    _must(held.study_id == study_id, "another film was claimed")
    with place.time("film analysed"), store.write() as connection:
        images.end_analysed(
            connection, held, predict(uid + ".1", Mass=0.7), preview_path=f"previews/bb/{number}", saliency=b"x" * 3000,
            actor="benchmark", now=clock.now(),
        )  # fmt: skip
    quiet = clock.now().plus(600)
    with place.time("ready to sum up"), store.read() as connection:
        (ready,) = studies.ready_to_sum_up(connection, quiet_period_s=60, max_open_s=3600, limit=10, now=quiet)
    _commit(place, ready, identity)
    now = clock.now().plus(1)
    for destination, count in (("pacs", 2), ("ris", 1), ("worklist", 1)):
        for _ in range(count):
            with place.time("claim a delivery"), store.write() as connection:
                claim = deliveries.claim(connection, destination, on_hold=False, owner="d", lease_s=600, now=now)
            assert claim is not None
            _must(claim.study_id == study_id, "another delivery was claimed")
            with place.time("delivered"), store.write() as connection:
                deliveries.end_delivered(connection, claim, status="0000", detail="", actor="benchmark", now=now)
    with place.time("reported"):
        answer = place.inbox(
            report(f"r{number}", accession=accession, patient=f"Q{number}", placer=f"NPL{number}"), "127.0.0.1:1"
        )
    _must(b"MSA|AA" in answer, f"the report was answered {answer!r}")
    with place.time("film purged"), store.write() as connection:
        rows = overdue.films_to_purge(connection, now.at - timedelta(days=1), limit=1)
        gone = overdue.mark_purged(connection, rows, actor="benchmark", now=now)
    _must(len(gone) == 1, "no film was purged")
    with place.time("leases looked at"), store.read() as connection:
        _must(not overdue.any_lease_ended(connection, now), "a lease ended")
    place.fresh.append(uid)


def _commit(place: Place, ready: studies.OpenStudy, identity: StudyIdentity) -> None:
    image = ready.images[0]
    outcome = ImageOutcome(image.sop_instance_uid, image.sop_class_uid, image.series_instance_uid, None)
    assessment = assess(
        study_instance_uid=identity.study_instance_uid, revision=ready.revision, created_at=clock.now().at,
        images=[ImageFact(outcome, patient_of(image.patient_key), image.prediction)], policy=POLICY,
        ordered=ready.ordered_priority, earlier=(),
    )  # fmt: skip
    uid = identity.study_instance_uid
    artifacts = [
        Artifact("sr", uid + ".3", ("pacs",), "0" * 64, 1, path=f"results/bb/{uid}"),
        Artifact("heatmap", uid + ".4", ("pacs",), "0" * 64, 1, path=f"results/bb/{uid}h"),
        Artifact("oru", uid + ".5", ("ris", "worklist"), "0" * 64, 4000, message=b"x" * 4000),
    ]
    with place.time("result committed"), place.store.write() as connection:
        done = results.commit(connection, ready, assessment, artifacts, sent=True, actor="benchmark", now=clock.now())
    _must(done, "the result was not committed")


def filters(year: Year, now: Moment) -> dict[str, tuple[StudyFilter, int]]:
    """Every filter of ``firstread studies`` and ``replay``, and how many rows it must answer at a limit of 100."""
    some = year.studies // 2
    day = now.at - timedelta(days=100)
    a_day = year.studies // 365
    return {
        "list: all": (StudyFilter(), 100),
        "list: analysed": (StudyFilter(state="analysed"), 100),
        "list: not analysed": (StudyFilter(state="not_analysed"), min(100, year.studies // 12)),
        "list: receiving": (StudyFilter(state="receiving"), 0),
        "list: accession": (StudyFilter(accession_number=f"Y{some}"), 1),
        "list: patient": (StudyFilter(patient_id=f"P{some // 3}"), 3),
        "list: one day": (StudyFilter(received_from=day, received_until=day + timedelta(days=1)), min(100, a_day)),
        "list: since a month": (
            StudyFilter(received_from=now.at - timedelta(days=30)),
            min(100, year.studies * 30 // 365),
        ),
        "list: study date": (StudyFilter(study_date_from=f"{day:%Y%m%d}", study_date_until=f"{day:%Y%m%d}"), a_day),
        "list: station": (StudyFilter(station="XR3"), 100),
        "list: unknown station": (StudyFilter(station="XR9"), 0),
    }


def lists(place: Place) -> None:
    """Every filter, as ``firstread studies`` lists it; and the counts."""
    for name, (wanted, expected) in filters(place.year, clock.now()).items():
        with place.time(name), place.store.read() as connection:
            found = study_objects(connection, studies.selected(connection, wanted, 100))
        slack = len(place.fresh) + 3 if any(word in name for word in ("day", "date", "month")) else 0
        _must(
            abs(len(found) - min(100, expected)) <= slack,
            f"{name} at {place.year.studies}: {len(found)} instead of {expected}",
        )
    with place.time("count: everything"), place.store.read() as connection:
        counted = totals(connection)
    _must(sum(counted.studies.values()) == place.year.studies + len(place.fresh), "studies were counted wrong")


def pages(place: Place) -> None:
    """Every page, and the look that stands behind the list."""
    with place.time("page: the look behind it"):
        snapshot = place.board.refresh()
    _must(len(snapshot.rows) == OPEN, f"{len(snapshot.rows)} studies are listed")
    for path in PAGES:
        asked = f"/study/{snapshot.rows[0].id}" if path == "/study" else path
        with place.time(f"page: {path}"):
            answer = place.client.get(asked)
        # No role lives here, and /health says so.
        _must(answer.status_code == (503 if path == "/health" else 200), f"{path} answered {answer.status_code}")


def checked(place: Place) -> None:
    """What the rounds left behind."""
    with place.store.read() as connection:
        for uid in place.fresh:
            row = studies.find(connection, uid)
            _must(row is not None and row.state == "analysed", f"{uid} is not analysed")
            assert row is not None
            _must(
                set(deliveries.states_of(connection, [row.id]).get(row.id, ())) == {"delivered"},
                f"{uid} is not delivered",
            )
        listed = select(func.count()).select_from(entry).where(entry.c.study_instance_uid.in_(place.fresh))
        _must(
            connection.execute(listed.where(entry.c.state == EntryState.REPORTED)).scalar() == len(place.fresh),
            "a reported study stands on the list",
        )
        for table, expected in ((study, place.year.studies + len(place.fresh)),
                                (delivery, 4 * (place.year.studies + len(place.fresh)))):  # fmt: skip
            found = connection.execute(select(func.count()).select_from(table)).scalar()
            _must(found == expected, f"{found} rows in {table.name} instead of {expected}")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"no figures: {otherwise}")


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Callable[[str], str] | None]:
    """A private server with its own settings, fsync included; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        print("PostgreSQL is not here: deploy/install-peers.sh installs it (Debian: apt-get install postgresql)")
        yield None
        return
    programs, port = found[-1].parent, free_port()
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        folder.chmod(0o755)
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    cluster = folder / "cluster"

    def call(program: str, *arguments: str) -> None:
        with (folder / "log").open("ab") as log:
            subprocess.run(
                [str(programs / program), *arguments], user=user, cwd=folder, check=True, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip

    call("initdb", "-D", str(cluster), "-U", "firstread", "-A", "trust", "-E", "UTF8", "--locale=C")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c shared_buffers=512MB"
    call("pg_ctl", "-D", str(cluster), "-w", "-o", options, "start")

    def database(name: str) -> str:
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "firstread", name)
        return f"postgresql+psycopg://firstread@127.0.0.1:{port}/{name}"

    try:
        yield database
    finally:
        call("pg_ctl", "-D", str(cluster), "-w", "-m", "immediate", "stop")


def table(places: list[Place], names: list[str]) -> None:
    """Least, median and most milliseconds of each."""
    print(f"{'':28}" + "".join(f"{f'{place.database} {place.year.studies:,}':>26}" for place in places))
    for name in names:
        cells = []
        for place in places:
            found = place.measured[name]
            cells.append(f"{min(found):.2f} / {statistics.median(found):.2f} / {max(found):.1f}")
        print(f"{name:28}" + "".join(f"{cell:>26}" for cell in cells))


def machine() -> str:
    """What this was measured on, databases included."""
    return f"{harness.machine('SQLAlchemy')}, SQLite {sqlite3.sqlite_version}"


def main() -> None:
    """Builds, measures, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="1,000 and 50,000 studies (PostgreSQL 10,000): 4 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--postgresql-sizes", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where the databases are made and deleted (a real disk)")
    asked = parser.parse_args()
    if asked.short:
        asked.sizes, asked.postgresql_sizes, asked.rounds = [1_000, 50_000], [1_000, 10_000], 30
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder = Path(tempfile.mkdtemp(prefix="firstread-queue-", dir=asked.folder))
    folder.chmod(0o755)
    (folder / "postgresql").mkdir()
    try:
        with postgresql(folder / "postgresql") as database:
            places = [_place("SQLite", folder / f"s{size}", size) for size in asked.sizes]
            for size in asked.postgresql_sizes if database else ():
                assert database is not None
                places.append(_place("PostgreSQL", folder / f"p{size}", size, url=database(f"year{size}")))
            for number in range(asked.rounds):
                for place in places:
                    one_study(place, number)
                if number % 4 == 0:
                    for place in places:
                        lists(place)
                        pages(place)
            for place in places:
                checked(place)
                place.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report_on(places, asked.json)


def _place(database: str, spool: Path, size: int, **sections: Any) -> Place:
    began = time.monotonic()
    place = Place(database, build(Morning.on(spool, **({"database": sections} if sections else {})), size))
    print(f"{size:,} studies written into {database} in {time.monotonic() - began:.0f} s", flush=True)
    return place


def report_on(places: list[Place], target: Path | None) -> None:
    """The tables and the last line."""
    others = [name for name in places[0].measured if name not in TRANSITIONS]
    print(machine())
    print("milliseconds: least / median / most; claims and transitions with their commit\n")
    table(places, list(TRANSITIONS))
    print()
    table(places, others)
    sqlite = [place for place in places if place.database == "SQLite"]
    small, large = min(sqlite, key=_size), max(sqlite, key=_size)
    ratios = {name: small.median(name) / large.median(name) for name in TRANSITIONS}
    worst = min(ratios, key=lambda name: ratios[name])
    slow = [
        f"{name} {place.median(name):.0f} ms at {place.year.studies:,} ({place.database})"
        for place in places for name in others
        if name != "count: everything" and place.median(name) > LIMIT_MS
    ]  # fmt: skip
    print(f"\nlists and pages above {LIMIT_MS:.0f} ms (median): {'; '.join(slow) or 'none'}")
    print(f"worst of claims and transitions: {worst}")
    if target is not None:
        figures = [
            {"database": place.database, "studies": place.year.studies, "milliseconds": place.measured}
            for place in places
        ]
        target.write_text(json.dumps({"machine": machine(), "ratios": ratios, "figures": figures}, indent=1))
    print(f"ratio: {ratios[worst]:.2f}")


def _size(place: Place) -> int:
    return place.year.studies


if __name__ == "__main__":
    main()
