"""What a running agent keeps is for its own user alone, whatever umask it was started under."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from tests.peers import require_peer
from tests.system.agent import Agent, wait_for
from tests.system.films import film, write


def open_to_others(top: Path) -> list[str]:
    """Everything in a folder, and the folder, that group or others may read, write or enter."""
    found = [path for path in (top, *top.rglob("*")) if not path.is_symlink()]
    return [f"{stat.S_IMODE(path.stat().st_mode):o} {path}" for path in found if path.stat().st_mode & 0o077]


def test_spool_database_log_of_writes_and_backup_are_for_their_owner(tmp_path: Path, tiny_bundle: Path) -> None:
    storescu = require_peer("storescu")
    agent = Agent(tmp_path / "agent", bundle=tiny_bundle)
    agent.spool.mkdir(parents=True)
    agent.spool.chmod(0o777)
    agent.choose_engine()
    for path in agent.spool.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(0o000)
    try:
        agent.start()
        (path,) = write(tmp_path, film())
        address = ["-aec", "FIRSTREAD", "localhost", str(agent.dicom_port), str(path)]
        subprocess.run([storescu, *address], check=True, capture_output=True, timeout=60)
        spool = agent.spool
        wait_for(lambda: list(spool.rglob("*.dcm")), "the film is kept")
        names = {one.name for one in spool.rglob("*")}
        assert any(name.endswith("-wal") for name in names), sorted(names)
        assert open_to_others(spool) == []
        backup = tmp_path / "backup"
        agent.run("backup", str(backup))
        assert open_to_others(backup) == []
    finally:
        os.umask(before)
        agent.stop()
