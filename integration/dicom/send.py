"""The Storage and Verification SCU: sends finished files as they are and says what the receiver answered (PS3.4 B)."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.filereader import dcmread
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import encode

from firstread.integration.dicom.contexts import VERIFICATION
from firstread.integration.dicom.header import text_of
from firstread.integration.dicom.part10 import FileMeta, NotPart10, read_meta
from firstread.integration.dicom.requestor import (
    MOST_CONTEXTS,
    Context,
    DicomPeer,
    NoAssociation,
    NoContextAccepted,
    RequestedAssociation,
)
from firstread.integration.dicom.status import OutcomeKind, meaning_of, outcome_of

__all__ = ["DicomPeer", "EchoOutcome", "OutcomeKind", "Sender", "StoreOutcome", "echo", "send_files"]

_EXPLICIT, _IMPLICIT, _BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_NATIVE = (_EXPLICIT, _IMPLICIT, _BIG)
OUR_RESULTS: tuple[Context, ...] = tuple(
    (sop_class, syntax)
    for sop_class in (
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    )
    for syntax in (_EXPLICIT, _IMPLICIT)
)


@dataclass(frozen=True)
class StoreOutcome:
    """What became of one C-STORE.

    ``status`` is the receiver's, None when there was none. ``comment`` is a sentence for people, the receiver's own
    Error Comment in it; ``warning`` is filled when it was stored with a warning (Bxxx). What is ``RETRY`` may succeed
    later unchanged; what is ``REJECTED`` will not unless somebody acts.
    """

    kind: OutcomeKind
    status: int | None
    comment: str = ""
    warning: str = ""

    @property
    def delivered(self) -> bool:
        """True when the receiver's own status said that it is stored."""
        return self.kind is OutcomeKind.DELIVERED


@dataclass(frozen=True)
class EchoOutcome:
    """What became of a C-ECHO; ``detail`` is a sentence, ``round_trip_s`` is that of the echo alone."""

    ok: bool
    detail: str
    round_trip_s: float = 0.0


class Sender:
    """Sends to one peer over one association, kept open between instances and released when idle.

    Safe for several threads; one instance is under way at a time (PS3.7 D.3.3.3). Close it, or use it in a ``with``.
    """

    def __init__(self, peer: DicomPeer) -> None:
        self.peer = peer
        self._lock = threading.Lock()
        self._association: RequestedAssociation | None = None
        self._proposed: list[Context] = list(OUR_RESULTS)
        self._message_id = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the association."""
        with self._lock:
            self._drop()

    def propose(self, contexts: Iterable[Context]) -> None:
        """Names contexts that will be needed, so that one association serves them all."""
        with self._lock:
            self._want(contexts)

    def store(self, source: Path | bytes) -> StoreOutcome:
        """Sends one Part 10 file (its path or its bytes); never raises for what the peer or the file does.

        The data set's bytes go out as they are. Only where the peer refuses the file's own native transfer syntax and
        takes another native one, the data set is converted for this send (same UIDs).
        """
        try:
            content = source if isinstance(source, bytes) else source.read_bytes()
            meta = _as_in_data_set(read_meta(content), content)
        except (NotPart10, OSError) as error:
            return StoreOutcome(OutcomeKind.REJECTED, None, str(error))
        with self._lock:
            reused = self._usable()
            outcome = self._store(meta, content)
            if reused and outcome.status is None and outcome.kind is OutcomeKind.RETRY:
                # an association that was kept open may have died unseen; the same UIDs make a second send harmless
                outcome = self._store(meta, content)
            return outcome

    def echo(self) -> EchoOutcome:
        """C-ECHO over an association of its own (PS3.4 A)."""
        return echo(self.peer)

    def _usable(self) -> bool:
        return self._association is not None and self._association.is_established

    def _want(self, contexts: Iterable[Context]) -> None:
        missing = [context for context in dict.fromkeys(contexts) if context not in self._proposed]
        if missing:
            self._proposed = (missing + self._proposed)[:MOST_CONTEXTS]
            self._drop()

    def _drop(self, *, broken: bool = False) -> None:
        if self._association is not None:
            self._association.end(broken=broken)
            self._association = None

    def _store(self, meta: FileMeta, content: bytes) -> StoreOutcome:
        syntaxes = [meta.transfer_syntax_uid]
        if meta.transfer_syntax_uid in _NATIVE:
            syntaxes += [syntax for syntax in (_EXPLICIT, _IMPLICIT) if syntax != meta.transfer_syntax_uid]
        self._want((meta.sop_class_uid, syntax) for syntax in syntaxes)
        try:
            if not self._usable():
                self._drop()
                self._association = RequestedAssociation(self.peer, self._proposed)
            association = self._association
        except NoContextAccepted:
            return self._no_context(meta)
        except NoAssociation as error:
            return StoreOutcome(OutcomeKind.RETRY, None, str(error))
        if association is None:
            return StoreOutcome(OutcomeKind.RETRY, None, "the association ended")
        for syntax in syntaxes:
            context_id = association.accepted(meta.sop_class_uid, syntax)
            if context_id is not None:
                break
        else:
            return self._no_context(meta)
        try:
            data_set = data_set_of(meta, content, syntax)
        except Exception as error:  # pydicom raises whatever odd values lead it to
            why = f"cannot convert to transfer syntax {syntax}: {type(error).__name__}: {error}"
            return StoreOutcome(OutcomeKind.REJECTED, None, why)
        return self._exchange(association, meta, context_id, data_set)

    def _exchange(
        self, association: RequestedAssociation, meta: FileMeta, context_id: int, data_set: bytes
    ) -> StoreOutcome:
        self._message_id = self._message_id % 0xFFFF + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.Priority = 0x0000
        request.AffectedSOPClassUID = meta.sop_class_uid
        request.AffectedSOPInstanceUID = meta.sop_instance_uid
        request.DataSet = io.BytesIO(data_set)
        response = association.ask(request, context_id)
        if not isinstance(response, C_STORE) or response.Status is None:
            why = association.why_ended or f"no answer within {self.peer.dimse_timeout_s:g} s"
            if response is not None:
                why = "answered with another message than a C-STORE response"
            self._drop(broken=True)
            return StoreOutcome(OutcomeKind.RETRY, None, f"{self.peer.ae_title}: {why}")
        status = int(response.Status)
        sentence = f"{status:04X} {meaning_of(status)}"
        if response.ErrorComment:
            sentence += f": {response.ErrorComment}"
        kind = outcome_of(status)
        if kind is OutcomeKind.DELIVERED:
            return StoreOutcome(
                kind, status, "stored with a warning" if status else sentence, sentence if status else ""
            )
        return StoreOutcome(kind, status, sentence)

    def _no_context(self, meta: FileMeta) -> StoreOutcome:
        why = (
            f"{self.peer.ae_title} accepted no presentation context for SOP class {meta.sop_class_uid} in transfer"
            f" syntax {meta.transfer_syntax_uid}: enable both there, or stop sending these to it"
        )
        return StoreOutcome(OutcomeKind.REJECTED, None, why)


def echo(peer: DicomPeer) -> EchoOutcome:
    """C-ECHO to a peer over an association of its own (PS3.4 A); never raises for what the peer does."""
    try:
        association = RequestedAssociation(peer, [(VERIFICATION, _IMPLICIT), (VERIFICATION, _EXPLICIT)])
    except NoContextAccepted:
        return EchoOutcome(False, f"{peer.ae_title} answers, but does not accept verification (C-ECHO)")
    except NoAssociation as error:
        return EchoOutcome(False, str(error))
    broken = False
    try:
        context_id = association.accepted(VERIFICATION, _IMPLICIT) or association.accepted(VERIFICATION, _EXPLICIT)
        request = C_ECHO()
        request.MessageID = 1
        request.AffectedSOPClassUID = VERIFICATION
        began = time.monotonic()
        response = association.ask(request, context_id or 1)
        took = time.monotonic() - began
        if not isinstance(response, C_ECHO) or response.Status is None:
            broken = True
            return EchoOutcome(False, association.why_ended or f"no answer within {peer.dimse_timeout_s:g} s", took)
        status = int(response.Status)
        return EchoOutcome(status == 0, f"{status:04X} {meaning_of(status)}", took)
    finally:
        association.end(broken=broken)


def send_files(
    peer: DicomPeer,
    paths: Iterable[Path],
    on_outcome: Callable[[Path, StoreOutcome], None] = lambda _path, _outcome: None,
) -> list[tuple[Path, StoreOutcome]]:
    """Sends files over one association, as a modality would; ``on_outcome`` hears of each as it is answered.

    What is no DICOM file is rejected with a sentence, and the others go on.
    """
    files = list(paths)
    outcomes = []
    with Sender(peer) as sender:
        sender.propose(_contexts_of(files))
        for path in files:
            outcome = sender.store(path)
            on_outcome(path, outcome)
            outcomes.append((path, outcome))
    return outcomes


def _contexts_of(paths: Iterable[Path]) -> list[Context]:
    contexts: dict[Context, None] = {}
    for path in paths:
        try:
            meta = read_meta(path)
        except (NotPart10, OSError):
            continue
        contexts[meta.sop_class_uid, meta.transfer_syntax_uid] = None
        if meta.transfer_syntax_uid in _NATIVE:
            contexts.update(dict.fromkeys((meta.sop_class_uid, syntax) for syntax in (_EXPLICIT, _IMPLICIT)))
    return list(contexts)


def _as_in_data_set(meta: FileMeta, content: bytes) -> FileMeta:
    """The meta header with the data set's own SOP UIDs: in real files they differ, and receivers compare the latter."""
    try:
        header = dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    except Exception:  # whatever pydicom stumbles over, the receiver shall judge
        return meta
    return replace(
        meta,
        sop_class_uid=text_of(header, 0x00080016) or meta.sop_class_uid,
        sop_instance_uid=text_of(header, 0x00080018) or meta.sop_instance_uid,
    )


def data_set_of(meta: FileMeta, content: bytes, syntax: str) -> bytes:
    """The data set's bytes, converted when the peer takes another native syntax only, or when they are odd in number.

    Fragments have even length (PS3.8 E.1), and DCMTK and Orthanc stop listening to a peer that sends an odd one; real
    files end in an odd pixel value.
    """
    odd = (len(content) - meta.data_set_offset) % 2
    if syntax == meta.transfer_syntax_uid and not odd:
        return content[meta.data_set_offset :]
    if syntax not in _NATIVE:
        return content[meta.data_set_offset :] + b"\0"
    decoded = dcmread(io.BytesIO(content))
    if odd and len(decoded.get("PixelData", b"")) % 2:
        decoded["PixelData"].value += b"\0"
    encoded = encode(decoded, syntax == _IMPLICIT, syntax != _BIG)
    if encoded is None:
        raise ValueError("pydicom cannot encode it")
    return bytes(encoded) + b"\0" * (len(encoded) % 2)
