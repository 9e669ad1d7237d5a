"""``firstread demo --once``: the morning of 24 films, ended by itself, with a list that real results reordered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

from tests.system.agent import environment, wait_for


@pytest.mark.slow
def test_the_demo_ends_by_itself_with_a_list_that_real_results_reordered(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "firstread.agent.cli", "demo", "--once", "--folder", str(folder)],
        capture_output=True, text=True, timeout=280, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "PROBLEM" not in done.stderr
    said = done.stdout
    assert said.index("BEFORE") < said.index("NOW") and "each came to its end and the list was reordered" in said
    assert "24 films, 21 studies" in said
    reports = [dcmread(path) for path in (folder / "pacs").rglob("sr-*.dcm")]
    assert len({one.StudyInstanceUID for one in reports}) == 21, "a report for every study"
    assert (folder / "example.hl7").read_bytes().startswith(b"MSH|")
    wait_for(lambda: not running_on(folder), "nothing of it runs on", 15)


def running_on(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this folder. One that is being taken away by the system is still listed."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
