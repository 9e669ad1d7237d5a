"""A bench whose clock is moved by hand, with summing up and care: for tests of what happens over days."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.agent import clock
from firstread.agent.care import Care
from firstread.agent.objects import ResultObjects
from firstread.agent.store import deliveries, studies, watch
from firstread.agent.studies import SummingUp
from tests.agent.builders import Bench, moment

DAY = 86400.0


class Ward(Bench):
    """A bench whose clock is moved by hand, with what is looked after."""

    def __init__(self, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, **sections: object) -> None:
        self._patch = monkeypatch
        self.at(0)
        super().__init__(folder, None, bundle, **sections)
        self.care = Care(self.settings, self.store)
        self.summing_up = SummingUp(self.settings, self.store, ResultObjects(self.settings, self.store, self.site_uid))

    def at(self, seconds: float) -> None:
        self._patch.setattr(clock, "now", lambda: moment(seconds))

    def ended_study(self, uid: str, seconds: float = 0, **probabilities: float) -> Path:
        """A study is received, analysed and summed up; answers with its film's file."""
        self.at(seconds)
        self.receive(study=uid)
        for claim in self.claim(moment(seconds)):
            self.end_analysed(claim, moment(seconds + 1), **probabilities)
        self.at(seconds + 20)
        assert self.summing_up.run_once() == 1
        return self.file_of(uid)

    def deliver_all(self, seconds: float = 30) -> None:
        """Every receiver says yes."""
        with self.store.write() as connection:
            for name in ("pacs", "ris"):
                while held := deliveries.claim(
                    connection, name, on_hold=False, owner="o", lease_s=60, now=moment(seconds)
                ):
                    deliveries.end_delivered(connection, held, status="0000", detail="", actor="t", now=moment(seconds))

    def file_of(self, uid: str) -> Path:
        with self.store.read() as connection:
            (image,) = studies.images_of(connection, studies.find(connection, uid).id)
        assert image.path
        return self.settings.spool / image.path

    def alarms(self) -> dict[str, watch.Alarm]:
        with self.store.read() as connection:
            return {one.key: one for one in watch.alarms(connection)}
