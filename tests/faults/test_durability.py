"""What is acknowledged is durable: the order of system calls for one film, seen by strace."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.faults.rig import Rig
from tests.faults.senders import Films, Scanner
from tests.peers import require_peer
from tests.system.agent import wait_for

CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"


def durable(traced: str) -> list[str]:
    """The steps of one film in the order in which they ended, from strace's lines."""
    steps = []
    folders: dict[str, str] = {}
    for line in _whole(traced):
        opened = re.search(r"openat\(.*\"([^\"]*)\", [^)]*O_DIRECTORY.*= (\d+)", line)
        if opened:
            folders[opened.group(2)] = opened.group(1)
        elif re.search(r"(?<!p)write\(\d+<[^>]*/incoming-[0-9a-f]+\.part>", line):
            steps.append("write")
        elif re.search(r"f(data)?sync\(\d+<[^>]*/incoming-[0-9a-f]+\.part>\) += 0", line):
            steps.append("fsync")
        elif re.search(r"rename\w*\(.*/incoming-[0-9a-f]+\.part\".*/films/.*\) += 0", line):
            steps.append("rename")
        elif re.search(r"f(data)?sync\(\d+<[^>]*/films/[0-9a-f]{2}>\) += 0", line):
            steps.append("fsync of folder")
        elif re.search(r"f(data)?sync\(\d+<[^>]*\.sqlite3-wal>\) += 0", line):
            steps.append("commit")
        elif re.search(r"send(to|msg)\(\d+<(TCP|socket)[^>]*>", line) and _is_success(line):
            steps.append("Success")
    return steps


def _whole(traced: str) -> Iterator[str]:
    """Lines with the halves of interrupted calls joined, where they ended."""
    begun: dict[str, str] = {}
    for line in traced.splitlines():
        thread, _, call = line.partition(" ")
        if "<unfinished ...>" in call:
            begun[thread] = call.replace("<unfinished ...>", "")
        elif "resumed>" in call:
            yield begun.pop(thread, "") + call.partition("resumed>")[2]
        else:
            yield call


def _is_success(line: str) -> bool:
    """A C-STORE-RSP (command field 8001H) with status 0000H, as strace prints bytes in hexadecimal."""
    content = bytes.fromhex("".join(re.findall(r"\\x([0-9a-f]{2})", line)))
    return b"\0\0\0\x01\x02\0\0\0\x01\x80" in content and b"\0\0\0\x09\x02\0\0\0\0\0" in content


@contextmanager
def traced(process: int, target: Path) -> Iterator[None]:
    """strace on a process and its threads while the block runs; ``target`` gets what it sees."""
    command = [require_peer("strace"), "-f", "-y", "-xx", "-s", "4096", "-e", "signal=none"]
    tracer = subprocess.Popen(
        [*command, "-e", f"trace={CALLS}", "-o", str(target), "-p", str(process)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline().decode()
    if "attached" not in said:
        tracer.kill()
        pytest.skip(f"strace may not attach here: {said.strip()}")
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


def steps_of_one_film(folder: Path, bundle: Path, **faults: str) -> list[str]:
    """What the receiver does for one film, until it says Success."""
    rig = Rig(folder, bundle)
    try:
        rig.set_faults(**faults)
        rig.start()
        role = wait_for(lambda: rig.agent.roles().get("receive"), "the receiver runs")
        warm_up, film = (Films(Random(number)).film(f"2.25.{number}") for number in (1, 2))
        Scanner(rig.agent.dicom_port, [warm_up]).run()
        with traced(role.pid, folder / "trace"):
            Scanner(rig.agent.dicom_port, [film]).run()
            time.sleep(0.2)
        assert film.acknowledged
    finally:
        rig.close()
    steps = durable(_readable((folder / "trace").read_text()))
    return steps[: steps.index("Success") + 1]


def _readable(traced: str) -> str:
    """Paths (all that is printable between <> or quotes, and no data) as text; what is sent stays hexadecimal."""

    def text(found: re.Match[str]) -> str:
        plain = bytes.fromhex(found.group(1).replace("\\x", "")).decode("latin-1")
        return (
            plain if plain.isprintable() and ("/" in plain or "TCP" in plain or "socket" in plain) else found.group(0)
        )

    return re.sub(r"((?:\\x[0-9a-f]{2})+)", text, traced)


def in_order(steps: list[str]) -> bool:
    """Written, synced, renamed, its folder synced, committed, and only then acknowledged."""
    wanted = ["write", "fsync", "rename", "fsync of folder", "commit", "Success"]
    try:
        last_write = max(number for number, step in enumerate(steps) if step == "write")
        places = [last_write, *(steps.index(step) for step in wanted[1:3])]
        for step in wanted[3:]:
            places.append(steps.index(step, places[-1]))
    except ValueError:
        return False
    return places == sorted(places)


@pytest.mark.slow
def test_a_film_is_written_synced_renamed_recorded_and_only_then_acknowledged(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    steps = steps_of_one_film(tmp_path, tiny_bundle)
    assert in_order(steps), steps


@pytest.mark.slow
def test_an_agent_that_does_not_sync_fails_that_proof(tmp_path: Path, tiny_bundle: Path) -> None:
    steps = steps_of_one_film(tmp_path, tiny_bundle, fsync="skip")
    assert steps[-1] == "Success"
    assert not in_order(steps), steps
    assert "fsync" not in steps
    assert "fsync of folder" not in steps


def test_the_proof_sees_a_success_that_comes_too_early() -> None:
    good = ["write", "write", "fsync", "rename", "fsync of folder", "commit", "Success"]
    assert in_order(good)
    for step in ("write", "fsync", "rename", "fsync of folder", "commit", "Success"):
        assert not in_order([one for one in good if one != step])
    assert not in_order([*good[:5], "Success", "commit"])
    assert not in_order(["write", "fsync", "write", "rename", "fsync of folder", "commit", "Success"])
