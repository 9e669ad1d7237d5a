"""Under pressure senders are told to come back, and when they do they are served."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import pytest

from tests.faults import oracle
from tests.faults.rig import Rig
from tests.faults.senders import Films, Scanner
from tests.system.agent import wait_for


@pytest.mark.slow
def test_behind_a_full_queue_senders_are_rejected_for_the_moment_and_served_later(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    films = Films(Random(11))
    first = [films.film(films.uid()) for _ in range(2)]
    waiting = [films.film(films.uid())]
    rig = Rig(tmp_path, tiny_bundle, analysis={"max_waiting": 2})
    try:
        rig.start()
        analyser = wait_for(lambda: rig.signal_role("analyse", signal.SIGSTOP), "the analyser is held up")
        Scanner(rig.agent.dicom_port, first).run()
        wait_for(lambda: not rig.receives, "new associations are refused")
        patient = Scanner(rig.agent.dicom_port, waiting)
        patient.start()
        alarm = wait_for(lambda: rig.agent.alarms().get("queue"), "the alarm stands")
        assert "analyser" in alarm.remedy
        assert "queue" in str(rig.agent.health())
        wait_for(lambda: "firstread_refusing_associations 1.0" in rig.agent.metrics(), "the metrics tell of it")
        assert "new associations are refused" in rig.agent.log.read_text()
        assert not waiting[0].acknowledged
        analyser.send_signal(signal.SIGCONT)
        patient.join(60)
        assert waiting[0].acknowledged
        assert any(answer == "association: PDU 3" for _, answer in waiting[0].told)
        wait_for(lambda: not oracle.open_work(rig), "everything ended")
        assert oracle.findings(rig, first + waiting) == []
        wait_for(lambda: "queue" not in rig.agent.alarms(), "the alarm is gone")
    finally:
        rig.close()


@pytest.mark.slow
def test_a_full_disk_refuses_films_and_takes_them_when_there_is_room(tmp_path: Path, tiny_bundle: Path) -> None:
    films = Films(Random(12))
    sent = [films.film(films.uid()) for _ in range(2)]
    rig = Rig(tmp_path, tiny_bundle)
    try:
        if not rig.disk:
            pytest.skip("filling a disk needs leave to mount a tmpfs")
        rig.start()
        rig.fill_disk()
        patient = Scanner(rig.agent.dicom_port, sent)
        patient.start()
        wait_for(lambda: sent[0].told, "the sender was told something")
        assert not sent[0].acknowledged
        rig.free_disk()
        patient.join(60)
        wait_for(lambda: not oracle.open_work(rig), "everything ended")
        assert oracle.findings(rig, sent) == []
    finally:
        rig.close()
