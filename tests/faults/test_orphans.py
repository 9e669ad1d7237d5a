"""Nothing outlives the supervisor: a role that did would hold the port, and the next agent would be refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.rig import Rig
from tests.system.agent import wait_for


@pytest.mark.slow
def test_roles_that_were_frozen_when_their_supervisor_died_end_when_they_thaw(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    rig = Rig(tmp_path, tiny_bundle)
    try:
        rig.start()
        frozen = [
            wait_for(lambda role=role: rig.signal_role(role, signal.SIGSTOP), f"{role} is frozen")
            for role in ("receive", "deliver", "studies")
        ]
        rig.kill_supervisor()
        for process in frozen:
            process.send_signal(signal.SIGCONT)
        wait_for(lambda: not rig.orphans(), "every role has ended", 30)
        rig.start()
    finally:
        rig.close()
