"""Scanners that send films until they are told that a film was taken, and remember every word they were told."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from firstread.integration.dicom.part10 import meta_header
from tests.integration.dicom_wire import EXPLICIT, Film, RawPeer, store_command
from tests.peers import require_peer
from tests.system.films import HAND, NOTHING, PNEUMOTHORAX, film

DRAWN = (NOTHING, PNEUMOTHORAX, 4, 9, 14, HAND)
"""Films of the demo's morning that are sent, under other identities."""


@dataclass
class Sent:
    """One film as its sender knows it. ``told``: each answer and when it came (monotonic seconds)."""

    study: str
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes
    """The data set, explicit little endian."""
    deadly: str = ""
    """What it does to those who read it: SEGV or KILL."""
    told: list[tuple[float, str]] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Hash of the data set."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def acknowledged(self) -> bool:
        """The sender was told that it may forget the film."""
        return any(_is_success(answer) for _, answer in self.told)


class Films:
    """Makes films whose identities depend on the seed alone."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def uid(self) -> str:
        """A UID."""
        return f"2.25.{self._random.getrandbits(120) | 1 << 119}"

    def film(self, study: str, *, deadly: str = "") -> Sent:
        """One film of a study."""
        changes = {"PatientComments": f"FIRSTREAD TEST: {deadly}"} if deadly else {}
        number = NOTHING if deadly else self._random.choice(DRAWN)
        dataset = film(
            number,
            study,
            SeriesInstanceUID=self.uid(),
            AccessionNumber=f"A{study[-12:]}",
            PatientID=f"P{study[-10:]}",
            **changes,
        )
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.decompress(generate_instance_uid=False)  # all of them travel as explicit little endian
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = self.uid()
        return Sent(study, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), encoded(dataset), deadly)


class Scanner(threading.Thread):
    """Sends its films in one association after another until each was acknowledged, or ``give_up_s`` has passed.

    ``dies_in``: the film in whose middle its first connection is cut.
    """

    def __init__(
        self, port: int, films: list[Sent], *, after_s: float = 0.0, dies_in: int | None = None, give_up_s: float = 90.0
    ) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._films = films
        self._after_s = after_s
        self._dies_in = dies_in
        self._give_up_s = give_up_s

    def run(self) -> None:
        """Until everything is acknowledged."""
        time.sleep(self._after_s)
        deadline = time.monotonic() + self._give_up_s
        while time.monotonic() < deadline:
            left = [one for one in self._films if not any(_is_success(answer) for _, answer in one.told)]
            if not left:
                return
            self._associate(left)
            time.sleep(0.3)

    def _associate(self, left: list[Sent]) -> None:
        try:
            with RawPeer(("127.0.0.1", self._port), timeout_s=20.0) as peer:
                kind, _ = peer.associate([(one.sop_class_uid, [EXPLICIT]) for one in left])
                if kind != 2:
                    for one in left:
                        one.told.append((time.monotonic(), f"association: PDU {kind}"))
                    return
                for number, one in enumerate(left):
                    if self._dies_in == number:
                        self._dies_in = None
                        self._half(peer, one, context_id=2 * number + 1)
                        return
                    status, _ = peer.store(one, one.content, message_id=number + 1, context_id=2 * number + 1)  # type: ignore[arg-type]
                    one.told.append((time.monotonic(), f"{status:04X}" if status >= 0 else "no answer"))
                    if status < 0:
                        return
                peer.release()
        except OSError as error:
            left[0].told.append((time.monotonic(), f"{type(error).__name__}"))

    def _half(self, peer: RawPeer, one: Sent, context_id: int) -> None:
        command = store_command(Film(one.sop_class_uid, one.sop_instance_uid))
        peer.send_command(command, context_id=context_id)
        half = one.content[: len(one.content) // 2]
        for start in range(0, len(half), 16000):
            peer.send_fragment(half[start : start + 16000], 0x00, context_id=context_id)


class DcmtkScanner(Scanner):
    """The same patience, but DCMTK's storescu speaks; what it was told is read from what it prints."""

    def _associate(self, left: list[Sent]) -> None:
        with tempfile.TemporaryDirectory(prefix="firstread-scanner-") as name:
            paths = []
            for number, one in enumerate(left):
                paths.append(Path(name) / f"{number}.dcm")
                paths[-1].write_bytes(meta_header(one.sop_class_uid, one.sop_instance_uid, EXPLICIT) + one.content)
            command = [require_peer("storescu"), "-v", "--no-halt", "-xe", "-aec", "FIRSTREAD", "-to", "20"]
            try:
                done = subprocess.run(
                    [*command, "127.0.0.1", str(self._port), *map(str, paths)],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=60,
                )
            except subprocess.TimeoutExpired:
                left[0].told.append((time.monotonic(), "storescu did not end"))
                return
        told = re.split(r"Sending file: ", done.stdout + done.stderr)[1:]
        if not told:
            for one in left:
                one.told.append((time.monotonic(), f"association: storescu ended {done.returncode}"))
        for said in told:
            number = int(Path(said.split()[0]).stem)
            success = "Received Store Response (Success)" in said
            left[number].told.append((time.monotonic(), "0000" if success else "no success"))


def answers(port: int) -> bool:
    """True when an association is accepted now."""
    try:
        with RawPeer(("127.0.0.1", port), timeout_s=2.0) as peer:
            kind, _ = peer.associate(calling="PROBE")
            if kind == 2:
                peer.release()
            return kind == 2
    except OSError:
        return False


def _is_success(answer: str) -> bool:
    return answer == "0000" or (len(answer) == 4 and answer.startswith("B"))


def encoded(dataset: Dataset) -> bytes:
    """The data set, explicit little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()
