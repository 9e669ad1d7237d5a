"""One film as a radiologist sees it: a DICOM file to one upright grey image, bone bright."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from firstread.models import codecs
from firstread.models.codecs import Codec, CodecError, Codestream, IntegerImage
from firstread.models.eligibility import SMALLEST_SIDE, is_for_processing
from firstread.models.findings import ReasonCode
from firstread.models.greyscale import FloatImage, Mask, to_display
from firstread.models.header import (
    UnreadableRadiograph,
    contains,
    describe,
    integer,
    read_data_set,
    read_header,
    refuse,
    text,
    texts,
)
from firstread.models.orientation import Orientation, turns
from firstread.models.shrink import shrink

__all__ = ["Orientation", "Radiograph", "UnreadableRadiograph", "read_header", "read_radiograph"]

LONGEST_SIDE = 12_000
MOST_PIXELS = 150_000_000
"""Above these nothing is allocated: the largest films made are some 30 million pixels."""

_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"})
_COLOURFUL = 40
"""Of 255: how far a pixel's channels lie apart before it counts as coloured."""
_MOST_COLOURED = 0.02
"""Share of coloured pixels above which a picture is no film (somebody's heat map, a photograph, a report page)."""

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "BitsAllocated", "PixelRepresentation")


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A film ready to be looked at.

    ``pixels``: float32 [rows, columns] in [0, 1], bone bright, head up and the patient's right on the image's left as
    far as PatientOrientation says so; padding is 0.
    ``orientation``: maps boxes between ``pixels`` and the stored film.
    ``notes``: what the file held against the standard and what was made of it.
    """

    pixels: FloatImage
    stored_rows: int
    stored_columns: int
    orientation: Orientation
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """How the header says that pixels are stored [PS3.3 C.7.6.3]."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: bool


def read_radiograph(path: Path | str, longest_side: int | None = None) -> Radiograph:
    """Read a film; with ``longest_side`` shrunk so that its longer side is at most that many pixels.

    Shrinking comes before anything is float, and inside the decoder where the codestream has levels.
    Raises ``UnreadableRadiograph`` and nothing else: FOR_PROCESSING, SEVERAL_FRAMES, NO_PIXEL_DATA, TOO_SMALL,
    NOT_A_RADIOGRAPH (a colour picture), CANNOT_DECODE (which codec, what error).
    """
    if longest_side is not None and longest_side < 1:
        raise ValueError("longest_side is a number of pixels")
    path = Path(path)
    header = read_header(path)
    try:
        return _read(path, header, longest_side)
    except UnreadableRadiograph:
        raise
    except MemoryError as error:
        raise refuse(ReasonCode.CANNOT_DECODE, "not enough memory for this film") from error
    except CodecError as error:
        raise refuse(ReasonCode.CANNOT_DECODE, str(error)) from error
    except Exception as error:  # whatever hostile pixels bring about stays a reason for this one film
        raise refuse(ReasonCode.CANNOT_DECODE, f"{_syntax(header).name}: {describe(error)}") from error


def read_stored_values(path: Path, header: Dataset, longest_side: int) -> tuple[FloatImage, Mask | None]:
    """Values of a single grey frame as stored, the way round that it is stored, and its padding; shrunk like
    :func:`read_radiograph`. For pictures of any size and purpose. Raises UnreadableRadiograph, or what codecs raise."""
    notes: list[str] = []
    layout = _layout(header, notes, any_purpose=True)
    image, layout = _stored_values(path, header, layout, longest_side, notes)
    if image.ndim == 3:
        image = _luminance(image)
    return shrink(image, _padding(header, image, layout), longest_side)


def _read(path: Path, header: Dataset, longest_side: int | None) -> Radiograph:
    notes: list[str] = []
    layout = _layout(header, notes)
    image, layout = _stored_values(path, header, layout, longest_side, notes)
    padding = None
    if image.ndim == 3:
        image = _luminance(image)
    elif layout.photometric == "PALETTE COLOR":
        image = _luminance(_palette(header, image))
    else:
        padding = _padding(header, image, layout)
    values, padding = shrink(image, padding, longest_side)
    shown = to_display(header, values, padding, notes)
    transposed, mirrored, upside_down = turns(texts(header, "PatientOrientation"))
    rows, columns = shown.shape[::-1] if transposed else shown.shape
    orientation = Orientation(layout.rows, layout.columns, rows, columns, transposed, mirrored, upside_down)
    return Radiograph(orientation.upright(shown), layout.rows, layout.columns, orientation, tuple(notes))


def _layout(header: Dataset, notes: list[str], *, any_purpose: bool = False) -> _Layout:
    """What the header promises, refused where no film can come of it."""
    if is_for_processing(header) and not any_purpose:
        raise refuse(ReasonCode.FOR_PROCESSING, "raw detector values have no display meaning")
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    if rows is None or columns is None:
        raise refuse(ReasonCode.NO_PIXEL_DATA, "Rows or Columns are missing")
    frames = integer(header, "NumberOfFrames") or 1
    if frames > 1:
        raise refuse(ReasonCode.SEVERAL_FRAMES, f"{frames} frames in one object")
    if rows > LONGEST_SIDE or columns > LONGEST_SIDE or rows * columns > MOST_PIXELS:
        raise refuse(ReasonCode.CANNOT_DECODE, f"{columns} x {rows} pixels: no film is that large")
    if min(rows, columns) < SMALLEST_SIDE and not any_purpose:
        raise refuse(ReasonCode.TOO_SMALL, f"{columns} x {rows} pixels")
    samples = integer(header, "SamplesPerPixel") or 1
    photometric = text(header, "PhotometricInterpretation").upper()
    if not photometric:
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
        notes.append(f"Photometric Interpretation is missing: taken as {photometric}")
    expected = 3 if photometric in _COLOUR else 1
    if photometric not in _COLOUR | {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"} or samples != expected:
        raise refuse(ReasonCode.CANNOT_DECODE, f"{photometric} with {samples} samples per pixel is not read")
    allocated = integer(header, "BitsAllocated")
    if allocated not in (8, 16):
        raise refuse(ReasonCode.CANNOT_DECODE, f"{allocated or 'no'} bits allocated: films have 8 or 16")
    stored = integer(header, "BitsStored") or allocated
    high_bit = integer(header, "HighBit")
    if not 1 <= stored <= allocated:
        notes.append(f"{stored} bits stored of {allocated} allocated: taken as {allocated}")
        stored = allocated
    if high_bit is None or not stored - 1 <= high_bit < allocated:
        if high_bit is not None:
            notes.append(f"High Bit {high_bit} does not fit {stored} bits stored: taken as {stored - 1}")
        high_bit = stored - 1
    return _Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=integer(header, "PixelRepresentation") == 1,
        planar=integer(header, "PlanarConfiguration") == 1,
    )


def _syntax(header: Dataset) -> UID:
    meta = getattr(header, "file_meta", None)
    return UID(str(meta.get("TransferSyntaxUID", "") or "")) if meta is not None else UID("")


def _stored_values(
    path: Path, header: Dataset, layout: _Layout, longest_side: int | None, notes: list[str]
) -> tuple[IntegerImage, _Layout]:
    """The film's values as stored: [rows, columns] or [rows, columns, 3], maybe halved by the decoder."""
    pixels = read_data_set(path, keywords=_PIXEL_KEYWORDS)
    if "PixelData" not in pixels:
        if "FloatPixelData" in pixels or "DoubleFloatPixelData" in pixels:
            raise refuse(ReasonCode.CANNOT_DECODE, "floating point pixels are not read")
        if contains(path, b"\xe0\x7f\x10\x00"):  # begun, but its end was not found
            raise refuse(ReasonCode.CANNOT_DECODE, "the file is cut short within its Pixel Data")
        raise refuse(ReasonCode.NO_PIXEL_DATA, "the object has no Pixel Data")
    element = pixels["PixelData"]
    value = element.value
    if not isinstance(value, bytes | bytearray) or not value:
        raise refuse(ReasonCode.NO_PIXEL_DATA, "the Pixel Data is empty")
    syntax = _syntax(header)
    encapsulated = element.is_undefined_length or (not syntax.is_private and syntax.is_encapsulated)
    if not encapsulated:
        swapped = syntax == ExplicitVRBigEndian and element.VR == "OW" and layout.allocated == 8
        return _native(_swapped(value) if swapped else bytes(value), syntax, layout, notes), layout
    frame = _frame(bytes(value))
    if syntax == RLELossless:
        image = codecs.decode_rle(frame, layout.rows, layout.columns, layout.samples, layout.allocated // 8)
        return _unpacked(image, layout), layout
    stream = codecs.sniff(frame)
    if stream is None:
        name = syntax.name if syntax else "no transfer syntax"
        raise refuse(ReasonCode.CANNOT_DECODE, f"{name}: the pixel data is no codestream that is known here")
    _compare(stream, layout, syntax, notes)
    image = codecs.decode(frame, stream, longest_side if layout.photometric != "PALETTE COLOR" else None)
    return _settled(image, stream, layout)


def _frame(value: bytes) -> bytes:
    """All fragments of the only frame as one."""
    buffer = io.BytesIO(value)
    try:
        parse_basic_offsets(buffer)
        return b"".join(generate_fragments(buffer))
    except Exception as error:
        raise CodecError(f"the fragments of the pixel data are broken: {describe(error)}") from error


_FAMILIES = {
    "1.2.840.10008.1.2.4.50": Codec.JPEG,
    "1.2.840.10008.1.2.4.57": Codec.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Codec.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": Codec.JPEG_LS,
    "1.2.840.10008.1.2.4.81": Codec.JPEG_LS,
    "1.2.840.10008.1.2.4.90": Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.91": Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.201": Codec.HTJ2K,
    "1.2.840.10008.1.2.4.202": Codec.HTJ2K,
    "1.2.840.10008.1.2.4.203": Codec.HTJ2K,
}


def _compare(stream: Codestream, layout: _Layout, syntax: UID, notes: list[str]) -> None:
    """Refuse a codestream that is another image than the header says, before a decoder allocates for it."""
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        raise refuse(
            ReasonCode.CANNOT_DECODE,
            f"{stream.codec.value}: the header says {layout.columns} x {layout.rows} pixels, "
            f"the compressed image {stream.columns} x {stream.rows}",
        )
    if stream.components != layout.samples:
        raise refuse(
            ReasonCode.CANNOT_DECODE,
            f"{stream.codec.value}: {stream.components} components, but {layout.samples} samples per pixel",
        )
    if not 2 <= stream.precision <= 16:
        raise refuse(ReasonCode.CANNOT_DECODE, f"{stream.codec.value}: {stream.precision} bits a sample")
    if _FAMILIES.get(syntax, stream.codec) is not stream.codec:
        notes.append(f"the transfer syntax says {syntax.name}, the pixels are {stream.codec.value}")


def _native(value: bytes, syntax: UID, layout: _Layout, notes: list[str]) -> IntegerImage:
    samples = 2 if layout.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422") else layout.samples
    if layout.photometric == "YBR_PARTIAL_420":
        raise refuse(ReasonCode.CANNOT_DECODE, "YBR_PARTIAL_420 without compression is not read")
    width = layout.allocated // 8
    expected = layout.rows * layout.columns * samples * width
    if len(value) < expected:
        raise refuse(ReasonCode.CANNOT_DECODE, f"{len(value)} bytes of pixel data instead of {expected}")
    if len(value) > expected + expected % 2:
        notes.append(f"{len(value) - expected} bytes behind the pixels left out")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    flat = np.frombuffer(value, f"{order}u{width}", count=expected // width)
    if samples == 2:  # Y Y Cb Cr for two pixels [PS3.3 C.7.6.3.1.2]
        pairs = flat.reshape(-1, 4)
        chroma = np.repeat(pairs[:, None, 2:], 2, axis=1)
        full = np.concatenate([pairs[:, :2, None], chroma], axis=2)
        return _unpacked(full.reshape(layout.rows, layout.columns, 3), layout)
    if layout.samples == 1:
        return _unpacked(flat.reshape(layout.rows, layout.columns), layout)
    if layout.planar:
        return _unpacked(np.moveaxis(flat.reshape(3, layout.rows, layout.columns), 0, 2), layout)
    return _unpacked(flat.reshape(layout.rows, layout.columns, 3), layout)


def _swapped(value: bytes | bytearray) -> bytes:
    """Bytes that were written as big endian words, in the order of the pixels [PS3.5 8.2]."""
    even = bytes(value) + b"\0" * (len(value) % 2)
    return np.frombuffer(even, np.uint16).byteswap().tobytes()


def _unpacked(raw: IntegerImage, layout: _Layout) -> IntegerImage:
    """The stored bits alone, sign extended: what lies above HighBit (old overlays) is not the film [PS3.5 8.1.1]."""
    raw = raw.astype(np.uint8 if layout.allocated == 8 else np.uint16, copy=False)
    above = layout.allocated - 1 - layout.high_bit
    below = layout.high_bit + 1 - layout.stored
    if layout.signed:
        signed: IntegerImage = raw.view(np.int8) if layout.allocated == 8 else raw.view(np.int16)
        return (signed << above) >> (above + below) if above or below else signed
    if above == 0 and below == 0:
        return raw
    return (raw >> below if below else raw) & raw.dtype.type((1 << layout.stored) - 1)


def _settled(image: IntegerImage, stream: Codestream, layout: _Layout) -> tuple[IntegerImage, _Layout]:
    """Decoded values with the signedness that the header tells, and within the bits that it names."""
    if layout.signed and not stream.signed:
        shift = 32 - stream.precision
        image = (image.astype(np.int32) << shift) >> shift
    elif stream.signed and not layout.signed:
        image = image.astype(np.int32) & ((1 << stream.precision) - 1)
    if not layout.signed and layout.stored < stream.precision:
        top = (1 << layout.stored) - 1
        # A lossy codec may overshoot the last grey value a little; a lossless one carries foreign bits there.
        image = image & image.dtype.type(top) if stream.lossless else np.minimum(image, image.dtype.type(top))
    return image, layout


def _palette(header: Dataset, indices: IntegerImage) -> IntegerImage:
    """Palette indices to colour [C.7.6.3.1.5]."""
    from pydicom.pixels import apply_color_lut

    return np.asarray(apply_color_lut(np.asarray(indices), header))


def _luminance(image: IntegerImage) -> IntegerImage:
    """One grey value per pixel; a colourful picture is refused.

    Whether three components are red, green, blue or luminance and chroma is told wrongly so often (decoders convert
    or do not, labels stay behind) that the reading in which the picture is greyer counts: films are grey.
    """
    sample = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)].astype(np.int32)
    top = 65535 if image.dtype.itemsize > 1 and int(sample.max(initial=0)) > 255 else 255
    as_rgb = _coloured(sample.max(axis=2) - sample.min(axis=2), top)
    as_ybr = _coloured(2 * np.abs(sample[..., 1:] - (top + 1) // 2).max(axis=2), top)
    if min(as_rgb, as_ybr) > _MOST_COLOURED:
        raise refuse(ReasonCode.NOT_A_RADIOGRAPH, f"a colour picture ({min(as_rgb, as_ybr):.0%} of it coloured)")
    if as_ybr < as_rgb:
        return image[..., 0]
    wide = image.astype(np.uint32)
    return ((77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8).astype(np.uint16)


def _coloured(apart: IntegerImage, top: int) -> float:
    """Share of pixels whose channels lie further apart than a film's would."""
    return float(np.mean(apart > _COLOURFUL * top / 255))


def _padding(header: Dataset, image: IntegerImage, layout: _Layout) -> Mask | None:
    """Where the film was filled up [C.7.5.1.1.2], None where it was not."""
    value = integer(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(header, "PixelPaddingRangeLimit")
    bits = 1 << layout.stored
    low, high = sorted(_as_stored(number, bits, layout.signed) for number in (value, value if limit is None else limit))
    padding: npt.NDArray[np.bool_] = (image >= low) & (image <= high)
    return padding if padding.any() else None


def _as_stored(value: int, bits: int, signed: bool) -> int:
    """A padding value written as US for signed pixels (or SS for unsigned) as the pixels hold it."""
    if signed:
        return value - bits if value >= bits // 2 else value
    return value + 65536 if value < 0 else value
