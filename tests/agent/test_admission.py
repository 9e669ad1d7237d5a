"""Under pressure the door is closed before senders have sent, and opened again by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.agent.admission import Admission
from firstread.agent.care import Care
from firstread.agent.store import watch
from firstread.agent.store.engine import StoreBusy
from tests.agent.builders import Bench, moment


def door(bench: Bench) -> tuple[Admission, list[str | None]]:
    said: list[str | None] = []
    return Admission(bench.settings, bench.store, said.append), said


def alarms(bench: Bench) -> set[str]:
    Care(bench.settings, bench.store).watch()
    with bench.store.read() as connection:
        return {one.key for one in watch.alarms(connection)}


def test_a_full_queue_refuses_new_associations_until_it_is_shorter(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool", analysis={"max_waiting": 3})
    admission, said = door(bench)
    for number in range(3):
        admission.look()
        assert said == []
        bench.receive(study=f"1.2.{number}", sop=f"1.2.{number}.1")
    admission.look()
    admission.look()
    assert said == ["queue: 3 films wait, 3 may"]
    assert "queue" in alarms(bench)
    bench.claim(moment(1.0), limit=1)
    admission.look()
    assert said[1:] == [None]
    assert "queue" not in alarms(bench)
    bench.store.close()


def test_below_the_disk_reserve_new_associations_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool", storage={"reserve_mb": 1 << 40})
    admission, said = door(bench)
    admission.look()
    assert len(said) == 1 and str(said[0]).startswith("disk: ")
    assert "disk" in alarms(bench)
    bench.store.close()


def test_a_busy_database_does_not_move_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "spool", analysis={"max_waiting": 1})
    bench.receive()
    admission, said = door(bench)
    admission.look()

    def busy() -> None:
        raise StoreBusy("held")

    monkeypatch.setattr(bench.store, "read", busy)
    admission.look()
    assert len(said) == 1 and admission.closed_because is not None
    monkeypatch.undo()
    bench.store.close()
