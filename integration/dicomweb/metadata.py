"""A data set's metadata in the DICOM JSON model, large values by reference (PS3.18 10.4.1.1.2, F.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread

LARGEST_INLINE = 4096
"""Bytes of a binary value that stands in the metadata itself."""

_LEFT_IN_FILE = 64 * 1024
_BULK = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_PIXEL_DATA = 0x7FE00010


def metadata(path: Path, bulk_url: str) -> dict[str, Any]:
    """The metadata of a Part 10 file without its meta header. ``bulk_url``: where its bulk data is, no last slash.

    A value that breaks its VR is left out. Raises OSError, and what pydicom raises where the file is no DICOM.
    """
    dataset = dcmread(path, defer_size=_LEFT_IN_FILE)
    result = _written(dataset, bulk_url)
    result["00083002"] = {"vr": "UI", "Value": [str(dataset.file_meta.TransferSyntaxUID)]}
    return dict(sorted(result.items()))


def bulk_value(path: Path, place: str) -> tuple[bytes, str]:
    """A value by its place (``7FE00010``, ``54000100/0/54001010``) and its VR. Raises KeyError."""
    dataset = dcmread(path, defer_size=_LEFT_IN_FILE)
    steps = place.split("/")
    if len(steps) % 2 == 0:
        raise KeyError(place)
    for sequence, number in zip(steps[:-1:2], steps[1:-1:2], strict=True):
        element = dataset[_tag(sequence)]
        if element.VR != "SQ" or not number.isdigit() or int(number) >= len(element.value):
            raise KeyError(place)
        dataset = element.value[int(number)]
    element = dataset[_tag(steps[-1])]
    if not isinstance(element.value, bytes):
        raise KeyError(place)
    return element.value, str(element.VR)


def _tag(text: str) -> int:
    if len(text) != 8 or not text.isascii():
        raise KeyError(text)
    try:
        return int(text, 16)
    except ValueError as error:
        raise KeyError(text) from error


def _written(dataset: Dataset, place: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group == 2:
            continue
        name = f"{tag.group:04X}{tag.element:04X}"
        try:
            element = _element(dataset, tag, f"{place}/{name}")
        except Exception:  # pydicom raises many kinds on values that break their VR  # noqa: S112
            continue
        result[name] = element
    return result


def _element(dataset: Dataset, tag: Any, place: str) -> dict[str, Any]:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value is None and raw.length:
        return {"vr": raw.VR or _vr_of(dataset, tag), "BulkDataURI": place}
    element = dataset[tag]
    if element.VR == "SQ":
        items = [_written(item, f"{place}/{number}") for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BULK and (tag == _PIXEL_DATA or len(element.value or b"") > LARGEST_INLINE):
        return {"vr": element.VR, "BulkDataURI": place}
    written: dict[str, Any] = element.to_json_dict(None, LARGEST_INLINE)
    return written


def _vr_of(dataset: Dataset, tag: Any) -> str:
    from pydicom.datadict import dictionary_VR

    if tag == _PIXEL_DATA:
        allocated = dataset.get("BitsAllocated", 16)
        return "OB" if allocated == 8 else "OW"
    try:
        return str(dictionary_VR(tag)).split(" ", maxsplit=1)[0]
    except KeyError:
        return "UN"
