"""Processes that read films: what goes wrong in one costs its own order and nothing else."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Iterator

import psutil
import pytest

from firstread.agent.decoders import Decoders, Ended
from tests.agent.decoder_work import FILM_BYTES, work

Pool = Decoders[str, tuple[str, int]]


@pytest.fixture
def pool() -> Iterator[Pool]:
    made: Pool = Decoders(work, count=1, timeout_s=20)
    yield made
    made.close()


def collect(pool: Pool, count: int) -> dict[int, Ended[tuple[str, int]]]:
    """What came of so many orders."""
    found = {}
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        ended = pool.collect(0.1)
        if ended is not None:
            found[ended.key] = ended
    assert len(found) == count
    return found


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("crash", "the decoder process ended (SIGSEGV)"),
        ("error", "ValueError (work, line "),
        ("exit", "SystemExit (work, line "),
        ("bomb", "MemoryError"),
        ("unpicklable", "Stubborn (work, line "),
    ],
)
def test_an_order_that_goes_wrong_fails_alone_and_says_how(pool: Pool, bad: str, said: str) -> None:
    for key, order in enumerate(("before", bad, "after")):
        pool.submit(key, order)
    ended = collect(pool, 3)
    assert ended[0].answer is not None and ended[0].answer[0] == "before" and ended[0].failure == ""
    assert ended[1].answer is None and said in ended[1].failure
    assert ended[2].answer is not None and ended[2].answer[0] == "after"
    assert pool.in_flight == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_the_memory_of_a_film_serves_the_next_one(pool: Pool) -> None:
    for key in range(4):
        pool.submit(key, "film")
    faults = [ended.answer[1] for _, ended in sorted(collect(pool, 4).items()) if ended.answer is not None]
    pages = 2 * FILM_BYTES // resource.getpagesize()
    if faults[0] < 0.5 * pages:
        pytest.skip("this kernel hands out memory in pages so large that there is nothing to save")
    assert faults[-1] < 0.1 * pages


def test_an_order_that_hangs_is_given_up_and_its_process_killed() -> None:
    pool: Pool = Decoders(work, count=1, timeout_s=20)
    try:
        pool.submit(0, "before")
        first = collect(pool, 1)[0].answer
        assert first is not None
        pool._timeout_s = 0.5  # only now: the first order waited for the process to start
        pool.submit(1, "hang")
        assert "took longer than" in collect(pool, 1)[1].failure
        assert not psutil.pid_exists(first[1]), "the hanging process is gone"
        pool._timeout_s = 20
        pool.submit(2, "after")
        answer = collect(pool, 1)[2].answer
        assert answer is not None and answer[1] != first[1]
    finally:
        pool.close()


def test_while_one_process_hangs_the_other_goes_on() -> None:
    pool: Pool = Decoders(work, count=2, timeout_s=60)
    try:
        for key in range(4):
            pool.submit(key, f"warm {key}")
        collect(pool, 4)
        pool.submit(10, "hang")
        for key in range(11, 15):
            pool.submit(key, "quick")
        assert set(collect(pool, 4)) == {11, 12, 13, 14}
        assert pool.in_flight == 1
    finally:
        pool.close()


def test_a_process_that_failed_is_used_on_when_only_its_order_was_bad(pool: Pool) -> None:
    pool.submit(0, "one")
    pool.submit(1, "two")
    ended = collect(pool, 2)
    first, second = ended[0].answer, ended[1].answer
    assert first is not None and second is not None and first[1] == second[1], "no process is started for each film"
