"""How fast the worklist is: an event to many subscribers, a search in a long list, what an item costs a film.

    python -m benchmarks.work_items [--subscribers 50] [--events 20] [--items 20000]

Serves a temporary store on 127.0.0.1 from a process of its own, with subscribers over WebSocket in this one. An event's
time is from the moment the claim is sent until the last subscriber has read it. Prints machine, date and figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from firstread.agent import clock
from firstread.agent.config import Settings
from firstread.agent.spool import prepare
from firstread.agent.store import reading_items, studies
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import upgrade
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.ups import Json
from firstread.models.prediction import StudyIdentity
from tests.peers import free_port

JSON = {"content-type": "application/dicom+json"}


def serve_until(settings: Settings, stop: Any) -> None:
    """The page's server, in a process of its own."""
    from firstread.agent.web.app import serve

    store, ended = Store(settings.database_url), threading.Event()
    threading.Thread(target=lambda: (stop.wait(), ended.set()), daemon=True).start()
    serve(settings, store, ended)


def fill(store: Store, count: int) -> float:
    """``count`` studies with their items; answers with the milliseconds that an item takes."""
    took = 0.0
    for start in range(0, count, 500):
        with store.write() as connection:
            for number in range(start, min(start + 500, count)):
                identity = StudyIdentity(
                    f"2.25.{10**9 + number}", patient_id=f"P{number}", patient_name=f"FAMILY{number}^GIVEN",
                    accession_number=f"A{number}", study_description="Chest",
                )  # fmt: skip
                study_id = studies.create(connection, identity, "CR", None, clock.now())
                began = time.perf_counter()
                reading_items.film_came(connection, study_id, identity, None, clock.now())
                took += time.perf_counter() - began
    return took * 1000 / max(count, 1)


def searched(service: WorkItems, keys: Json, offset: int = 0) -> float:
    """Median milliseconds of a page of 50."""
    took = []
    for _ in range(7):
        began = time.perf_counter()
        service.search(keys, limit=50, offset=offset)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


async def events(address: str, subscribers: int, count: int) -> list[float]:
    """Milliseconds from a claim to the last subscriber, for each of ``count`` claims."""
    took = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as web:
        uids = [item["00080018"]["Value"][0] for item in (await web.get(f"/dicom-web/workitems?limit={count}")).json()]
        channels = []
        for number in range(subscribers):
            for uid in uids:
                answer = await web.post(f"/dicom-web/workitems/{uid}/subscribers/WS{number}")
            channels.append(await connect(answer.headers["content-location"], ping_interval=None))
        for channel in channels:
            for _ in uids:
                await channel.recv()
        await asyncio.sleep(1)
        for uid in uids:
            claim = {
                "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
                "00081195": {"vr": "UI", "Value": ["2.25.1"]},
            }
            began = time.perf_counter()
            sent = asyncio.create_task(
                web.put(f"/dicom-web/workitems/{uid}/state", content=json.dumps(claim), headers=JSON)
            )
            heard = await asyncio.gather(*(channel.recv() for channel in channels))
            took.append((time.perf_counter() - began) * 1000)
            assert all(json.loads(one)["00001000"]["Value"] == [uid] for one in heard)
            (await sent).raise_for_status()
        for channel in channels:
            await channel.close()
    return took


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--items", type=int, default=20_000)
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {datetime.now(UTC):%Y-%m-%d}")
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "spool"
        settings = Settings.model_validate(
            {"storage": {"path": str(spool), "reserve_mb": 0}, "web": {"port": free_port()}}
        )
        prepare(spool)
        store = Store(settings.database_url)
        upgrade(store)
        item_ms = fill(store, asked.items)
        print(f"an item costs a new study {item_ms:.2f} ms in its transaction")
        service = WorkItems(settings, store)
        far = searched(service, {}, offset=asked.items - 60)
        name: Json = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": f"FAMILY{asked.items - 1}*"}]}}
        patient: Json = {"00100020": {"vr": "LO", "Value": [f"P{asked.items // 2}"]}}
        near, by_patient, by_name = searched(service, {}), searched(service, patient), searched(service, name)
        print(f"{asked.items} items, a page of 50: the first {near:.0f} ms, the last {far:.0f} ms")
        print(f"by a patient's identifier {by_patient:.0f} ms, by part of a name {by_name:.0f} ms")
        stop = multiprocessing.get_context("spawn").Event()
        server = multiprocessing.get_context("spawn").Process(target=serve_until, args=(settings, stop))
        server.start()
        address = f"http://127.0.0.1:{settings.web.port}"
        _wait(address)
        try:
            took = asyncio.run(events(address, asked.subscribers, asked.events))
        finally:
            stop.set()
            server.join(20)
            store.close()
    print(
        f"{asked.subscribers} subscribers, {len(took)} claims: the last one hears after "
        f"{statistics.median(took):.0f} ms (median), {max(took):.0f} ms (worst)"
    )


def _wait(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/ready", timeout=5).status_code in (200, 503):
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
