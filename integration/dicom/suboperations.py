"""The C-STORE sub-operations of C-MOVE and C-GET: transfer syntax, bytes, and how they went (PS3.4 C.4.2)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pynetdicom.dimse_primitives import C_STORE

from firstread.integration.dicom.part10 import NotPart10, read_meta
from firstread.integration.dicom.query import CannotConvert, Retrievable
from firstread.integration.dicom.send import data_set_of
from firstread.integration.dicom.status import OutcomeKind, meaning_of, outcome_of

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
NATIVE = (EXPLICIT, IMPLICIT, BIG)


@dataclass
class Counts:
    """How the sub-operations went so far (PS3.4 C.4.2.1.6 to C.4.2.1.9)."""

    remaining: int
    completed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    why: str = ""
    """The first failure, in words."""

    @property
    def failed(self) -> int:
        """How many failed."""
        return len(self.failed_uids)

    def note(self, uid: str, status: int | None, why: str = "") -> None:
        """One more has ended; ``status`` is the receiver's, None when there was none."""
        self.remaining -= 1
        if status is not None and outcome_of(status) is OutcomeKind.DELIVERED:
            self.completed += not status
            self.warning += bool(status)
            return
        self.failed_uids.append(uid)
        self.why = self.why or why or f"{status:04X} {meaning_of(status or 0)}"

    def final_status(self, *, cancelled: bool) -> int:
        """FE00 cancelled, 0000 all done, B000 some failed or had warnings, A702 none succeeded (PS3.4 Table C.4-2)."""
        if cancelled:
            return 0xFE00
        if self.failed and not self.completed and not self.warning:
            return 0xA702
        return 0xB000 if self.failed or self.warning else 0x0000


@contextlib.contextmanager
def store_request(
    item: Retrievable,
    accepted: Callable[[str, str], int | None],
    decompress: Callable[[Path, str], Path],
) -> Iterator[tuple[C_STORE, int]]:
    """A C-STORE-RQ without message id, and the presentation context for it, while the block runs.

    As it lies there where the other side takes that; native in another byte order or VR where it takes that; else
    decompressed, where nothing is lost by it. A film is read while it is sent, not before. Raises
    :class:`CannotConvert`, and ``OSError`` or ``NotPart10`` for a file that is not there any more.
    """
    syntaxes = (item.transfer_syntax_uid, *(one for one in NATIVE[:2] if one != item.transfer_syntax_uid))
    for syntax in syntaxes:
        context_id = accepted(item.sop_class_uid, syntax)
        if context_id is not None:
            break
    else:
        raise CannotConvert(f"no context for {item.sop_class_uid} in {item.transfer_syntax_uid} or native")
    request = C_STORE()
    request.Priority = 0x0000
    request.AffectedSOPClassUID = item.sop_class_uid
    request.AffectedSOPInstanceUID = item.sop_instance_uid
    path, temporary = item.path, None
    stored = item.transfer_syntax_uid
    if syntax != stored and stored not in NATIVE:
        path = temporary = decompress(item.path, syntax)
        stored = syntax
    try:
        meta = read_meta(path)
        if syntax == stored and (path.stat().st_size - meta.data_set_offset) % 2 == 0:
            request._dataset_path = (path, meta.data_set_offset)
        else:
            try:
                request.DataSet = io.BytesIO(data_set_of(meta, path.read_bytes(), syntax))
            except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
                raise CannotConvert(f"cannot be written in {syntax}: {type(error).__name__}") from error
        yield request, context_id
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


UNSENDABLE = (CannotConvert, NotPart10, OSError)
"""What :func:`store_request` raises for an object that cannot be sent; the others go on."""
