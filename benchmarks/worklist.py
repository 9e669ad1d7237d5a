"""The reading list under load: ordering and page for 5,000 open studies while 50 pages are open and live.

    python -m benchmarks.worklist [--short] [--json FILE] [--studies 5000] [--pages 50]

A store with that many open studies (invented, with results, over six hours) is served by a process of its own, as the
role "web" serves it. Measured: the pure ordering; a look at the whole list when nothing is known yet, and when all is;
the page over HTTP, alone and while all pages are open; and, from the commit of a new study, the time until the first
and the last of the open pages was told of it. Milliseconds: least, median, most. Every page must be told of every new
study, and the page must hold every row.

Last line, ``ratio``: 100 ms, which a list page may take, divided by the median of the page while all pages are open
(1.0 and more: within the limit). There is no peer to run beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import structlog

from benchmarks.page import fill
from benchmarks.queue import LIMIT_MS, machine
from firstread.agent import clock
from firstread.agent.store import studies
from firstread.agent.store.worklist import ensure_entry
from firstread.agent.web.app import serve
from firstread.agent.web.board import Board, longest_waits
from firstread.agent.web.rows import ordering_entry
from firstread.agent.worklist.ordering import order
from tests.agent.web_seed import Morning

WAIT_S = 60.0


def main() -> None:
    """Fills, measures, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rounds: under 2 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--studies", type=int, default=5000)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if asked.serve:
        serve_until_told(Path(asked.serve))
        return
    rounds = 5 if asked.short else 20
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="firstread-worklist-") as name:
        morning = Morning.on(Path(name) / "spool")
        fill(morning, asked.studies)
        in_this_process(morning, asked.studies, rounds, measured)
        with served(Path(name) / "spool") as port:
            pages(port, asked.studies, rounds, measured, "page, nothing else open")
            asyncio.run(live(morning, port, asked, rounds, measured))
        morning.store.close()
    print(machine())
    print(f"{asked.studies:,} open studies, {asked.pages} open pages; milliseconds: least / median / most\n")
    for what, found in measured.items():
        print(f"{what:44}{min(found):9.1f} / {statistics.median(found):.1f} / {max(found):.1f}")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"machine": machine(), "milliseconds": measured}, indent=1))
    print(f"ratio: {LIMIT_MS / statistics.median(measured['page, all pages open']):.2f}")


def in_this_process(morning: Morning, count: int, rounds: int, measured: dict[str, list[float]]) -> None:
    """The ordering and the look, without HTTP."""
    limits = longest_waits(morning.settings)
    for _ in range(rounds):
        board = Board(morning.settings, morning.store)
        with timed(measured, "look, nothing known"):
            snapshot = board.refresh()
        must(len(snapshot.rows) == count, f"{len(snapshot.rows)} rows instead of {count}")
        entries = [ordering_entry(one) for one in board._listed.values()]
        with timed(measured, "ordering alone"):
            placed = order(entries, clock.now().at, limits)
        must([one.entry.key for one in placed] == [row.id for row in snapshot.rows], "the page stands in another order")
        with timed(measured, "look, all known"):
            board.refresh()


def pages(port: int, at_least: int, rounds: int, measured: dict[str, list[float]], name: str) -> None:
    """The list page over HTTP, each time after so long that it is not the same look."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
        client.get("/")
        for _ in range(rounds):
            time.sleep(0.3)
            with timed(measured, name):
                answer = client.get("/")
            rows = len(re.findall(r'data-id="\d+"', answer.text))
            must(answer.status_code == 200 and rows >= at_least, f"the page holds {rows} rows")


async def live(morning: Morning, port: int, asked: argparse.Namespace, rounds: int, measured: Any) -> None:
    """All pages open: the page once more, and how soon everybody is told of a new study."""
    told: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(asked.pages)]
    async with contextlib.AsyncExitStack() as opened:
        for mine in told:
            await opened.enter_async_context(open_page(port, mine))
        for mine in told:
            await asyncio.wait_for(mine.get(), WAIT_S)  # the whole order, first
        for number in range(rounds):
            entry_id = await asyncio.to_thread(new_study, morning, number)
            began = time.perf_counter()
            ends = await asyncio.gather(*[until_told(mine, entry_id) for mine in told])
            measured.setdefault("new study: first page is told", []).append((min(ends) - began) * 1000)
            measured.setdefault("new study: last page is told", []).append((max(ends) - began) * 1000)
        await asyncio.to_thread(pages, port, asked.studies + rounds, rounds, measured, "page, all pages open")


@asynccontextmanager
async def open_page(port: int, told: asyncio.Queue[str]) -> AsyncIterator[None]:
    """One browser's live connection; what it is sent of the list goes into ``told``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    writer.write(f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())

    async def read() -> None:
        kind = ""
        while line := (await reader.readline()).decode().strip("\r\n"):
            pass  # the head
        while line := (await reader.readline()).decode():
            if line.startswith("event: "):
                kind = line[7:].strip()
            elif line.startswith("data: ") and kind == "list":
                told.put_nowait(line)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        writer.close()


async def until_told(told: asyncio.Queue[str], entry_id: int) -> float:
    """When the page heard of the entry."""
    wanted = re.compile(rf"\b{entry_id}\b")
    while True:
        message = await asyncio.wait_for(told.get(), WAIT_S)
        if wanted.search(message):
            return time.perf_counter()


def new_study(morning: Morning, number: int) -> int:
    """A film arrives; answers with its entry once that is committed."""
    morning.count += 1
    identity, now = morning.identity(f"NEW{number:03d}^STUDY"), clock.now()
    with morning.store.write() as connection:
        studies.create(connection, identity, "CR", None, now)
        return ensure_entry(connection, identity, now.at)


@contextmanager
def served(spool: Path) -> Iterator[int]:
    """The page on a free port, in a process of its own."""
    program = [sys.executable, "-m", "benchmarks.worklist", "--serve", str(spool)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate("\n")


def serve_until_told(spool: Path) -> None:
    """Serves until a line comes in."""
    morning, stop = Morning.on(spool), threading.Event()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    print(bound.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    serve(morning.settings, morning.store, stop, bound)


@contextmanager
def timed(measured: dict[str, list[float]], name: str) -> Iterator[None]:
    """Measures the block in milliseconds."""
    began = time.perf_counter()
    yield
    measured.setdefault(name, []).append((time.perf_counter() - began) * 1000)


def must(holds: bool, otherwise: str) -> None:
    """Ends without a figure where a result is wrong."""
    if not holds:
        sys.exit(f"no figures: {otherwise}")


if __name__ == "__main__":
    main()
