"""The worklist over real sockets: fifty workstations listen over WebSocket while one of them reads."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from firstread.agent.owner import ROLES
from firstread.agent.role_book import RoleBook
from firstread.integration.dicom.ups import GLOBAL
from tests.agent.test_web_ups import ITEMS, JSON, MINE, House, external, kind
from tests.system.page_server import served

SUBSCRIBERS = 50
PATIENCE_S = 60


@pytest.fixture
def house(tmp_path):
    morning = House.on(tmp_path / "spool")
    yield morning
    morning.store.close()


def test_every_one_of_fifty_subscribers_hears_of_a_claim(house) -> None:
    async def listen_and_claim(address: str) -> None:
        names = [f"WS{number}" for number in range(SUBSCRIBERS)]
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as web:
            made = await web.post(f"{ITEMS}?2.25.5", content=json.dumps(external()), headers=JSON)
            assert made.status_code == 201
            channels = []
            for name in names:
                answer = await web.post(f"{ITEMS}/{GLOBAL}/subscribers/{name}")
                channels.append(await connect(answer.headers["content-location"]))
            for channel in channels:
                stands = json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S))
                assert kind(stands) == ("2.25.5", 1, "SCHEDULED")
            claim = {
                "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
                "00081195": {"vr": "UI", "Value": [MINE]},
            }
            told = await web.put(f"{ITEMS}/2.25.5/state", content=json.dumps(claim), headers=JSON)
            assert told.status_code == 200
            for channel in channels:
                heard = json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S))
                assert kind(heard) == ("2.25.5", 1, "IN PROGRESS")
            for channel in channels:
                await channel.close()

    with served(house) as server:
        asyncio.run(listen_and_claim(server.address))


def test_two_readers_who_claim_at_once_are_told_apart(house) -> None:
    async def race(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as web:
            for round_ in range(5):
                uid = f"2.25.{round_ + 1}"
                await web.post(f"{ITEMS}?{uid}", content=json.dumps(external()), headers=JSON)
                claims = [
                    web.put(
                        f"{ITEMS}/{uid}/state",
                        headers=JSON,
                        content=json.dumps(
                            {
                                "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
                                "00081195": {"vr": "UI", "Value": [f"2.25.{900 + number}"]},
                            }
                        ),
                    )
                    for number in range(8)
                ]
                codes = sorted([answer.status_code for answer in await asyncio.gather(*claims)])
                assert codes == [200] + [409] * 7

    with served(house) as server:
        asyncio.run(race(server.address))


def test_a_server_that_stops_lets_its_subscribers_go_and_they_hear_on_when_it_is_back(house) -> None:
    async def once(address: str) -> str:
        async with connect(f"{address.replace('http', 'ws')}/dicom-web/ws/subscribers/WS1") as channel:
            return json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S))["00741000"]["Value"][0]

    async def until_closed(address: str, stop) -> None:
        async with connect(f"{address.replace('http', 'ws')}/dicom-web/ws/subscribers/WS1") as channel:
            await channel.recv()
            stopping = asyncio.create_task(asyncio.to_thread(stop))
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(channel.recv(), PATIENCE_S)
            await stopping

    with served(house) as server:
        with httpx.Client(base_url=server.address, timeout=PATIENCE_S) as web:
            web.post(f"{ITEMS}?2.25.5", content=json.dumps(external()), headers=JSON)
            web.post(f"{ITEMS}/2.25.5/subscribers/WS1")
        asyncio.run(until_closed(server.address, server.stop))
        server.start()
        assert asyncio.run(once(server.address)) == "SCHEDULED"


def test_global_subscribers_hear_that_the_server_goes_down_and_is_back(house) -> None:
    book = RoleBook(house.settings)

    def status(report: dict) -> tuple:
        assert (report["00001000"]["Value"], report["00001002"]["Value"]) == ([GLOBAL], [4])
        return tuple(report[tag]["Value"][0] for tag in ("00741242", "00741244", "00741246") if tag in report)

    async def until_closed(address: str, stop) -> None:
        async with channel_of(address, "WS1") as everything, channel_of(address, "WS2") as one_item:
            for channel in (everything, one_item):
                assert kind(json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S)))[1:] == (1, "SCHEDULED")
            book.going_down()
            stopping = asyncio.create_task(asyncio.to_thread(stop))
            assert status(json.loads(await asyncio.wait_for(everything.recv(), PATIENCE_S))) == ("GOING DOWN",)
            for channel in (everything, one_item):
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(channel.recv(), PATIENCE_S)
            await stopping

    async def come_back(address: str) -> None:
        async with channel_of(address, "WS1") as channel:
            heard = json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S))
            assert status(heard) == ("RESTARTED", "WARM START", "WARM START")
            assert kind(json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S)))[1:] == (1, "SCHEDULED")
        for told_already in ("WS1", "WS2"):
            async with channel_of(address, told_already) as channel:
                assert kind(json.loads(await asyncio.wait_for(channel.recv(), PATIENCE_S)))[1:] == (1, "SCHEDULED")

    try:
        with served(house) as server:
            with httpx.Client(base_url=server.address, timeout=PATIENCE_S) as web:
                web.post(f"{ITEMS}?2.25.5", content=json.dumps(external()), headers=JSON)
                assert web.post(f"{ITEMS}/{GLOBAL}/subscribers/WS1").status_code == 201
                assert web.post(f"{ITEMS}/2.25.5/subscribers/WS2").status_code == 201
            asyncio.run(until_closed(server.address, server.stop))
            book.begin(ROLES)
            server.start()
            asyncio.run(come_back(server.address))
    finally:
        book.close()


def channel_of(address: str, ae_title: str):
    return connect(f"{address.replace('http', 'ws')}/dicom-web/ws/subscribers/{ae_title}")


def test_another_site_gets_no_channel_over_a_real_socket(house) -> None:
    async def knock(address: str) -> int:
        try:
            async with connect(
                f"{address.replace('http', 'ws')}/dicom-web/ws/subscribers/WS1", origin="https://evil.example"
            ):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    with served(house) as server:
        assert asyncio.run(knock(server.address)) == 403
