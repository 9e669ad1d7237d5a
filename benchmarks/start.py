"""Start: from the command to help, to the first film taken, to the first model that may report; beside Orthanc.

    python -m benchmarks.start [--short] [--rounds N] [--json FILE]

- import: ``import firstread.agent.cli`` in a fresh interpreter;
- help: ``firstread --help``;
- receives: from ``firstread run`` on an existing spool until C-ECHO is answered; Orthanc the same, with its index;
- analyses: until a film that was sent as soon as it could be has been through the model.

Seconds; bytecode is compiled before the first round. ``firstread --help`` and the receiver must not load torch.

Last line, ``ratio``: Orthanc's time until it answers C-ECHO, divided by ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.harness import Measured, arguments, program, report, require, rounds
from firstread.models.bundle import reference_bundle
from firstread.models.phantoms.film import to_dicom
from firstread.models.phantoms.training_set import training_spec
from tests.peers import free_port
from tests.system.agent import Agent, environment
from tests.system.orthanc import Orthanc

WAIT_S = 120.0
ANALYSED = "batch analysed"


def timed(*command: str) -> Mapping[str, float]:
    """Seconds of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    took = time.perf_counter() - began
    require(done.returncode == 0, f"{command[-1]}: {done.stderr[-300:]}")
    return {"s": took}


def help_loads_nothing_heavy() -> None:
    """Raises WrongResult when help needs torch, pydicom or the database."""
    code = (
        "import sys; sys.argv = ['firstread', '--help']\n"
        "from firstread.agent.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join({'torch', 'pydicom', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    require(not done.stderr, f"help loads {done.stderr}")


def answers_echo(port: int, since: float, who: str) -> float:
    """Seconds until C-ECHO is answered."""
    echo = program("echoscu", "dcmtk")
    while time.perf_counter() - since < WAIT_S:
        asked = [echo, "-q", "-aec", who, "127.0.0.1", str(port)]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return time.perf_counter() - since
    require(False, f"{who} does not answer")
    return WAIT_S


def ours(agent: Agent, film: Path) -> Mapping[str, float]:
    """Starts the agent, sends a film, waits for both, checks what the receiver has loaded, and ends it."""
    began = time.perf_counter()
    agent.start(ready=False)
    try:
        receives = answers_echo(agent.dicom_port, began, "FIRSTREAD")
        seen = agent.log.read_text().count(ANALYSED)
        sent = [program("storescu", "dcmtk"), "-q", "+II", "+IR", "1", "+IS", "1", "-aec", "FIRSTREAD"]
        subprocess.run([*sent, "127.0.0.1", str(agent.dicom_port), str(film)], check=True)
        while agent.log.read_text().count(ANALYSED) == seen:
            require(time.perf_counter() - began < WAIT_S, "nothing is analysed")
            time.sleep(0.02)
        analyses = time.perf_counter() - began
        for one in psutil.Process(agent.process.pid).children(recursive=True) if agent.process else ():
            if "receive" in one.cmdline():
                require(not any("libtorch" in part.path for part in one.memory_maps()), "the receiver loads torch")
    finally:
        agent.stop()
    return {"receives s": receives, "analyses s": analyses}


def orthanc(folder: Path) -> Mapping[str, float]:
    """Starts Orthanc on a fresh index."""
    program("Orthanc", "orthanc")
    peer = Orthanc(Path(tempfile.mkdtemp(dir=folder)) / "orthanc")
    began = time.perf_counter()
    peer.start(free_port())
    try:
        return {"receives s": answers_echo(peer.dicom_port, began, "ORTHANC")}
    finally:
        peer.stop()


def main() -> None:
    """Measures, checks, prints."""
    asked = arguments(__doc__).parse_args()
    count = asked.rounds or (3 if asked.short else 7)
    help_loads_nothing_heavy()
    with tempfile.TemporaryDirectory(prefix="firstread-start-") as name:
        film = Path(name) / "film.dcm"
        to_dicom(training_spec(1, 5, (2048, 2048))).save_as(film, enforce_file_format=True)
        agent = Agent(Path(name) / "agent", bundle=reference_bundle())
        ours(agent, film)  # makes spool, database and bytecode
        mine = Measured("start", "ours", lambda: ours(agent, film))
        theirs = Measured("start", "Orthanc", lambda: orthanc(Path(name)))
        rows = [
            Measured("import", "ours", lambda: timed(sys.executable, "-c", "import firstread.agent.cli")),
            Measured("--help", "ours", lambda: timed(sys.executable, "-m", "firstread.agent.cli", "--help")),
            mine,
            theirs,
        ]
        rounds(rows, count)
    report(rows, lambda: theirs.median("receives s") / mine.median("receives s"), file=asked.json)


if __name__ == "__main__":
    main()
