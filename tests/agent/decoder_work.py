"""What the decoder processes of tests do: a module of its own, because they import it."""

from __future__ import annotations

import os
import signal
import sys
import time


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
    if order == "unpicklable":
        raise Stubborn("cannot travel")
    return order, os.getpid()


class Stubborn(Exception):
    """An error that no pipe can carry."""

    def __reduce__(self) -> str:
        raise TypeError("not me")
