"""Where the time of one film goes, as two pictures from a real run: a waterfall and a flame graph.

    python -m benchmarks.waterfall [--folder docs/pictures] [--films 40] [--seconds 20]

The agent with its peers as in ``benchmarks.end_to_end``. The waterfall is the film of median latency among single
ones, sent one after the other to an idle agent: its trail, with the modality's and the RIS's own clock readings. The
flame graph is of all roles and their decoders while a burst is worked off: each role as wide as the CPU seconds that
the kernel counted, divided within by the samples of py-spy, 100 a second (``pip install py-spy``). What only waits is
left out, and so are boxes too narrow to see.
"""

from __future__ import annotations

import argparse
import html
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.end_to_end import QUIET_PERIOD_S, Ward, ward, write_film
from benchmarks.harness import machine, program, require

WIDTH, BAR = 1200, 17
LEAST_SHARE = 0.004
"""Of all samples: narrower boxes of the flame graph are left out."""
DEEPEST = 40
COLOURS = ("#e4572e", "#f0803c", "#f3a712", "#d9b44a", "#c98c5a", "#e07a5f")
_WAITING = re.compile(
    r"^(wait|_wait_for_tstate_lock|_worker|select|poll|_poll|look|get|accept|wait_for|recv_into|run_reactor|_watch_clock|"
    r"_wait_for|serve_forever|_recv|_tend|_main_loop|flock)\b"
)
"""Leaves in which a thread waits, however py-spy judges it."""
_ROLE = re.compile(r"role_process (\w+)")


def main() -> None:
    """Makes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=20)
    asked = parser.parse_args()
    spy = program("py-spy", "nothing: pip install py-spy")
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_film(folder / "film.dcm", 15)
        with ward(folder, folder / "film.dcm") as one:
            (asked.folder / "waterfall.svg").write_text(waterfall(one), encoding="utf-8")
            samples = sampled(one, spy, folder / "samples.txt", asked.films, asked.seconds)
    (asked.folder / "flame.svg").write_text(flame(samples), encoding="utf-8")
    for kind in ("waterfall", "flame"):
        print(f"{asked.folder / kind}.svg: {(asked.folder / f'{kind}.svg').stat().st_size // 1000} kB")


def waterfall(one: Ward, films: int = 9) -> str:
    """The film of median latency among so many single ones."""
    seen = [next(iter(one.send_timed([1.0]).items())) for _ in range(films)]
    study, film = sorted(seen, key=lambda pair: pair[1].acknowledged - pair[1].due)[films // 2]
    one.count_objects()
    trail = one.agent.wait_ended(study)["trail"]
    offset = time.time() - time.monotonic()

    def at(what: str, *, last: bool = False) -> float:
        found = [
            datetime.fromisoformat(step["at"]).timestamp() - offset - film.due for step in trail if step["what"] == what
        ]
        require(bool(found), f"the trail has no {what!r}: {sorted({step['what'] for step in trail})}")
        return found[-1 if last else 0]

    stored, claimed, read = film.stored - film.due, at("claimed"), at("image analysed")
    summed = at("analysed")
    acknowledged = film.acknowledged - film.due
    bars = [
        ("C-STORE: bytes, fsync, commit, Success", 0.0, stored, 0),
        ("waits for the analyser", stored, claimed, 3),
        ("decoded, network, written back", claimed, read, 1),
        (f"quiet period of {QUIET_PERIOD_S:g} s, counted from the film", stored, stored + QUIET_PERIOD_S, 3),
        ("summed up: report, heat map, message, commit", stored + QUIET_PERIOD_S, summed, 2),
        ("message to the RIS, acknowledged", summed, acknowledged, 0),
        ("report and heat map to the PACS", summed, at("delivery delivered", last=True), 4),
    ]
    return drawn_waterfall(bars, f"One film of 15 MB, median of {films} single ones: {acknowledged:.2f} s to the ORU")


def drawn_waterfall(bars: Sequence[tuple[str, float, float, int]], title: str) -> str:
    """Bars (words, begin, end in seconds, colour) under each other, with their times."""
    longest = max(end for _, _, end, _ in bars)
    scale, left, height = (WIDTH - 420) / longest, 330, 26
    lines = [text(10, 20, title, 15)]
    for number, (words, begin, end, colour) in enumerate(bars):
        top = 40 + number * height
        width = max(2.0, (end - begin) * scale)
        lines.append(text(10, top + 14, words, 12))
        lines.append(box(left + begin * scale, top, width, height - 6, COLOURS[colour]))
        lines.append(text(left + begin * scale + width + 4, top + 14, f"{(end - begin) * 1000:.0f} ms", 12))
    foot = 40 + len(bars) * height
    for tenth in range(int(longest * 10) + 1):
        if tenth % 2 == 0:
            lines.append(text(left + tenth / 10 * scale, foot + 14, f"{tenth / 10:.1f} s", 11))
    return svg(foot + 46, [*lines, text(10, foot + 38, machine("pydicom", "onnxruntime"), 10)])


def sampled(one: Ward, spy: str, file: Path, films: int, seconds: int) -> Counter[tuple[str, ...]]:
    """Stacks (role first) of the whole agent while it works off a burst, in microseconds of CPU a film."""
    assert one.agent.process is not None
    command = [spy, "record", "--subprocesses", "--rate", "100", "--duration", str(seconds), "--format", "raw"]
    with subprocess.Popen(
        [*command, "--output", str(file), "--pid", str(one.agent.process.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(2)
        before = one.cpu_s()
        sending = threading.Thread(target=one.send, args=([0.0] * films,))
        sending.start()
        sending.join()
        one.count_objects()
        after = one.cpu_s()
        process.wait()
    found: Counter[tuple[str, ...]] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, count = line.rsplit(" ", 1)
        frames = stack.split(";")
        if not _WAITING.match(frames[-1]):
            found[tuple(shortened(frames))] += int(count)
    require(sum(found.values()) > 100, "py-spy saw next to nothing")
    return weighed(found, {role: after[role] - before[role] for role in after}, films)


def weighed(samples: Counter[tuple[str, ...]], cpu_s: Mapping[str, float], films: int) -> Counter[tuple[str, ...]]:
    """Microseconds of CPU a film instead of samples: each role weighs what the kernel says that it has used.

    py-spy takes threads that the kernel holds for disk or socket for running ones, in some roles more than in others.
    """
    of_role: Counter[str] = Counter()
    for stack, count in samples.items():
        of_role[stack[0]] += count
    scale = {role: cpu_s[role] / films * 1e6 / count for role, count in of_role.items()}
    return Counter({stack: round(count * scale[stack[0]]) for stack, count in samples.items()})


def shortened(frames: Sequence[str]) -> Iterator[str]:
    """Role (or decoder) first, then frames without what every thread has at its bottom."""
    whole = ";".join(frames)
    roles = _ROLE.findall(whole)
    yield "decode" if "spawn_main" in whole else roles[-1] if roles else "supervisor"
    for frame in frames:
        if not re.search(
            r"^process |threading\.py|runpy|role_process\.py|concurrent/futures|multiprocessing|<string>", frame
        ):
            yield re.sub(r":\d+\)$", ")", frame)


@dataclass
class Box:
    """A frame and what was called from it."""

    samples: int = 0
    below: dict[str, Box] = field(default_factory=dict)


def flame(samples: Counter[tuple[str, ...]]) -> str:
    """The flame graph, role at the top, leaves below (an icicle)."""
    root = Box()
    for stack, count in samples.items():
        root.samples += count
        here = root
        for frame in stack[:DEEPEST]:
            here = here.below.setdefault(frame, Box())
            here.samples += count
    lines: list[str] = []
    deepest = _draw(root, 0.0, 0, root.samples, lines)
    title = f"Where {root.samples / 1000:.0f} ms of CPU of a film go, peers left out ({machine()})"
    return svg(40 + (deepest + 1) * BAR, [text(10, 20, title, 13), *lines])


def _draw(parent: Box, left: float, depth: int, total: int, lines: list[str]) -> int:
    deepest = depth
    for name, one in sorted(parent.below.items(), key=lambda pair: (depth > 0, -pair[1].samples)):
        width = one.samples / total * WIDTH
        if one.samples / total >= LEAST_SHARE:
            top = 32 + depth * BAR
            share = f"{name}: {one.samples / 1000:.1f} ms, {one.samples / total:.1%}"
            lines.append(box(left, top, width, BAR - 1, COLOURS[sum(map(ord, name)) % len(COLOURS)], share))
            if width > 30:
                lines.append(text(left + 3, top + 12, name[: int(width / 6.2)], 10))
            deepest = max(deepest, _draw(one, left, depth + 1, total, lines))
        left += width
    return deepest


def box(left: float, top: float, width: float, height: float, colour: str, title: str = "") -> str:
    """A rectangle; ``title`` shows under the mouse."""
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    place = f'x="{left:.1f}" y="{top:.0f}" width="{max(0.5, width - 0.5):.1f}" height="{height:.0f}"'
    return f'<rect {place} fill="{colour}">{inside}</rect>'


def text(left: float, top: float, words: str, size: int) -> str:
    """A line of words."""
    return f'<text x="{left:.1f}" y="{top:.0f}" font-size="{size}">{html.escape(words)}</text>'


def svg(height: float, lines: Sequence[str]) -> str:
    """The picture on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>', *lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
