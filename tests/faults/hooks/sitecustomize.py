"""Faults inside the agent's own processes: Python loads this by its name when the folder stands in PYTHONPATH.

``FIRSTREAD_FAULTS`` names a JSON file that is read again whenever a hooked call is made:

    fsync     "EIO" or "ENOSPC": fails so; "skip": does nothing and claims that it did; "kill": ends the process
    create    "EROFS" or the like: no file or folder can be made or renamed
    clock_s   seconds by which the wall clock is off
    role      only in this role's process

A film whose bytes hold SEGV_MARK ends the process that decodes it by SIGSEGV, one with KILL_MARK ends the analyser.
The product knows nothing of all this.
"""

from __future__ import annotations

import errno
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

SEGV_MARK = b"FIRSTREAD TEST: SEGV"
KILL_MARK = b"FIRSTREAD TEST: KILL"

_CONTROL = os.environ.get("FIRSTREAD_FAULTS", "")


def _in_force() -> dict[str, Any]:
    try:
        with _open(_CONTROL, encoding="utf-8") as file:
            asked = dict(json.load(file))
    except (OSError, ValueError):
        return {}
    role = asked.get("role")
    return asked if role is None or role in sys.orig_argv else {}


_open = open
_fsync = os.fsync


def _hooked_fsync(descriptor: int) -> None:
    asked = _in_force().get("fsync")
    if asked == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif asked == "skip":
        return
    elif asked:
        number = getattr(errno, asked)
        raise OSError(number, os.strerror(number))
    _fsync(descriptor)


def _refusing(call: Callable[..., Any], applies: Callable[..., bool]) -> Callable[..., Any]:
    @functools.wraps(call)
    def hooked(*arguments: Any, **named: Any) -> Any:
        if applies(*arguments):
            asked = _in_force().get("create")
            if asked:
                number = getattr(errno, asked)
                raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return hooked


class _SkewedClock:
    """Stands for ``datetime`` in firstread.agent.clock."""

    @staticmethod
    def now(zone: Any = None) -> datetime:
        return datetime.now(zone) + timedelta(seconds=float(_in_force().get("clock_s", 0.0)))


def _deadly(read_film: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(read_film)
    def hooked(order: Any) -> Any:
        head = Path(order.path).read_bytes()[:65536]
        if SEGV_MARK in head:
            os.kill(os.getpid(), signal.SIGSEGV)
        if KILL_MARK in head:
            os.kill(os.getppid(), signal.SIGKILL)
        return read_film(order)

    return hooked


def _change_clock(module: Any) -> None:
    module.datetime = _SkewedClock


def _change_film(module: Any) -> None:
    module.read_film = _deadly(module.read_film)


_CHANGES = {"firstread.agent.clock": _change_clock, "firstread.agent.film": _change_film}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes a module of the product right after it was loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        change = _CHANGES.get(name)
        if change is None:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                load = spec.loader.exec_module

                def execute(module: Any, load: Callable[[Any], None] = load) -> None:
                    load(module)
                    change(module)

                spec.loader.exec_module = execute  # type: ignore[method-assign]
                return spec
        return None


if _CONTROL:
    os.fsync = _hooked_fsync
    os.open = _refusing(os.open, lambda path, flags, *_: bool(flags & os.O_CREAT))
    os.rename = _refusing(os.rename, lambda *_: True)
    os.mkdir = _refusing(os.mkdir, lambda *_: True)
    sys.meta_path.insert(0, _AfterImport())
