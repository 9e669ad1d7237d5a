"""What every benchmark beside peers shares: contenders in turn, several times, a table, what machine, and one ratio.

A benchmark is a list of :class:`Measured` cases. Each case is played by its contenders one after the other, round after
round, so that what else the machine does meets all of them alike; the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


class PeerMissing(Exception):
    """A peer is not installed; the message says which one and how to get it."""


class WrongResult(Exception):
    """What a contender did is not what was asked of it: there is no figure to print."""


def program(name: str, package: str) -> str:
    """Path of a peer's program. Raises PeerMissing."""
    from tests.peers import peer_program

    found = peer_program(name)
    if found is None:
        raise PeerMissing(f"{name} is missing: apt-get install {package}")
    return found


def require(there: bool, what: str) -> None:
    """Raises WrongResult with ``what`` unless it is there."""
    if not there:
        raise WrongResult(what)


@dataclass
class Measured:
    """One row of the table: what one contender needed for one case.

    ``play`` does it once, checks its own result, and answers with figures by name (``films/s``, ``CPU s a film``).
    """

    case: str
    contender: str
    play: Callable[[], Mapping[str, float]]
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: str = ""

    def once(self) -> None:
        """One round. A peer that is not there is noted once and left out; WrongResult passes."""
        if self.missing:
            return
        try:
            for name, value in self.play().items():
                self.figures.setdefault(name, []).append(value)
        except PeerMissing as error:
            self.missing = str(error)

    def median(self, figure: str) -> float:
        """Median of the rounds. Raises PeerMissing when it was never measured."""
        if not self.figures.get(figure):
            raise PeerMissing(self.missing or f"{self.contender} gave no {figure} for {self.case}")
        return statistics.median(self.figures[figure])


def rounds(rows: Sequence[Measured], count: int, *, say: Callable[[str], None] | None = None) -> None:
    """Plays all rows in turn, ``count`` times; every other round backwards, so that nobody is always first."""
    for number in range(count):
        for row in rows if number % 2 == 0 else reversed(rows):
            if say is not None:
                say(f"round {number + 1} of {count}: {row.case}, {row.contender}")
            row.once()


def table(rows: Sequence[Measured]) -> str:
    """Markdown: for each case and contender least / median / most of every figure."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = ["| case | who | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        if row.missing:
            cells = [row.missing] + [""] * (len(names) - 1)
        else:
            cells = [_spread(row.figures.get(name, [])) for name in names]
        lines.append(f"| {row.case} | {row.contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(found: Sequence[float]) -> str:
    return " / ".join(_short(value) for value in (min(found), statistics.median(found), max(found))) if found else ""


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(*packages: str) -> str:
    """What this was measured on, with the versions of these Python packages, and how busy it was."""
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    versions = "".join(f", {name} {_version(name)}" for name in packages)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()} {model}, {os.cpu_count()} cores, {memory} GB, "
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}{versions}"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """``--short``, ``--rounds`` and ``--json``, which every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rounds and cases: under 4 minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everything is played")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    return parser


def report(
    rows: Sequence[Measured], ratio: Callable[[], float], *, packages: Sequence[str] = (), file: Path | None = None
) -> None:
    """Prints table, machine and, as last line, ``ratio: X``; no ratio, and exit status 1, when a peer is missing."""
    where = machine(*packages)
    print(f"{table(rows)}\n\n{where}\nleast / median / most")
    if file is not None:
        found = [{"case": row.case, "who": row.contender, "figures": row.figures} for row in rows]
        file.write_text(json.dumps({"machine": where, "rows": found}, indent=1) + "\n", encoding="utf-8")
    try:
        print(f"ratio: {ratio():.2f}")
    except PeerMissing as error:
        print(f"no ratio: {error}", file=sys.stderr)
        sys.exit(1)
