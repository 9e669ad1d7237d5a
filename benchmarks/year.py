"""Years of studies, written straight into a database: what queue and page are measured on.

    python -m benchmarks.year --studies 500000 --folder FOLDER

One study is taken through the store's own transitions first; every row of the year is a copy of one of its rows with
other identifiers and times, so that sizes are real: predictions, evidence, assessments, messages, the trail. A study
has a film (every fourth has two), a result with report, heat map and message, four deliveries and ten events; its
films go after 30 days, its place on the list after 180. Files are not written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, create_engine, func, select, text

from firstread.agent.store.tables import artifact, delivery, entry, event, instance, message, result, study
from tests.agent.web_seed import Morning

DAYS, FILM_DAYS, LIST_DAYS = 365, 30, 180
OPEN = 200
"""So many studies stand on the reading list still, whatever the size of the year."""

EVENTS = (
    "received", "claimed", "image analysed", "analysed", "list result", "delivery delivered", "delivery delivered",
    "delivery delivered", "delivery delivered", "list reported",
)  # fmt: skip

FILLED = (study, instance, result, artifact, delivery, event, entry)


@dataclass(frozen=True)
class Year:
    """A store with studies 1 to ``studies``, spread evenly over a year that ends now."""

    morning: Morning
    studies: int

    def uid(self, number: int) -> str:
        """Study Instance UID of a study."""
        return f"2.25.999{number}"

    def listed(self) -> int:
        """How many studies the reading list still knows."""
        return self.studies - first_listed(self.studies) + 1


def first_listed(studies: int) -> int:
    """The oldest study that the reading list still knows."""
    return max(1, studies - studies * LIST_DAYS // DAYS)


def build(morning: Morning, studies: int) -> Year:
    """Fills a fresh store."""
    morning.read("DOE^JANE", 30, in_full=True, found={"Effusion": 0.66, "Mass": 0.6}, accession_number="PATTERN")
    with morning.store.write() as connection:
        pattern = {
            table.name: connection.execute(select(table).order_by(table.c.id)).mappings().all() for table in FILLED
        }
        for table in reversed(FILLED):
            connection.execute(table.delete())
    morning.store.close()
    engine = create_engine(morning.store.url)
    with engine.connect() as connection:
        if morning.store.is_sqlite:
            # One transaction: in the write-ahead log it would need the disk twice.
            for pragma in ("journal_mode = DELETE", "synchronous = OFF", "cache_size = -400000"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        _Writer(morning, studies, connection).fill(pattern)
        connection.commit()
    if not morning.store.is_sqlite:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum has done over the year
    engine.dispose()
    return Year(morning, studies)


class _Writer:
    """One INSERT ... SELECT from a series of numbers for each table. Expressions are SQL in the number ``n``."""

    def __init__(self, morning: Morning, studies: int, connection: Connection) -> None:
        self._sqlite = morning.store.is_sqlite
        self._studies = studies
        self._connection = connection
        self._start = int((morning.now.at - timedelta(days=DAYS, minutes=30)).timestamp())

    def fill(self, pattern: Mapping[str, Any]) -> None:
        """Every table."""
        count = self._studies
        first_entry = first_listed(count)
        was = pattern["study"][0]["study_instance_uid"]

        identity = f"replace(replace(CAST(:identity AS TEXT), '{was}', '2.25.999' || n), 'PATTERN', 'Y' || n)"
        identity = identity if self._sqlite else f"CAST({identity} AS JSON)"

        at, later = self._at("n"), self._at("n", 20)
        self._insert(
            study, pattern["study"][0], count,
            id="n", study_instance_uid="'2.25.999' || n", identity=identity,
            accession_number="'Y' || n", patient_id="'P' || (n / 3)", study_date=self._day("n"),
            station="'XR' || (n % 5)", state="CASE WHEN n % 12 = 0 THEN 'not_analysed' ELSE 'analysed' END",
            reason_code="CASE WHEN n % 12 = 0 THEN 'lateral-view' END",
            received_at=at, opened_at=at, touched_at=at, ended_at=later,
        )  # fmt: skip
        of_film = "((n * 4 + 4) / 5)"
        gone = f"{of_film} <= {count * (DAYS - FILM_DAYS) // DAYS}"
        self._insert(
            instance, pattern["instance"][0], count * 5 // 4,
            id="n", study_id=of_film, sop_instance_uid="'2.25.888' || n",
            path=f"CASE WHEN {gone} THEN '' ELSE 'films/aa/' || n END",
            preview_path=f"CASE WHEN {gone} THEN NULL ELSE 'previews/aa/' || n END",
            received_at=self._at(of_film), ended_at=self._at(of_film, 5),
        )  # fmt: skip
        self._insert(
            result, pattern["result"][0], count,
            id="n", study_id="n", created_at=later, identity=identity,
        )  # fmt: skip
        kinds = [row["kind"] for row in pattern["artifact"]]
        for place, row in enumerate(pattern["artifact"], 1 - len(kinds)):
            key = f"n * {len(kinds)} + {place}"
            self._insert(artifact, row, count, id=key, result_id="n", identity=f"'2.25.999' || n || '.{row['kind']}'")
        sent = pattern["delivery"]
        for place, row in enumerate(sent, 1 - len(sent)):
            of_kind = kinds.index(row["kind"]) + 1 - len(kinds)
            self._insert(
                delivery, row, count,
                id=f"n * {len(sent)} + {place}", result_id="n", study_id="n",
                artifact_id=f"n * {len(kinds)} + {of_kind}",
                state="CASE WHEN n % 1000 = 0 THEN 'rejected' ELSE 'delivered' END", attempts="1", lease_owner="NULL",
                created_at=later, due_at=later, ended_at=self._at("n", 22), status="'0000'", detail="''",
            )  # fmt: skip
        known = {row["kind"]: row for row in pattern["event"]}
        for place, kind in enumerate(EVENTS, 1 - len(EVENTS)):
            self._insert(
                event, known.get(kind, pattern["event"][-1]), count,
                id=f"n * {len(EVENTS)} + {place}", kind=f"'{kind}'", at=later, study_id="n",
                entry_id="n" if kind.startswith("list ") else "NULL",
            )  # fmt: skip
        over = f"n <= {count - OPEN}"
        self._insert(
            entry, pattern["worklist_entry"][0], count, first_entry,
            id="n", study_instance_uid="'2.25.999' || n", identity=identity,
            accession_number="'Y' || n", placer_order_number="'PL' || n",
            state=f"CASE WHEN {over} THEN 'reported' ELSE 'open' END",
            ended_at=f"CASE WHEN {over} THEN {self._at('n', 1800)} END", ended_by=f"CASE WHEN {over} THEN 'RIS' END",
            arrived_at=at, updated_at=later, result_at=later,
        )  # fmt: skip
        told = {"sender": "RIS", "kind": "ORM 0123456789abcdef", "answer": b"MSH|^~\\&|" + b"x" * 200}
        self._insert(message, told, count, first_entry, id="n", control_id="'M' || n", received_at=at)
        if not self._sqlite:
            for table in (*FILLED, message):
                highest = select(func.max(table.c.id)).scalar_subquery()
                self._connection.execute(select(func.setval(f"{table.name}_id_seq", highest)))

    def _insert(self, table: Table, pattern: Mapping[str, Any], last: int, first: int = 1, **expressions: str) -> None:
        """Rows ``first`` to ``last``: the pattern's columns, but for ``expressions``."""
        columns = [column for column in table.columns if column.name in pattern or column.name in expressions]
        chosen = ", ".join(expressions.get(column.name, f":{column.name}") for column in columns)
        names = ", ".join(f'"{column.name}"' for column in columns)
        if self._sqlite:
            series = (
                f"WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last}) "
            )
            source = "series"
        else:
            series, source = "", f"generate_series({first}, {last}) AS series(n)"
        statement = text(f"{series}INSERT INTO {table.name} ({names}) SELECT {chosen} FROM {source}")
        used = [column for column in columns if column.name in statement._bindparams]
        values = [bindparam(column.name, pattern[column.name], column.type) for column in used]
        self._connection.execute(statement.bindparams(*values))

    def _at(self, n: str, plus_s: int = 0) -> str:
        """When study ``n`` came, and so many seconds later."""
        seconds = self._seconds(n, plus_s)
        if self._sqlite:
            return f"strftime('%Y-%m-%d %H\\:%M\\:%S.000000', {seconds}, 'unixepoch')"
        return f"timezone('UTC', to_timestamp({seconds}))"

    def _day(self, n: str) -> str:
        if self._sqlite:
            return f"strftime('%Y%m%d', {self._seconds(n)}, 'unixepoch')"
        return f"to_char({self._at(n)}, 'YYYYMMDD')"

    def _seconds(self, n: str, plus_s: int = 0) -> str:
        return f"{self._start} + CAST({n} * {DAYS * 86400 / self._studies!r} AS INTEGER) + {plus_s}"


def main() -> None:
    """Writes a year into a folder, to look at by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, required=True, help="new folder: it becomes a [storage] path")
    parser.add_argument("--url", help="an empty database elsewhere (PostgreSQL)")
    asked = parser.parse_args()
    began = time.monotonic()
    year = build(Morning.on(asked.folder, **({"database": {"url": asked.url}} if asked.url else {})), asked.studies)
    print(f"{asked.studies} studies in {time.monotonic() - began:.0f} s: {year.morning.settings.database_url}")


if __name__ == "__main__":
    main()
