"""A film that kills those who read it is set aside with its reason, and the rest goes on."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.faults import oracle
from tests.faults.rig import Rig
from tests.faults.senders import Films, Scanner
from tests.system.agent import wait_for


@pytest.mark.slow
@pytest.mark.parametrize(("deadly", "words"), [("SEGV", "SIGSEGV"), ("KILL", "its analyser stopped")])
def test_a_film_that_kills_its_reader_is_set_aside_and_the_rest_goes_on(
    deadly: str, words: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    films = Films(Random(7))
    poisoned, healthy, later = films.uid(), films.uid(), films.uid()
    poison = films.film(poisoned, deadly=deadly)
    first = [films.film(healthy), poison, films.film(poisoned), films.film(healthy)]
    rig = Rig(tmp_path, tiny_bundle)
    try:
        rig.start()
        Scanner(rig.agent.dicom_port, first).run()
        ended = rig.agent.wait_ended(poisoned)
        late = [films.film(later)]
        Scanner(rig.agent.dicom_port, late).run()
        rig.agent.wait_ended(later)
        wait_for(lambda: not oracle.open_work(rig), "nothing is left to do")
        found = oracle.findings(rig, first + late)
    finally:
        rig.close()
    assert found == []
    reasons = {one["sop_instance_uid"]: one["reason"] for one in ended["image_list"]}
    assert "3 attempts" in reasons.pop(poison.sop_instance_uid)
    assert words in str(ended["image_list"])
    assert set(reasons.values()) <= {None} or "attempts" not in str(reasons.values())
    kinds = [one["what"] for one in ended["trail"]]
    assert kinds.count("attempt failed") <= 2 + (deadly == "KILL")  # its neighbour was there the first time
