"""One store request (STOW-RS): its parts become instances on disk and go the way of every C-STORE (PS3.18 10.5)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from firstread.agent.intake import Intake
from firstread.agent.store.engine import StoreError
from firstread.integration.dicom.header import read_header, text_of
from firstread.integration.dicom.identity_check import SOP_CLASS, SOP_INSTANCE, checked_uids, is_uid
from firstread.integration.dicom.part10 import FileMeta, meta_header
from firstread.integration.dicom.received import ReceivedInstance, ReceiveSettings, Refusal
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import CannotUnderstand, DoesNotMatch, OutOfResources, StoreFailure
from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.assemble import BulkData, announced, assemble
from firstread.integration.dicomweb.errors import BadRequest, TooLarge, UnsupportedMediaType
from firstread.integration.dicomweb.instance_part import InstancePart
from firstread.integration.dicomweb.media import MediaType
from firstread.integration.dicomweb.multipart import MultipartReader, Part
from firstread.integration.dicomweb.native_xml import from_xml
from firstread.integration.dicomweb.store_response import Outcome

log = structlog.get_logger()

NAMELESS = "DICOMWEB"
"""Calling AE title of an instance whose file names no sender."""

DOES_NOT_MATCH_META = 0xB007
"""Warning reason: stored, though its meta header speaks of another instance or class."""

_PIECE = 256 * 1024
LARGEST_METADATA = 16 * 1024 * 1024
MOST_BULK_PARTS = 10_000


@dataclass
class StoreRequest:
    """Takes one request's body and says what became of each instance. Blocking: it runs in a thread of its own.

    ``study_instance_uid``: of a request to ``studies/{study}``, else None. ``receive`` says where instances come in and
    how long they may be.
    """

    intake: Intake
    receive: ReceiveSettings
    peer_address: str
    study_instance_uid: str | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    outcomes: list[Outcome] = field(default_factory=list)
    _open: list[StoreSink] = field(default_factory=list)
    _metadata: list[bytearray] = field(default_factory=list)
    _bulk: dict[str, BulkData] = field(default_factory=dict)

    def take(self, kind: MediaType, chunks: Iterable[bytes]) -> list[Outcome]:
        """Stores what the body holds. Raises RequestError where no instance was stored and the body itself is wrong."""
        try:
            if kind.name == media.DICOM:
                self._take_alone(chunks)
            elif kind.is_multipart and kind.inner in (media.DICOM, media.JSON, media.XML):
                self._take_parts(kind, chunks)
            else:
                raise UnsupportedMediaType(
                    f"{kind.name or 'nothing'}: send multipart/related of application/dicom, application/dicom+json or "
                    "application/dicom+xml, or one application/dicom"
                )
        except BadRequest as error:
            if not any(one.failure is None for one in self.outcomes):
                raise
            # what was stored before the body broke is stored: the sender must hear of it
            self.outcomes.append(Outcome("", "", "", "", CannotUnderstand(str(error))))
        finally:
            for sink in self._open:
                sink.discard()
        return self.outcomes

    def _take_alone(self, chunks: Iterable[bytes]) -> None:
        part = InstancePart(self._sink, self._instance_ends)
        for chunk in chunks:
            part.write(chunk)
        part.end()

    def _take_parts(self, kind: MediaType, chunks: Iterable[bytes]) -> None:
        open_part: Callable[[Mapping[str, str]], Part]
        open_part = self._instance_part if kind.inner == media.DICOM else self._other_part(kind.inner)
        reader = MultipartReader(kind.parameters.get("boundary", ""), open_part)
        for chunk in chunks:
            reader.feed(chunk)
        reader.close()
        if kind.inner != media.DICOM:
            self._store_metadata(kind.inner)

    # application/dicom

    def _instance_part(self, headers: Mapping[str, str]) -> Part:
        said = headers.get("content-type")
        if said and media.content_type(said).name != media.DICOM:
            return _Unwanted(self, f"a part of {said[:60]!r} among application/dicom")
        return InstancePart(self._sink, self._instance_ends)

    def _sink(self, meta: FileMeta) -> StoreSink:
        header = meta_header(
            meta.sop_class_uid,
            meta.sop_instance_uid,
            meta.transfer_syntax_uid,
            source_ae_title=self._calling(meta),
            receiving_ae_title=self.receive.ae_title,
        )
        sink = StoreSink(
            self.receive.spool,
            header,
            reserve_bytes=self.receive.disk_reserve_bytes,
            max_bytes=self.receive.max_film_bytes,
        )
        self._open.append(sink)
        return sink

    def _calling(self, meta: FileMeta) -> str:
        title = meta.source_ae_title
        sound = 0 < len(title) <= 16 and all(" " <= letter <= "~" and letter != "\\" for letter in title)
        return title if sound else NAMELESS

    def _instance_ends(self, part: InstancePart) -> None:
        if part.failure is not None or part.sink is None or part.meta is None:
            self._refused(part.meta, part.failure or CannotUnderstand("the part is empty"), "")
        else:
            self._store(part.meta, part.sink)

    def _store(self, meta: FileMeta, sink: StoreSink) -> None:
        study, warning = "", None
        try:
            sink.finish()
            header = read_header(
                sink.path, sink.data_set_offset, meta.transfer_syntax_uid, inflate_limit=self.receive.max_film_bytes
            )
            sop_class, sop_instance = text_of(header, SOP_CLASS), text_of(header, SOP_INSTANCE)
            said = FileMeta(sop_class, sop_instance, meta.transfer_syntax_uid, 0, meta.source_ae_title)
            uids = checked_uids(header, sop_class_uid=sop_class, sop_instance_uid=sop_instance)
            if (said.sop_class_uid, said.sop_instance_uid) != (meta.sop_class_uid, meta.sop_instance_uid):
                # real files carry the meta header of another instance: the data set says who it is
                meta, sink, warning = said, self._written_again(sink, said), DOES_NOT_MATCH_META
            study = uids.study_instance_uid
            if self.study_instance_uid not in (None, study):
                raise DoesNotMatch("Study Instance UID differs from the one in the address")
            status = self.intake.take(
                ReceivedInstance(
                    path=sink.path,
                    sop_class_uid=uids.sop_class_uid,
                    sop_instance_uid=uids.sop_instance_uid,
                    study_instance_uid=study,
                    series_instance_uid=uids.series_instance_uid,
                    transfer_syntax_uid=meta.transfer_syntax_uid,
                    size_bytes=sink.size_bytes,
                    sha256=sink.sha256,
                    calling_ae_title=self._calling(meta),
                    called_ae_title=self.receive.ae_title,
                    peer_address=self.peer_address,
                    association_id=self.request_id,
                    message_id=len(self.outcomes) % 65535 + 1,
                    priority=0,
                    move_originator_ae_title="",
                    move_originator_message_id=None,
                    header=header,
                )
            )
            if not status.succeeded or sink.path.exists():
                raise OutOfResources("instance was not taken over; see the log")
        except StoreFailure as failure:
            sink.discard()
            self._refused(meta, failure, study)
        except Exception:
            sink.discard()
            log.exception("store_failed", request=self.request_id, sop_instance=meta.sop_instance_uid)
            self._refused(meta, OutOfResources("unexpected error, send again; see the log"), study)
        else:
            sink.close()
            self.outcomes.append(
                Outcome(meta.sop_class_uid, meta.sop_instance_uid, study, uids.series_instance_uid, None, warning)
            )
        self._open.remove(sink)

    def _written_again(self, sink: StoreSink, meta: FileMeta) -> StoreSink:
        """The same data set behind another meta header."""
        again = self._sink(meta)
        with sink.path.open("rb") as file:
            file.seek(sink.data_set_offset)
            while piece := file.read(_PIECE):
                again.write(piece)
        sink.discard()
        self._open.remove(sink)
        again.finish()
        return again

    def _refused(self, meta: FileMeta | None, failure: StoreFailure, study: str) -> None:
        sop_class = meta.sop_class_uid if meta else ""
        sop_instance = meta.sop_instance_uid if meta else ""
        self.outcomes.append(Outcome(sop_class, sop_instance, study, "", failure))
        try:
            self.intake.note_refusal(
                Refusal(
                    status=failure.code,
                    comment=failure.status.comment,
                    calling_ae_title=self._calling(meta) if meta else NAMELESS,
                    peer_address=self.peer_address,
                    association_id=self.request_id,
                    sop_class_uid=sop_class,
                    sop_instance_uid=sop_instance,
                    study_instance_uid=study,
                )
            )
        except StoreError as error:
            log.warning("a refusal was not noted", error=str(error))

    # metadata and bulk data

    def _other_part(self, metadata_type: str) -> Callable[[Mapping[str, str]], Part]:
        def open_part(headers: Mapping[str, str]) -> Part:
            kind = media.content_type(headers.get("content-type") or metadata_type)
            if kind.name == metadata_type:
                return _MetadataPart(self)
            place = headers.get("content-location", "")
            if not place:
                return _Unwanted(self, "bulk data without a Content-Location")
            return _BulkPart(self, place, kind)

        return open_part

    def _store_metadata(self, kind: str) -> None:
        for one in _read_metadata([bytes(one) for one in self._metadata], kind):
            sop_class, sop_instance = announced(one)
            meta = FileMeta(sop_class, sop_instance, "", 0)
            if not is_uid(sop_class) or not is_uid(sop_instance):
                self._refused(None, CannotUnderstand("SOP Class or Instance UID is missing or malformed"), "")
                continue
            try:
                meta, sink = assemble(one, self._bulk, self._sink)
            except StoreFailure as failure:
                self._refused(meta, failure, "")
            else:
                self._store(meta, sink)


def _read_metadata(documents: Sequence[bytes], kind: str) -> list[dict[str, Any]]:
    if not b"".join(documents).strip():
        raise BadRequest("the request has no metadata")
    if kind == media.XML:
        return [one for document in documents for one in from_xml(document)]
    found: list[Any] = []
    for document in documents:
        try:
            read = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the metadata is no JSON: {error}") from error
        found += read if isinstance(read, list) else [read]
    if not found or not all(isinstance(one, dict) and all(isinstance(v, dict) for v in one.values()) for one in found):
        raise BadRequest("the metadata is no array of data sets in the DICOM JSON model (PS3.18 F)")
    return found


class _MetadataPart:
    """Collects metadata: of XML one document in each part, of JSON one array in all."""

    def __init__(self, request: StoreRequest) -> None:
        self._request = request
        self._request._metadata.append(bytearray())

    def write(self, content: bytes | memoryview) -> None:
        """The next piece."""
        if sum(map(len, self._request._metadata)) + len(content) > LARGEST_METADATA:
            raise TooLarge(f"metadata of more than {LARGEST_METADATA >> 20} MiB: send the bulk data apart")
        self._request._metadata[-1] += content

    def end(self) -> None:
        """It is complete."""


class _BulkPart:
    """Bulk data on its way to a file of its own."""

    def __init__(self, request: StoreRequest, place: str, kind: MediaType) -> None:
        if len(request._bulk) >= MOST_BULK_PARTS:
            raise TooLarge(f"more than {MOST_BULK_PARTS} parts of bulk data")
        self._request, self._place, self._kind = request, place, kind
        receive = request.receive
        self._sink = StoreSink(
            receive.spool, b"", reserve_bytes=receive.disk_reserve_bytes, max_bytes=receive.max_film_bytes
        )
        request._open.append(self._sink)

    def write(self, content: bytes | memoryview) -> None:
        """The next piece."""
        self._sink.write(content)

    def end(self) -> None:
        """It is complete, or the instance that needs it will lack it."""
        try:
            self._sink.finish()
        except StoreFailure as failure:
            log.warning("bulk data was not kept", request=self._request.request_id, why=str(failure))
            return
        self._request._bulk[self._place] = BulkData(
            self._sink.path, self._sink.size_bytes, self._kind.name, self._kind.transfer_syntax
        )


class _Unwanted:
    """A part that has no place in the request: read over, and told."""

    def __init__(self, request: StoreRequest, why: str) -> None:
        self._request, self._why = request, why

    def write(self, content: bytes | memoryview) -> None:
        """The next piece."""

    def end(self) -> None:
        """Says that it was not taken."""
        self._request._refused(None, CannotUnderstand(self._why), "")
