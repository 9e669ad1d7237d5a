"""Encoded pixels to stored values: one decoder per codestream, chosen by what the bytes are, bounded before it runs."""

from __future__ import annotations

import enum
import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntegerImage = npt.NDArray[np.integer]


class CodecError(ValueError):
    """Encoded pixels that cannot be decoded; the message names the codec and says what is wrong."""


class Codec(enum.Enum):
    """The codestreams that are told apart; the value is the name people know."""

    RLE = "RLE"
    JPEG = "JPEG"
    JPEG_EXTENDED = "JPEG Extended (12 bit)"
    JPEG_LOSSLESS = "JPEG Lossless"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    HTJ2K = "HTJ2K"


@dataclass(frozen=True)
class Codestream:
    """What the header of a codestream says of itself, before anything is decoded."""

    codec: Codec
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    lossless: bool = False
    levels: int = 0
    """JPEG 2000: how often the decoder can halve the image."""


def sniff(frame: bytes) -> Codestream | None:
    """What a frame's bytes are, None when they are no known codestream (RLE has no mark of its own).

    Raises ``CodecError`` when the header of a known codestream is cut short or makes no sense.
    """
    try:
        if frame[:2] == b"\xff\xd8":
            return _sniff_jpeg(frame)
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _sniff_jpeg_2000(frame)
        if frame[4:8] == b"jP  ":
            start = frame.find(b"\xff\x4f\xff\x51")
            return _sniff_jpeg_2000(frame[start:]) if start > 0 else None
    except (struct.error, IndexError):
        raise CodecError("the compressed image ends within its header") from None
    return None


_SOF_LOSSLESS = 0xC3
_SOF_JPEG_LS = 0xF7
_SOF_DCT = (0xC0, 0xC1, 0xC2)
_SOF_OTHER = (0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


def _sniff_jpeg(frame: bytes) -> Codestream:
    """Walk the markers of ISO 10918-1 (and 14495-1) to the frame header."""
    at = 2
    while True:
        if frame[at] != 0xFF:
            raise CodecError("JPEG: a marker is missing in the header")
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if marker in (*_SOF_DCT, *_SOF_OTHER, _SOF_LOSSLESS, _SOF_JPEG_LS):
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            break
        if marker in (0xD9, 0xDA):
            raise CodecError("JPEG: no frame header before the scan")
        at += 2 + max(length, 2)
    if marker == _SOF_LOSSLESS:
        return Codestream(Codec.JPEG_LOSSLESS, rows, columns, components, precision, lossless=True)
    if marker == _SOF_JPEG_LS:
        return Codestream(
            Codec.JPEG_LS, rows, columns, components, precision, lossless=_jpeg_ls_near(frame, at + 2 + length) == 0
        )
    if marker in _SOF_DCT:
        if precision not in (8, 12):  # GDCM would decode it to nonsense without a word
            raise CodecError(f"JPEG: {precision} bits in a lossy process that knows 8 and 12")
        codec = Codec.JPEG if precision == 8 else Codec.JPEG_EXTENDED
        return Codestream(codec, rows, columns, components, precision)
    raise CodecError(f"JPEG process with frame header FF{marker:02X} (hierarchical or arithmetic) has no decoder")


def _jpeg_ls_near(frame: bytes, at: int) -> int:
    """NEAR of the first scan: 0 is lossless."""
    while frame[at] == 0xFF and frame[at + 1] != 0xDA:
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return frame[at + 5 + 2 * frame[at + 4]]


def _sniff_jpeg_2000(stream: bytes) -> Codestream:
    """Read SIZ and COD of ISO 15444-1 A.5, A.6; CAP tells HTJ2K (15444-15)."""
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    (components,) = struct.unpack_from(">H", stream, 40)
    depth = stream[42]
    levels, reversible, high_throughput = 0, False, False
    at = 4 + int(struct.unpack_from(">H", stream, 4)[0])
    while stream[at] == 0xFF and stream[at + 1] not in (0x90, 0xD9):
        (length,) = struct.unpack_from(">H", stream, at + 2)
        if stream[at + 1] == 0x50:
            high_throughput = True
        elif stream[at + 1] == 0x52:
            levels, reversible = stream[at + 9], stream[at + 13] == 1
        at += 2 + length
    return Codestream(
        Codec.HTJ2K if high_throughput else Codec.JPEG_2000,
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossless=reversible,
        levels=min(levels, 32),
    )


_LONGEST_TAIL = 1024
"""Bytes: how much filling some writers leave behind the end marker."""


def decode(frame: bytes, stream: Codestream, longest_side: int | None = None) -> IntegerImage:
    """Decode a frame to [rows, columns] or [rows, columns, components] as the codestream stores its values.

    With ``longest_side`` the result may come smaller (halved, quartered ...), yet never below that side, where the
    codec can do it for less than a full decode. The caller has compared the codestream's size with what it expects.
    Raises ``CodecError`` for everything that goes wrong inside the decoder.
    """
    if b"\xff\xd9" not in frame.rstrip(b"\0")[-_LONGEST_TAIL:]:
        # The decoders are lenient: they fill the rest with grey, and grey looks like nothing to report.
        raise CodecError(f"{stream.codec.value}: the compressed image is cut short (its end marker is missing)")
    halvings = _halvings(stream, longest_side)
    failures: list[str] = []
    for decoder in _DECODERS[stream.codec]:
        try:
            image = decoder(frame, stream, halvings)
        except Exception as error:  # decoders raise what they like on hostile bytes
            line = " ".join(str(error).split())[:120] or type(error).__name__
            if line not in failures:
                failures.append(line)
            continue
        if image is not None:
            return image
    raise CodecError(f"{stream.codec.value}: {'; '.join(failures) or 'no decoder takes this image'}")


def _halvings(stream: Codestream, longest_side: int | None) -> int:
    """How often the decoder may halve the image so that it stays at least ``longest_side`` long.

    JPEG could be scaled within its cosine transform, but that moved the reference model's output by up to 0.05.
    """
    if longest_side is None or stream.codec is Codec.JPEG:
        return 0
    limit = stream.levels
    side = max(stream.rows, stream.columns)
    halvings = 0
    while halvings < limit and side >> (halvings + 1) >= longest_side:
        halvings += 1
    return halvings


def _pillow_jpeg(frame: bytes, stream: Codestream, _halvings: int) -> IntegerImage:
    """Colour comes out as its components are stored, because JPEG does not say for sure what they are."""
    from PIL import Image

    for mode in ("YCbCr", None) if stream.components == 3 else (None,):
        with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
            image.draft(mode, None)
            try:
                return np.asarray(image)
            except OSError:
                if mode is None:
                    raise
    raise CodecError("no reading of its colours succeeded")


def _pillow_jpeg_2000(frame: bytes, stream: Codestream, halvings: int) -> IntegerImage | None:
    """Only at reduced size: at full size OpenJPEG alone is twice as fast and returns the values as they are."""
    from PIL import Image

    if not halvings or stream.components != 1 or stream.precision > 16:
        return None
    with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:
        image.reduce = halvings  # type: ignore[method-assign, assignment]
        image.load()
        if image.mode not in ("L", "I;16"):
            return None
        reduced = np.asarray(image)
    # Pillow scales to all bits of its pixel and moves signed values up by half: take both back.
    reduced = _centred(reduced >> (reduced.dtype.itemsize * 8 - stream.precision), halvings, stream.precision)
    return reduced.astype(np.int32) - (1 << (stream.precision - 1)) if stream.signed else reduced


_SHARPER = -0.06
"""Weight of the sample before: as much noise is left as averaging would leave."""


def _centred(reduced: IntegerImage, halvings: int, precision: int) -> IntegerImage:
    """A reduced wavelet image, moved to where averaging would have put it.

    Sample k of a resolution level lies at pixel k * 2**n (ISO/IEC 15444-1 Annex F), the mean of the same 2**n pixels
    half a sample further, (2**n - 1) / 2: without this a film read at reduced resolution lies beside itself, and the
    reference model's output moved by up to 0.02.
    """
    shift = ((1 << halvings) - 1) / (1 << (halvings + 1))
    before, after = np.float32(_SHARPER), np.float32(_SHARPER + shift)
    moved = reduced.astype(np.float32)
    for _ in range(2):
        padded = np.pad(moved, ((1, 1), (0, 0)), mode="edge")
        moved = padded[1:-1] * (1 - before - after)
        moved += padded[:-2] * before
        moved += padded[2:] * after
        moved = moved.T
    return np.clip(np.rint(moved), 0, (1 << precision) - 1).astype(reduced.dtype)


def _openjpeg(frame: bytes, _stream: Codestream, _halvings: int) -> IntegerImage:
    import openjpeg

    return np.asarray(openjpeg.decode(frame))


def _charls(frame: bytes, stream: Codestream, _halvings: int) -> IntegerImage:
    import jpeg_ls

    buffer, said = jpeg_ls.decode_buffer(frame)
    values = _little_endian(buffer, stream.precision)
    if stream.components == 1:
        return values.reshape(stream.rows, stream.columns)
    if said.get("interleave_mode") == 0:
        return np.moveaxis(values.reshape(stream.components, stream.rows, stream.columns), 0, 2)
    return values.reshape(stream.rows, stream.columns, stream.components)


def _gdcm(frame: bytes, stream: Codestream, _halvings: int) -> IntegerImage:
    """GDCM, asked for the codestream's own size and precision so that it never reads past its buffer."""
    import gdcm

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stream.columns, stream.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kind(kind.MONOCHROME2 if stream.components == 1 else kind.RGB))
    if stream.components > 1:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax
    image.SetTransferSyntax(syntax(syntax.GetTSType(_GDCM_SYNTAX[stream.codec])))
    allocated = 8 if stream.precision <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(stream.components, allocated, stream.precision, stream.precision - 1, 0))
    decoded = image.GetBuffer()  # bytes dressed up as str, None or too short after a failure
    buffer = b"" if decoded is None else decoded.encode("utf-8", "surrogateescape")
    expected = stream.rows * stream.columns * stream.components * allocated // 8
    if len(buffer) != expected:
        raise CodecError(f"the decoder gave up after {len(buffer)} of {expected} bytes")
    shape = (stream.rows, stream.columns) + ((stream.components,) if stream.components > 1 else ())
    return _little_endian(buffer, stream.precision).reshape(shape)


def _little_endian(buffer: bytes | bytearray, precision: int) -> IntegerImage:
    """Unsigned values as GDCM and CharLS hand them out: one byte up to 8 bits, two above."""
    if precision <= 8:
        return np.frombuffer(buffer, np.uint8)
    return np.frombuffer(buffer, "<u2").astype(np.uint16, copy=False)


_GDCM_SYNTAX = {
    Codec.JPEG: "1.2.840.10008.1.2.4.50",
    Codec.JPEG_EXTENDED: "1.2.840.10008.1.2.4.51",
    Codec.JPEG_LOSSLESS: "1.2.840.10008.1.2.4.57",
    Codec.JPEG_LS: "1.2.840.10008.1.2.4.80",
}

_DECODERS = {
    Codec.JPEG: (_pillow_jpeg, _gdcm),
    Codec.JPEG_EXTENDED: (_gdcm,),
    Codec.JPEG_LOSSLESS: (_gdcm,),
    Codec.JPEG_LS: (_charls, _gdcm),
    Codec.JPEG_2000: (_pillow_jpeg_2000, _openjpeg),
    Codec.HTJ2K: (_pillow_jpeg_2000, _openjpeg),
}


def decode_rle(frame: bytes, rows: int, columns: int, samples: int, bytes_per_sample: int) -> IntegerImage:
    """RLE Lossless [PS3.5 G]: [rows, columns] or [rows, columns, samples], unsigned, native byte order.

    Raises ``CodecError`` when the segments do not fill the image.
    """
    if len(frame) < 64:
        raise CodecError("RLE: the frame is shorter than its header of 64 bytes")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != samples * bytes_per_sample:
        raise CodecError(f"RLE: {count} segments instead of {samples * bytes_per_sample}")
    starts = [*offsets[:count], len(frame)]
    if sorted(starts) != starts or starts[0] < 64:
        raise CodecError("RLE: the segment offsets are out of order")
    size = rows * columns
    planes = np.empty((samples, size, bytes_per_sample), np.uint8)
    for segment in range(count):
        plane = _unpack_bits(frame[starts[segment] : starts[segment + 1]], size)
        # Segments come most significant byte first; planes hold the sample little endian.
        planes[segment // bytes_per_sample, :, bytes_per_sample - 1 - segment % bytes_per_sample] = plane
    image = planes.view(f"<u{bytes_per_sample}")[:, :, 0].reshape(samples, rows, columns)
    return image[0] if samples == 1 else np.moveaxis(image, 0, 2)


def _unpack_bits(segment: bytes, size: int) -> npt.NDArray[np.uint8]:
    """One PackBits segment to exactly ``size`` bytes."""
    pieces: list[bytes] = []
    filled, at, end = 0, 0, len(segment)
    while filled < size and at < end:
        head = segment[at]
        if head < 128:
            piece = segment[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            piece = segment[at + 1 : at + 2] * (257 - head)
            at += 2
        else:
            at += 1
            continue
        pieces.append(piece)
        filled += len(piece)
    if filled < size:
        raise CodecError(f"RLE: a segment holds {filled} bytes instead of {size}")
    return np.frombuffer(b"".join(pieces), np.uint8)[:size]
