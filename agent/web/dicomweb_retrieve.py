"""WADO-RS: objects, metadata, frames and bulk data, as they lie here or otherwise without a loss (PS3.18 10.4)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from firstread.agent.store import holdings
from firstread.agent.store.holdings import HeldObject
from firstread.agent.web.dicomweb import Dicomweb, NotHeld, acceptable, base_url, data_sets, uid_of
from firstread.agent.web.dicomweb_work import LOSSLESS_TARGETS, TranscodeOrder
from firstread.integration.dicom.pixel_data import NoFrames, PixelData, find_pixel_data, pieces
from firstread.integration.dicomweb import media, multipart
from firstread.integration.dicomweb.errors import BadRequest, NotAcceptable
from firstread.integration.dicomweb.media import FRAME_TYPES, MediaType
from firstread.integration.dicomweb.metadata import bulk_value, metadata

log = structlog.get_logger()

EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
MOST_FRAMES = 1000

_LOSSY = frozenset(
    ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91",
     "1.2.840.10008.1.2.4.93", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.203")
)  # fmt: skip


def held_objects(shared: Dicomweb, request: Request) -> list[HeldObject]:
    """The objects that an address means, at least one. Raises NotHeld."""
    uids = [uid_of(request, name) for name in ("study", "series", "instance") if name in request.path_params]
    found: list[HeldObject] = []
    after = 0
    with shared.store.read() as connection:
        while page := holdings.objects(connection, *uids, after=after):
            found += [held for _, held in page]
            after = page[-1][0]
    if not found:
        raise NotHeld("nothing of that UID is held here")
    return found


def place_of(held: HeldObject, root: str) -> str:
    """The address of an object."""
    return (
        f"{root}/studies/{held.study_instance_uid}/series/{held.series_instance_uid}/instances/{held.sop_instance_uid}"
    )


class Retrieve:
    """Handlers of the retrieve service."""

    def __init__(self, shared: Dicomweb) -> None:
        self._shared = shared

    def instances(self, request: Request) -> Response:
        """Every object of a study or series, or one: multipart/related, or one application/dicom alone."""
        found = held_objects(self._shared, request)
        chosen = None
        types = acceptable(request)
        for one in types:
            alone = None if len(found) == 1 else True
            if media.choose([one], (media.DICOM,), multipart=alone) and self._possible(one.transfer_syntax):
                chosen = one
                break
        if chosen is None:
            raise NotAcceptable(
                'objects come as multipart/related; type="application/dicom", one alone as application/dicom, in a '
                f"transfer-syntax of *, {', '.join(LOSSLESS_TARGETS)}"
            )
        root = base_url(request)
        if len(found) == 1:
            syntax, content = self._content(found[0], chosen.transfer_syntax, strictly=True)
            if chosen.name == media.DICOM:
                return StreamingResponse(content, 200, media_type=f"{media.DICOM}; transfer-syntax={syntax}")
            return _multipart([(_part(found[0], syntax, root), content)], media.DICOM)
        self._shared.holdings.path(found[0]).stat()  # what is gone is told before the answer has begun
        return _multipart(self._parts(found, chosen.transfer_syntax, root), media.DICOM)

    def metadata(self, request: Request) -> Response:
        """What the headers of objects say, large values by reference."""
        written, root = [], base_url(request)
        found = held_objects(self._shared, request)
        for held in found:
            path = self._shared.holdings.path(held)
            try:
                written.append(metadata(path, f"{place_of(held, root)}/bulkdata"))
            except FileNotFoundError:
                if len(found) == 1:
                    raise
            except Exception as error:  # pydicom raises many kinds on hostile files; the other objects are shown
                log.warning("metadata cannot be read", sop_instance=held.sop_instance_uid, error=str(error))
        return data_sets(request, written, {})

    def frames(self, request: Request) -> Response:
        """Frames as they are stored, or decoded."""
        held = held_objects(self._shared, request)[0]
        numbers = frame_numbers(request)
        path = self._shared.holdings.path(held)
        path.stat()
        for wanted in acceptable(request):
            made = self._frames_as(held, path, numbers, wanted)
            if made is not None:
                break
        else:
            raise NotAcceptable(
                f"frames of this object come as {FRAME_TYPES.get(held.transfer_syntax_uid, media.OCTETS)} or "
                f"{media.OCTETS}"
            )
        name, syntax, contents = made
        if not wanted.is_multipart and wanted.name != "*/*" and len(contents) == 1:
            return StreamingResponse(contents[0], 200, media_type=name)
        place = f"{place_of(held, base_url(request))}/frames"
        heads = [
            {"Content-Type": f"{name}; transfer-syntax={syntax}", "Content-Location": f"{place}/{number}"}
            for number in numbers
        ]
        return _multipart(zip(heads, contents, strict=True), name)

    def bulk_data(self, request: Request) -> Response:
        """One value that the metadata names by reference."""
        held = held_objects(self._shared, request)[0]
        path, place = self._shared.holdings.path(held), str(request.path_params["path"])
        chosen = media.choose(acceptable(request), (media.OCTETS, *set(FRAME_TYPES.values())))
        if chosen is None:
            raise NotAcceptable(f"bulk data comes as {media.OCTETS}")
        contents: list[Iterator[bytes]]
        name = media.OCTETS
        try:
            pixels = find_pixel_data(path) if place.upper() == "7FE00010" else None
            if pixels is None:
                value, _ = bulk_value(path, place)
                contents = [iter((value,))]
            elif pixels.length is not None:
                contents = [pieces(path, pixels.start, pixels.length)]
            else:
                name = FRAME_TYPES.get(pixels.transfer_syntax_uid, media.OCTETS)
                contents = [pixels.frame(number) for number in range(1, min(pixels.frames, MOST_FRAMES) + 1)]
        except (KeyError, NoFrames) as error:
            raise NotHeld(f"the object has no bulk data at {place[:60]!r}") from error
        if not chosen[0].is_multipart and len(contents) == 1:
            return StreamingResponse(contents[0], 200, media_type=name)
        return _multipart([({"Content-Type": name}, content) for content in contents], name)

    # objects

    @staticmethod
    def _possible(transfer_syntax: str) -> bool:
        return transfer_syntax in ("", "*") or transfer_syntax in LOSSLESS_TARGETS or transfer_syntax in FRAME_TYPES

    def _content(self, held: HeldObject, wanted: str, *, strictly: bool) -> tuple[str, Iterator[bytes]]:
        """An object's bytes and their transfer syntax. Nothing in particular wanted means explicit little endian
        (PS3.18 8.7.3.3.2), but what was compressed with a loss stays as it is. Not ``strictly``: as it is, rather than
        not at all."""
        path, stored = self._shared.holdings.path(held), held.transfer_syntax_uid
        if not wanted:
            wanted = stored if stored in _LOSSY else EXPLICIT
            strictly = False
        if wanted not in ("*", stored):
            made = None
            if wanted in LOSSLESS_TARGETS:
                made = self._shared.helpers.ask(TranscodeOrder(path, wanted))
                if made.answer is not None and not made.answer.why_not:
                    return wanted, iter((made.answer.content,))
            if strictly:
                why = (made.answer.why_not if made.answer else made.failure) if made else "it would need a lossy step"
                raise NotAcceptable(f"the object cannot be brought from {stored} to {wanted}: {why}")
        path.stat()
        return stored, pieces(path, 0)

    def _parts(
        self, found: list[HeldObject], wanted: str, root: str
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        for held in found:
            try:
                syntax, content = self._content(held, wanted, strictly=False)
            except FileNotFoundError:
                continue  # its days were over meanwhile
            yield _part(held, syntax, root), content

    # frames

    def _frames_as(
        self, held: HeldObject, path: Path, numbers: list[int], wanted: MediaType
    ) -> tuple[str, str, list[Iterator[bytes]]] | None:
        """Media type, transfer syntax and contents; None where this type cannot be given."""
        stored = held.transfer_syntax_uid
        own = FRAME_TYPES.get(stored)
        decoded = wanted.inner == media.OCTETS and not wanted.transfer_syntax
        as_stored = wanted.transfer_syntax in ("", "*", stored) and not decoded
        try:
            if own is not None and as_stored and (wanted.covers(own) or wanted.covers(media.OCTETS)):
                pixels: PixelData | _Decoded = find_pixel_data(path)
                return own, stored, [pixels.frame(number) for number in numbers]
            if not wanted.covers(media.OCTETS) or wanted.transfer_syntax not in ("", "*", EXPLICIT):
                return None
            pixels = self._native(held, path)
            return media.OCTETS, EXPLICIT, [pixels.frame(number) for number in numbers]
        except NoFrames as error:
            raise NotHeld(str(error)) from error

    def _native(self, held: HeldObject, path: Path) -> PixelData | _Decoded:
        if held.transfer_syntax_uid in (EXPLICIT, "1.2.840.10008.1.2"):
            return find_pixel_data(path)
        made = self._shared.helpers.ask(TranscodeOrder(path, EXPLICIT))
        if made.answer is None or made.answer.why_not:
            why = made.answer.why_not if made.answer else made.failure
            raise NotAcceptable(f"the frames cannot be decoded: {why}")
        return _Decoded(made.answer.content)


class _Decoded:
    """Frames of an object that was decoded in memory."""

    def __init__(self, content: bytes) -> None:
        dataset = dcmread(io.BytesIO(content))
        self._value = bytes(dataset.get("PixelData", b""))
        self._frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))

    def frame(self, number: int) -> Iterator[bytes]:
        """The bytes of a frame. Raises NoFrames."""
        size = len(self._value) // self._frames
        if not 1 <= number <= self._frames or not size:
            raise NoFrames(f"frame {number} of {self._frames if size else 0}")
        return iter((self._value[size * (number - 1) : size * number],))


def frame_numbers(request: Request) -> list[int]:
    """The frames of an address (``1,3``). Raises BadRequest."""
    text = str(request.path_params["frames"])
    numbers = text.split(",")
    if len(numbers) > MOST_FRAMES or not all(one.isascii() and one.isdigit() and 0 < len(one) < 10 for one in numbers):
        raise BadRequest(f"{text[:40]!r} is no list of frame numbers (the first is 1)")
    if any(int(one) < 1 for one in numbers):
        raise BadRequest("the first frame is number 1")
    return [int(one) for one in numbers]


def _part(held: HeldObject, syntax: str, root: str) -> dict[str, str]:
    return {"Content-Type": f"{media.DICOM}; transfer-syntax={syntax}", "Content-Location": place_of(held, root)}


def _multipart(parts: Any, kind: str) -> Response:
    boundary = multipart.new_boundary()
    content = multipart.written(boundary, parts)
    return StreamingResponse(content, 200, media_type=f'multipart/related; type="{kind}"; boundary={boundary}')
