"""Stored values to what a radiologist sees: Modality LUT, VOI LUT or window, polarity [PS3.3 C.11.1, .2, C.8.11.3]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from firstread.models.header import integer, items, number, text

FloatImage = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
"""What becomes black and white where the film says nothing of use: outliers (markers, dead pixels) do not count."""

LEAST_SPREAD_IN_WINDOW = 0.08
"""A window of which the film uses less than this share shows an even grey: taken for a mistake."""

BLANK = 0.002
"""A film of which the values spread over less than this share of its bits is blank: stretched, it would be noise."""

MOST_CLIPPED = 0.95
"""A window that makes more than this share of the film plain black or plain white is taken for a mistake."""


@dataclass(frozen=True)
class LookUpTable:
    """A Modality or VOI LUT: ``outputs[i]`` belongs to the input ``first + i`` [C.11.1.1, C.11.2.1.1]."""

    first: int
    outputs: FloatImage
    bits: int

    def __call__(self, values: FloatImage) -> FloatImage:
        """Look up, between two entries in proportion (shrunk films hold fractions), beyond the ends the end."""
        inputs = np.arange(self.first, self.first + len(self.outputs), dtype=np.float32)
        return np.interp(values, inputs, self.outputs).astype(np.float32)


def to_display(
    header: Dataset, values: FloatImage, padding: Mask | None, notes: list[str], *, trust_window: bool = False
) -> FloatImage:
    """Stored values [rows, columns] to [0, 1], bone bright; padding is 0. ``values`` may be overwritten.

    What the header holds against the standard is stepped over, and ``notes`` says so. ``trust_window``: its window is
    taken whatever it shows of the film, because somebody chose it.
    """
    values = _modality(header, values, notes)
    film = values if padding is None else values[~padding]
    if film.size == 0:
        notes.append("the whole film is padding")
        return np.zeros_like(values)
    shown = _voi(header, values, film, notes, trust_window)
    if _dark_bones(header, notes):
        np.subtract(1.0, shown, out=shown)
    if padding is not None:
        shown[padding] = 0.0
    return shown


def _modality(header: Dataset, values: FloatImage, notes: list[str]) -> FloatImage:
    for item in items(header, "ModalityLUTSequence")[:1]:
        table = look_up_table(item)
        if table is not None:
            return table(values)
        notes.append("Modality LUT unreadable: left out")
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if slope == 0 or (slope is not None and abs(slope) > 1e6) or abs(intercept or 0) > 1e9:
        notes.append(f"rescale slope {slope}, intercept {intercept} make no sense: left out")
        return values
    if slope is not None and slope != 1:
        values *= np.float32(slope)
    if intercept:
        values += np.float32(intercept)
    return values


def _voi(header: Dataset, values: FloatImage, film: FloatImage, notes: list[str], trust_window: bool) -> FloatImage:
    low, high = _spread(film)
    for item in items(header, "VOILUTSequence")[:1]:
        table = look_up_table(item)
        if table is not None:
            darkest, brightest = _range_of(table)
            ends = table(np.array([low, high], np.float32))
            if abs(float(ends[1] - ends[0])) >= LEAST_SPREAD_IN_WINDOW * (brightest - darkest) > 0:
                return _stretched(table(values), darkest, brightest)
        notes.append("VOI LUT unreadable or beside the film's values: left out")
    blank = high - low < BLANK * _full_range(header)
    centre, width = number(header, "WindowCenter"), number(header, "WindowWidth")
    if centre is not None and width is not None:
        function = text(header, "VOILUTFunction").upper() or "LINEAR"
        ramp = _ramp(function, centre, width)
        if ramp is not None and (trust_window or blank or _makes_sense(ramp, function, low, high, film)):
            return _through(function, centre, width, ramp, values)
        notes.append(f"window {centre:g}/{width:g} makes no sense for this film: percentiles instead")
    if blank:
        notes.append("the film is blank")
        middle = (low + high) / 2
        return _stretched(values, middle - _full_range(header) / 2, middle + _full_range(header) / 2)
    return _stretched(values, low, high)


def _full_range(header: Dataset) -> float:
    """How far values can lie apart: all stored bits, rescaled."""
    bits = integer(header, "BitsStored") or integer(header, "BitsAllocated") or 16
    return float(1 << min(max(bits, 1), 16)) * abs(number(header, "RescaleSlope") or 1.0)


def _spread(film: FloatImage) -> tuple[float, float]:
    sample = film[:: max(1, film.shape[0] // 512), :: max(1, film.shape[1] // 512)] if film.ndim == 2 else film[::7]
    low, high = np.percentile(sample if sample.size else film, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return float(low), float(high)


def _ramp(function: str, centre: float, width: float) -> tuple[float, float] | None:
    """The values that become black and white (for a sigmoid: nearly), None for a width without meaning [C.11.2.1.2]."""
    if function == "LINEAR_EXACT":
        return (centre - width / 2, centre + width / 2) if width > 0 else None
    if function == "SIGMOID":
        return (centre - width, centre + width) if width > 0 else None
    # LINEAR: a width of 1 is allowed and is a threshold, which is no picture of a chest.
    return (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2) if width > 1 else None


def _makes_sense(ramp: tuple[float, float], function: str, low: float, high: float, film: FloatImage) -> bool:
    black, white = ramp
    inside = min(high, white) - max(low, black)
    if inside < LEAST_SPREAD_IN_WINDOW * (white - black):
        return False
    if function == "SIGMOID":
        return True
    sample = film[::4, ::4] if film.ndim == 2 else film[::16]
    return float(np.mean(sample <= black)) <= MOST_CLIPPED and float(np.mean(sample >= white)) <= MOST_CLIPPED


def _through(function: str, centre: float, width: float, ramp: tuple[float, float], values: FloatImage) -> FloatImage:
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60, 60))), np.float32)
    return _stretched(values, *ramp)


def _stretched(values: FloatImage, black: float, white: float) -> FloatImage:
    values -= np.float32(black)
    values /= np.float32(white - black)
    return np.clip(values, 0.0, 1.0, out=values)


def _dark_bones(header: Dataset, notes: list[str]) -> bool:
    """MONOCHROME1 and the shape INVERSE are one statement made twice [C.8.11.3.1.2]: one inversion for both."""
    photometric = text(header, "PhotometricInterpretation").upper()
    shape = text(header, "PresentationLUTShape").upper()
    known = photometric in ("MONOCHROME1", "MONOCHROME2") and shape in ("IDENTITY", "INVERSE")
    if known and (photometric == "MONOCHROME1") != (shape == "INVERSE"):
        notes.append(f"{photometric} and Presentation LUT Shape {shape} contradict each other: inverted once")
    return photometric == "MONOCHROME1" or (photometric in ("MONOCHROME2", "") and shape == "INVERSE")


def _range_of(table: LookUpTable) -> tuple[float, float]:
    """What is black and white of a VOI LUT: its bits, unless makers' LUTs use far less or more than they say."""
    brightest, full = float(table.outputs.max()), float((1 << table.bits) - 1)
    if brightest > full or brightest < full / 2:
        return float(table.outputs.min()), brightest
    return 0.0, full


def look_up_table(item: Dataset) -> LookUpTable | None:
    """The LUT of one item of a LUT sequence, None when it cannot be understood."""
    try:
        descriptor = [int(value) for value in item.LUTDescriptor]
        entries, first, bits = descriptor[0] & 0xFFFF or 65536, descriptor[1], descriptor[2]
        stored = item.LUTData
    except Exception:  # absent, of the wrong VR, or of the wrong multiplicity
        return None
    if integer(item, "LUTDescriptor") is None or not 1 <= bits <= 16:
        return None
    if isinstance(stored, bytes):
        order = "<" if item.is_little_endian in (None, True) else ">"
        wide = len(stored) >= 2 * entries
        outputs = np.frombuffer(stored[: len(stored) // 2 * 2] if wide else stored, f"{order}u2" if wide else np.uint8)
    else:
        outputs = np.atleast_1d(np.asarray(stored, np.int64)) & 0xFFFF
        if bits <= 8 and len(outputs) * 2 in (entries, entries + 1):  # two entries to a word
            outputs = outputs.astype("<u2").view(np.uint8)
    outputs = outputs[:entries]
    if len(outputs) < 2 or len(outputs) < entries // 2:
        return None
    return LookUpTable(first, outputs.astype(np.float32), bits)
