"""A few processes that read films, each watched: one that crashes or hangs costs its film, and is replaced."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import queue
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from firstread.agent import logs

Order = TypeVar("Order")
Answer = TypeVar("Answer")

MEMORY_LIMIT_BYTES = 8 << 30
"""Address space of one process: a decompression bomb meets MemoryError, not the machine's end."""


_PR_SET_PDEATHSIG = 1

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 128 << 20, 32 << 20
"""What a decoder keeps of freed memory, and the largest block that is kept: the most that glibc allows (mallopt(3))."""


@dataclass(frozen=True)
class Ended(Generic[Answer]):
    """An order that ended: ``answer``, or ``failure`` in words (a crash, a time-out, an unexpected error)."""

    key: int
    answer: Answer | None
    failure: str = ""


class Decoders(Generic[Order, Answer]):
    """``count`` processes calling ``work`` on what is submitted; answers come by ``collect``, in any order."""

    def __init__(self, work: Callable[[Order], Answer], *, count: int, timeout_s: float) -> None:
        self._work = work
        self._timeout_s = timeout_s
        self._orders: queue.SimpleQueue[tuple[int, Order] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Ended[Answer]] = queue.SimpleQueue()
        self._in_flight = 0
        self._threads = [threading.Thread(target=self._tend, name=f"decoder-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def in_flight(self) -> int:
        """Orders submitted and not yet collected."""
        return self._in_flight

    def submit(self, key: int, order: Order) -> None:
        """Gives an order to the next free process."""
        self._in_flight += 1
        self._orders.put((key, order))

    def collect(self, timeout_s: float) -> Ended[Answer] | None:
        """The next order that ended, None when none does within ``timeout_s``."""
        try:
            ended = self._ended.get(timeout=timeout_s) if timeout_s > 0 else self._ended.get_nowait()
        except queue.Empty:
            return None
        self._in_flight -= 1
        return ended

    def close(self) -> None:
        """Ends the processes; orders under way are given up."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join(timeout=2)

    def _tend(self) -> None:
        child = _Child(self._work)
        while True:
            item = self._orders.get()
            if item is None:
                child.end()
                return
            key, order = item
            answer, failure = child.ask(order, self._timeout_s)
            if failure:
                child.end()
                child = _Child(self._work)
            self._ended.put(Ended(key, answer, failure))


class Helpers(Generic[Order, Answer]):
    """As Decoders, for callers in many threads who each wait for their own answer; processes are made when needed.

    Each process has one thread that lives as long as it does: the kernel ends a process with the thread that made it.
    """

    def __init__(self, work: Callable[[Order], Answer], *, count: int, timeout_s: float) -> None:
        self._work = work
        self._timeout_s = timeout_s
        self._orders: queue.SimpleQueue[tuple[Order, Future[Ended[Answer]]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._tend, name=f"helper-{n}", daemon=True) for n in range(count)]
        self._lock = threading.Lock()
        self._started = False

    def warm(self) -> None:
        """Starts the processes, if they are not there yet; does not wait for them."""
        with self._lock:
            if not self._started:
                self._started = True
                for thread in self._threads:
                    thread.start()

    def ask(self, order: Order) -> Ended[Answer]:
        """The answer of the next free process."""
        self.warm()
        answer: Future[Ended[Answer]] = Future()
        self._orders.put((order, answer))
        return answer.result()

    def close(self) -> None:
        """Ends the processes; orders under way are given up."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2)

    def _tend(self) -> None:
        child = _Child(self._work)
        while True:
            item = self._orders.get()
            if item is None:
                child.end()
                return
            order, told = item
            answer, failure = child.ask(order, self._timeout_s)
            if failure:
                child.end()
                child = _Child(self._work)
            told.set_result(Ended(0, answer, failure))


class _Child:
    """One process and the pipe to it."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, order: Any, timeout_s: float) -> tuple[Any, str]:
        try:
            self._pipe.send(order)
            if not self._pipe.poll(timeout_s):
                return None, f"reading the film took longer than {timeout_s:.0f} s"
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=2)
            return None, f"the decoder process ended ({_ending(self._process.exitcode)})"
        return (answer, "") if kind == "answer" else (None, answer)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join(timeout=5)


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _keep_memory() -> None:
    """Has glibc keep a film's memory for the next film: fetching it from the kernel page by page was a third of reading
    one. Other C libraries have no such setting, and are left alone."""
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        adjust(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Linux: a film that hangs must not outlive an analyser that was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    _keep_memory()
    logs.set_up("analyse")
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("answer", work(order))
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            answer = ("failure", f"{logs.named_without_values(error)} ({where.name}, line {where.lineno})")
        try:
            pipe.send(answer)
        except OSError:
            return
