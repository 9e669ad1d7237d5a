"""``firstread send``: files to a DICOM node as a scanner would send them, with each answer in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from firstread.integration.dicom.send import DicomPeer, send_files


def send_paths(paths: Sequence[Path], peer: DicomPeer, say: Callable[[str], object]) -> int:
    """Sends files and what lies in folders, in one association; answers how many were not taken."""
    files = list(_files(paths))
    problems = 0
    for path, outcome in send_files(peer, files):
        if not outcome.delivered:
            problems += 1
        say(f"{path}: {outcome.comment}" + (f" ({outcome.warning})" if outcome.warning else ""))
    if not files:
        say("no files to send: name DICOM files, or folders that hold some")
        return 1
    return problems


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
        else:
            yield path
