"""The demo's scanners: phantom films are drawn and sent one after the other, as a morning brings them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from firstread.integration.dicom.send import DicomPeer, Sender
from firstread.models.phantoms.cohort import DemoFilm, demo_cohort


class Scanner:
    """Sends to the agent on 127.0.0.1."""

    def __init__(self, port: int, folder: Path) -> None:
        self._peer = DicomPeer(
            name="agent", host="127.0.0.1", port=port, ae_title="FIRSTREAD", calling_ae_title="SCANNER"
        )
        self._folder = folder

    def send_morning(self, now: datetime, stop: threading.Event, say: Callable[[str], object]) -> list[DemoFilm]:
        """Draws and sends every film of the morning; answers what was sent and taken."""
        self._folder.mkdir(parents=True, exist_ok=True)
        films = demo_cohort(now=now)
        began = time.monotonic()
        sent: list[DemoFilm] = []
        for film in films:
            path = self._folder / f"{film.number:02d}.dcm"
            film.dataset().save_as(path, enforce_file_format=True)
            if stop.wait(max(0.0, began + film.send_after_s - time.monotonic())):
                return sent
            with Sender(self._peer) as sender:
                outcome = sender.store(path)
            say(f"{time.monotonic() - began:5.1f} s  film {film.number:2d}: {film.what:<58} {outcome.comment}")
            if outcome.delivered:
                sent.append(film)
        return sent
