"""Real peers for tests: absent ones skip, but fail where CI=true says that they must be there."""

from __future__ import annotations

import os
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import NoReturn

import pytest


def peer_program(name: str) -> str | None:
    """Path of a peer's program, None where it is not installed."""
    # pynetdicom brings programs of the same names, which an activated environment would put first.
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each != sysconfig.get_path("scripts")]
    return shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin", "/usr/lib/dcmtk"]))


def absent(message: str) -> NoReturn:
    """A peer is not there: the test is skipped, under CI=true it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def require_peer(name: str) -> str:
    """Path of a peer's program (``storescp``, ``dciodvfy``, ``Orthanc``, ``chromium``)."""
    found = peer_program(name)
    if found:
        return found
    absent(f"{name} is not installed: run deploy/install-peers.sh as root")


def real_films() -> Path:
    """Folder of real films (``FIRSTREAD_TEST_DATA``), with ``dicom/`` and ``nih/`` in it; skips without it."""
    folder = os.environ.get("FIRSTREAD_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set FIRSTREAD_TEST_DATA to a folder of real films")
    return Path(folder)


def free_port() -> int:
    """A TCP port that was free a moment ago on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
