"""What the decoder processes of tests do: a module of its own, because they import it."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

FILM_BYTES = 15_000_000


def work(order: str) -> tuple[str, int]:
    """Answers with the order and this process's id, or misbehaves as the order says."""
    if order == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == "hang":
        time.sleep(3600)
    if order == "error":
        raise ValueError("no such film")
    if order == "exit":
        sys.exit(7)
    if order == "bomb":
        bytearray(64 << 30)
    if order == "film":
        return order, page_faults_of_a_film()
    if order == "unpicklable":
        raise Stubborn("cannot travel")
    return order, os.getpid()


def page_faults_of_a_film() -> int:
    """Pages fetched from the kernel for as much memory as a film takes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [bytearray(FILM_BYTES) for _ in range(2)]
    assert len(held) == 2
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


class Stubborn(Exception):
    """An error that no pipe can carry."""

    def __reduce__(self) -> str:
        raise TypeError("not me")
