"""Small DICOM files for tests of pixels and eligibility, made with pydicom, its encoders, GDCM and Pillow."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

Pixels = npt.NDArray[np.integer]

ROWS, COLUMNS = 160, 144

LOSSLESS = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
_HTJ2K_OF_HTJ2K_FILM = (
    "c-qZY3rtg27(SPWMbH)2VVyV%BVlo%fUn>XO2EhB#4?SdZcuzMS;#Evkl2>qia2UCmIUW}bl@D4px}d4ookDeU}Ci5i<jlHq2Qno"
    "u`TWG?Y(DhfdR_YDarPq{3qXk?>XOh|Ns8?0Xgt<FfAT9tjOU%f*~6jBXk6T$-oP^IRbCE987Q^1h{*6#3S%aFfm9{<T8mw0yhFC"
    "KsebMo0lYi8nh~7Yf$8jnR92%ngNS|x0B093=mkX0ukD1h>{S6f?=KuSu|hT(-xkN*L&V7u+OIg*-~Y_x<hGf#lvjxk#iJNP-#^?"
    "*3r{zvGVP)ia^J%7socx3DO8IA-Bq{76(r(6^J@`&@QDh#S~`Cvd`&1fOQypUFSuU+V^4Ms`p{Icowy0z>CG-P*KpwMkjx>Mvz<V"
    "pP^IXa`t|fj{8_?F7B(dbMofEm5QVAWA07#eu|N6o<^2Z2dGlf67-bp4y(J|RA}2kDntO?h1N)0Wjc4uCPGCv$7QoFV;Y#b>CZ4@"
    "6@JIgQ_O||+@mll;wJoxZjK=eZ81b5d5cO`o@d`PXf5U{BEbHM=%Hu_>mt@h)5|S82_30d<jYRV?khVPCM7<B<i#bz09h$aQs2gO"
    "ttLZXt0|Y5OKKEJsGN7VUe7UeY-Pf)MGWpSZe3$%N^cFm(k@U;#U!jNQtZ6WX!(|~$7<qGj$Do1)fL(jN#`h~lF?J_d#rA{xz?6W"
    "rchzry;XJ0j=jBg*7d?D#bii_bZm#=in_JSk>E~3mDlb_@FM*oP5-+s)t*hJ3NMP7tTR|$VNY&v0Kpe-7CobiICAunQOClC#Ns%t"
    "<a^mA3_H=2WGUu1l0UcQC@XR`yzW%XF}^krkLwfRfda0gzU`3VtmQFb`xVGCSv6>*vBzNcAOx|sR2rwcys1!IZ_4J=$nV+`*k$tD"
    "(kIhRA$%WFq7ZTw&JlqfGTd<Nf0l=*i6d0fmc=^UZ0G04)|RAmsy}LCXcPN_1<|p`MTyE%R)h4(VpE9CkCccOu*;Cfp8gT>7J#|3"
    "*+%k7e!F2!j(aeed_8{L%y*H42_Wk1I2B-Cad=a@T0I{Mk95goxV2;qoT`WM-GbuFC6DywmtrdP%bpJk0{1b4ciq|H)=;o#)#1$D"
    "dqS69xVnH5x^`XJc*g0-{-akHge{%DuFOC5Xk>#oBk6GFiG_P7O<#K<v!U#7FrE>*^l;?5s|CZrq$DTfXaq0n;Lxwc@rDTMOhD8}"
    "yl8P7gQns|;%&UFwGV14|DbOS3M7lfg1!XA(CkG!rvh&846GQ~Fn6nmqkx)Z;7QWNIR2os>x*MD-iG4;p&Oq;RMnlk;_?so^yN7*"
    "6`E!LHi$-^)MmRk<O@8UZ&lwd*Cc)+i}p>9TK{rz8dSTfyg?YK93$}I{#R<cK$$;S1y&>Jp5ieA@z-7};gCfa#x~(fU_}krDpW%s"
    "%h~-MsT|p$!$NKK(Bdh<z@ja1$IkiEMc3nFi5J4Y)kBLX`i@37JPda(n|Ev5@h;aC{lWOBz(@BJaMM2oZq&(kz^oM4{>MgcaekC{"
    "&s(<Qz~ix+#`)~b=X<_}a>l4z1&9Y2Y1=h5S&e5>f7z~Uc`M-e9B)(3Sg`6^7Cy(D-Z&PlHCaq#B(E55q5!*y{s{ORGy+Q+*{IC<"
    "M{sWNDexMtlV2~)5D##qyhLaK+!(ydH`H>52M2#@U!Ix^gb(Vyq1N!n+4EJ!ROV<EOpl>P^c(7(g+sTSiHHs6KyVvzmEUVX!_!rq"
    "e(~mXf7hiCme)~NZH+r@{tKs`3@Z"
)


def film(bits: int = 12) -> Pixels:
    """A small picture [160, 144] that uses all of its bits: two dark ellipses in a bright body, with some noise."""
    down, across = np.mgrid[0:ROWS, 0:COLUMNS]
    body = 0.8 - 0.2 * down / ROWS
    for centre in (42, 102):
        body = body - 0.6 * (((across - centre) / 26) ** 2 + ((down - 70) / 50) ** 2 < 1)
    noise = np.random.default_rng(7).normal(0, 0.01, body.shape)
    scaled = np.clip(body + noise, 0, 1) * ((1 << bits) - 1)
    scaled[0, 0], scaled[0, 1] = 0, (1 << bits) - 1
    return np.rint(scaled).astype(np.uint8 if bits <= 8 else np.uint16)


def htj2k_film() -> Pixels:
    """What the embedded HTJ2K codestream holds (it was made with OpenJPH; nothing here can encode HTJ2K)."""
    down, across = np.mgrid[0:ROWS, 0:COLUMNS]
    return ((down // 40) * 700 + (across // 48) * 450 + 3 * (down % 40 == 7)).astype(np.uint16)


def data_set(pixels: Pixels, bits: int, **tags: Any) -> Dataset:
    """A CR image, native little endian. ``tags``: keywords to set, None to take one out."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = ComputedRadiographyImageStorage
    header.SOPInstanceUID = generate_uid()
    header.StudyInstanceUID = generate_uid()
    header.SeriesInstanceUID = generate_uid()
    header.Modality = "CR"
    header.BodyPartExamined = "CHEST"
    header.ViewPosition = "PA"
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    header.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated = pixels.dtype.itemsize * 8
    header.BitsStored = bits
    header.HighBit = bits - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    # With this window a pixel times 2^bits is the stored value, exactly.
    header.WindowCenter, header.WindowWidth = float(1 << (bits - 1)), float(1 << bits)
    header.VOILUTFunction = "LINEAR_EXACT"
    content = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    header.PixelData = content + b"\0" * (len(content) % 2)
    header["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        if value is not None:
            setattr(header, keyword, value)
        elif keyword in header:
            delattr(header, keyword)
    return header


def write(path: Path, header: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a native data set in any transfer syntax, encoding its pixels where the syntax asks for it."""
    uid = pydicom.uid.UID(syntax)
    if uid.is_encapsulated and "PixelData" in header:
        _compress(header, uid)
    if uid == ExplicitVRBigEndian:
        words = np.frombuffer(header.PixelData, "<u2")
        header.PixelData = words.byteswap().tobytes()
    header.file_meta.TransferSyntaxUID = uid
    header.save_as(path, enforce_file_format=True)
    return path


def write_encapsulated(path: Path, header: Dataset, syntax: str, frames: list[bytes]) -> Path:
    """Write any bytes as the fragments of the pixel data."""
    header.PixelData = encapsulate(frames)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    header.save_as(path, enforce_file_format=True)
    return path


def frame_of(path: Path) -> bytes:
    """The codestream of an encapsulated file."""
    buffer = io.BytesIO(pydicom.dcmread(path).PixelData)
    parse_basic_offsets(buffer)
    return b"".join(generate_fragments(buffer))


def htj2k_frame() -> bytes:
    """A lossless HTJ2K codestream of ``htj2k_film``."""
    return zlib.decompress(base64.b85decode(_HTJ2K_OF_HTJ2K_FILM))


def _compress(header: Dataset, syntax: pydicom.uid.UID) -> None:
    pixels = header.pixel_array
    if syntax == JPEGBaseline8Bit:
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=95, subsampling=0)
        _put(header, packed.getvalue())
    elif syntax in (JPEGLossless, JPEGLosslessSV1):
        _put(header, _gdcm_frame(header, syntax))
    elif syntax == HTJ2K:
        _put(header, htj2k_frame())
    elif syntax in (JPEG2000, JPEG2000Lossless):
        options = {} if syntax == JPEG2000Lossless else {"j2k_cr": [10]}
        header.compress(syntax, generate_instance_uid=False, **options)
    elif syntax == JPEGLSNearLossless:
        header.compress(syntax, generate_instance_uid=False, jls_error=2)
    else:
        plugin = "pydicom" if syntax == RLELossless else ""
        header.compress(syntax, generate_instance_uid=False, encoding_plugin=plugin)


def _put(header: Dataset, frame: bytes) -> None:
    header.PixelData = encapsulate([frame])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True


def _gdcm_frame(header: Dataset, syntax: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/native", f"{folder}/encoded"
        header.save_as(source, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(source)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return frame_of(Path(target))
