"""Structured logs: one JSON object a line on standard error, without patient data."""

from __future__ import annotations

import json
import logging
import resource
import sys
import traceback
import warnings
from typing import Any

import structlog

from firstread.agent.store.errors import StoreError


def set_up(role: str, *, level: int = logging.INFO) -> None:
    """Every log line of this process carries its ``role``. Libraries' own warnings come through as well; what could
    quote a value of a film or a message does not, nor does a crash leave a core file with them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    structlog.configure(
        processors=[
            _naming(role),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(traceback_without_values),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryLine(role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # They speak of element values and peers' data sets, and those may name a patient.
    for noisy in ("pydicom", "pynetdicom", "highdicom", "hl7apy"):
        silenced = logging.getLogger(noisy)
        silenced.propagate = False
        silenced.addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")  # pydicom's quote values, and are said to come from whoever called it
    # A job that is still running when its time comes again is meant to be skipped.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def named_without_values(error: BaseException) -> str:
    """The kind of an error, and its words where they are the system's or the database's: libraries quote the value
    that they choke on, and it may be a patient's."""
    kind, said = type(error).__name__, ""
    if isinstance(error, OSError):
        said = error.strerror or str(error)
    elif isinstance(error, StoreError | MemoryError):
        said = str(error)
    return f"{kind}: {said}" if said else kind


def traceback_without_values(exc_info: Any) -> str:
    """Where an error came from, and the errors that led to it, each named without the values that it quotes."""
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(
        "".join(traceback.format_tb(one.__traceback__)) + named_without_values(one) for one in reversed(chain)
    )


class _LibraryLine(logging.Formatter):
    """Libraries' lines in the form of ours: no text of others can begin a line of its own."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            "logger": record.name,
            "role": self._role,
            "level": record.levelname.lower(),
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = traceback_without_values(record.exc_info)
        return json.dumps(line)


def _naming(role: str) -> structlog.typing.Processor:
    def name(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["role"] = role  # not a context variable: those do not reach other threads
        return event

    return name
