"""How fast the reading list is: to make, to render, to paint in a browser, to scroll.

    python -m benchmarks.page [--studies 200 2000]

Fills a temporary store with invented studies, serves it on 127.0.0.1 and looks at it with chromium. Prints machine,
date and figures; medians of several looks.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update

from firstread.agent.store import studies
from firstread.agent.store.tables import StudyState, study
from firstread.agent.store.worklist import ListedResult, apply_result, ensure_entry
from firstread.agent.store.worklist_match import Match
from firstread.agent.web.board import Board
from firstread.agent.web.pages import Pages
from firstread.models.findings import LABELS
from firstread.models.prediction import FindingResult, Priority
from tests.agent.web_seed import ASKS, MODEL, Morning
from tests.system.page_server import CHROMIUM_FLAGS, served

LOOKS = 7


def fill(morning: Morning, count: int) -> None:
    """``count`` studies with results, spread over six hours."""
    rng = random.Random(1)
    with morning.store.write() as connection:
        for number in range(count):
            morning.count += 1
            identity = morning.identity(f"FAMILY{number:04d}^GIVEN", sex=rng.choice("MF"), patient_age_years=60.0)
            when = morning.at(rng.uniform(1, 360))
            studies.create(connection, identity, "CR", None, when)
            ensure_entry(connection, identity, when.at)
            raw = [FindingResult(label, round(rng.random() ** 3, 4), 0.55) for label in LABELS]
            found = tuple(replace(one, present=(one.probability or 0) >= 0.55) for one in raw)
            asked = max(
                (ASKS.get(one.label, Priority.ROUTINE) for one in found if one.present), default=Priority.ROUTINE
            )
            causes = tuple(one.label for one in found if one.present and ASKS.get(one.label) == asked)
            result = ListedResult(
                priority=asked if asked > Priority.ROUTINE else None,
                causes=causes,
                findings=found,
                model=MODEL,
                revision=1,
            )
            apply_result(connection, Match(identity.study_instance_uid), identity, result, when, "benchmark")
        connection.execute(update(study).values(state=StudyState.ANALYSED))


def measured(do: Callable[[], Any]) -> float:
    """Median seconds of several runs."""
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        do()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def painted(page: Any, address: str) -> tuple[float, float]:
    """Median milliseconds to the first byte and to the first paint."""
    first_byte, first_paint = [], []
    for _ in range(LOOKS):
        page.goto(address)
        page.wait_for_timeout(600)
        sent, paint = page.evaluate(
            "() => [performance.getEntriesByType('navigation')[0].responseStart,"
            " performance.getEntriesByName('first-contentful-paint')[0].startTime]"
        )
        first_byte.append(sent)
        first_paint.append(paint)
    return statistics.median(first_byte), statistics.median(first_paint)


def scrolled(page: Any) -> tuple[float, float]:
    """Median and 90th percentile of milliseconds between frames while the list scrolls."""
    frames = page.evaluate(
        """async () => {
            const list = document.getElementById("list"), took = [];
            let last = await new Promise(requestAnimationFrame);
            for (let step = 0; step < 120; step += 1) {
                list.scrollTop += 200;
                const now = await new Promise(requestAnimationFrame);
                took.push(now - last);
                last = now;
            }
            return took.sort((a, b) => a - b);
        }"""
    )
    return frames[len(frames) // 2], frames[int(len(frames) * 0.9)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=[200, 2000])
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {datetime.now(UTC):%Y-%m-%d}")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS))
        for count in asked.studies:
            with tempfile.TemporaryDirectory() as folder:
                morning = Morning.on(Path(folder) / "spool")
                fill(morning, count)
                board, pages = Board(morning.settings, morning.store), Pages("benchmark", "")
                snapshot = board.current()
                look_s = measured(board.refresh)
                render_s = measured(lambda pages=pages, snapshot=snapshot: pages.rows(snapshot.rows, snapshot.at))
                with served(morning) as server:
                    page = browser.new_page(viewport={"width": 1920, "height": 1080})
                    first_byte, first_paint = painted(page, server.address)
                    middle, slow = scrolled(page)
                    page.close()
                morning.store.close()
            print(
                f"{count} studies: look {look_s * 1000:.0f} ms, render {render_s * 1000:.0f} ms, "
                f"first byte {first_byte:.0f} ms, first paint {first_paint:.0f} ms, "
                f"scrolling a frame each {middle:.0f} ms, 9 in 10 within {slow:.0f} ms"
            )
        browser.close()


if __name__ == "__main__":
    main()
