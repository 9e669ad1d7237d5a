"""Structured logs: one JSON object a line on standard error, without patient data."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import structlog


def set_up(role: str, *, as_json: bool = True, level: int = logging.INFO) -> None:
    """Every log line of this process carries its ``role``. Libraries' own warnings come through as well."""
    shared: list[structlog.typing.Processor] = [
        _naming(role),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=shared + final,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s")
    # They speak of element values and peers' data sets, and those may name a patient.
    for noisy in ("pydicom", "pynetdicom", "highdicom", "hl7apy"):
        silenced = logging.getLogger(noisy)
        silenced.propagate = False
        silenced.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")
    # A job that is still running when its time comes again is meant to be skipped.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def _naming(role: str) -> structlog.typing.Processor:
    def name(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["role"] = role  # not a context variable: those do not reach other threads
        return event

    return name
