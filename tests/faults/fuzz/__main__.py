"""The command: hostile input at every edge until the time or the inputs are over.

    python -m tests.faults.fuzz --seconds 60 --seed 1
    python -m tests.faults.fuzz --inputs 100000 --seconds 3600 --json fuzz.json
    python -m tests.faults.fuzz --replay FILE          # an input that was kept

Exit code 0 only when nothing was found. After each batch every role must be the process that it was, well-formed work
must be answered within 5 s, and at the end memory must be back within 100 MB. What broke something is kept as a file.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import structlog

from tests.faults.fuzz.run import replay, run


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edge", action="append", help="this edge alone; may be repeated")
    parser.add_argument("--json", type=Path, help="write the log here")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for what broke something")
    parser.add_argument("--replay", type=Path, help="try an input that was kept")
    asked = parser.parse_args()
    # Our own clients and readers speak of what is thrown at them; the agent's roles are other processes.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = Path(tempfile.mkdtemp(prefix="firstread-fuzz-"))
    try:
        if asked.replay is not None:
            log = replay(folder, asked.replay)
        else:
            log = run(folder, asked.seconds, asked.inputs, asked.seed, asked.edge, asked.keep, say=_say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps(log, indent=1))
    return 1 if log["findings"] else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
