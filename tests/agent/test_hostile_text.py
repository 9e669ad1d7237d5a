"""Text of others where people and programs look: in the log, on a terminal, in what a crash leaves behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from firstread.agent.commands.common import harmless
from firstread.agent.logs import traceback_without_values

STEERING = "\x1b]0;gone\x07\x1b[2J\x9b31m\r\x00\u202egpj.exe\u2066\n"

_IN_A_ROLE = """
import logging, resource, warnings
import structlog
from firstread.agent import logs
logs.set_up("studies")
log = structlog.get_logger()
log.info("received", calling_ae="EVIL\\n{\\"event\\": \\"forged\\"}\\x1b[2J")
try:
    try:
        int("DOE^JOHN")
    except ValueError as error:
        raise RuntimeError("no number: DOE^JOHN") from error
except RuntimeError:
    log.exception("went wrong")
    logging.getLogger("uvicorn.error").exception("also\\nwent wrong")
logging.getLogger("pydicom").warning("Invalid value for VR PN: 'DOE^JOHN'")
warnings.warn("Invalid value for VR PN: 'DOE^JOHN'")
log.info("cores", limit=resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What a role writes of odd values, errors of libraries and warnings."""
    done = subprocess.run([sys.executable, "-c", _IN_A_ROLE], capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.splitlines()


def test_every_log_line_is_one_json_object_that_nobody_else_can_begin(lines: list[str]) -> None:
    said = [json.loads(line) for line in lines]
    assert [one["event"] for one in said] == ["received", "went wrong", "also\nwent wrong", "cores"]
    assert {one["role"] for one in said} == {"studies"}
    assert all(line.isprintable() for line in lines)


def test_errors_are_logged_with_their_place_and_without_the_value_that_they_quote(lines: list[str]) -> None:
    assert "DOE" not in "".join(lines)
    for line in lines[1:3]:
        told = json.loads(line)["exception"]
        assert re.search(r"line \d+.*\nValueError\n(.|\n)*line \d+.*\nRuntimeError$", told), told


def test_a_crash_leaves_no_core_file(lines: list[str]) -> None:
    assert json.loads(lines[-1])["limit"] == 0


def test_an_error_of_the_system_keeps_its_words() -> None:
    with pytest.raises(OSError) as raised:
        open("/nowhere/at/all")  # noqa: SIM115
    assert traceback_without_values(raised.value).endswith("FileNotFoundError: No such file or directory")


def test_what_steers_a_terminal_is_shown_and_not_obeyed() -> None:
    shown = harmless(f"DOE^J\u00f6hn \u68ee {STEERING}")
    assert shown.startswith("DOE^J\u00f6hn \u68ee \\u001b]0;gone\\u0007\\u001b[2J\\u009b31m\\u000d\\u0000\\u202egpj")
    assert shown.removesuffix("\n").isprintable()


def test_json_for_programs_still_says_the_same() -> None:
    assert json.loads(harmless(json.dumps({"why": STEERING}, ensure_ascii=False))) == {"why": STEERING}
