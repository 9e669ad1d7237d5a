"""After a kill the next start compares spool and database: what lies between rename and commit is set aside."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.faults import oracle
from tests.faults.rig import Rig
from tests.faults.senders import Films, Scanner
from tests.system.agent import wait_for


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_film_killed_between_rename_and_commit_is_set_aside_at_the_next_start_and_sent_again(
    end: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    films = Films(Random(21))
    sent = [films.film(films.uid())]
    rig = Rig(tmp_path, tiny_bundle)
    try:
        rig.start()
        rig.crash_at("film-placed", 1)
        Scanner(rig.agent.dicom_port, sent).run()
        assert not rig.order.exists(), "the receiver was killed there"
        assert len(list((rig.spool / "films").rglob("*.dcm"))) == 2
        if end == "kill":
            rig.agent.kill()
        else:
            rig.agent.stop()  # gracefully, but the receiver had died
        rig.start()
        wait_for(lambda: list((rig.spool / "unlisted").glob("films-*.dcm")), "the stray film is set aside")
        wait_for(lambda: not oracle.open_work(rig), "everything ended")
        assert len(list((rig.spool / "films").rglob("*.dcm"))) == 1
        assert oracle.findings(rig, sent) == []
    finally:
        rig.close()
