"""Pixels of a phantom to a frame in any transfer syntax that an encoder at hand can write (PS3.5 8.2, Annex A)."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image as PilImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from firstread.models.phantoms.spec import PhantomError

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLossless, JPEGLosslessSV1)
TRANSFER_SYNTAXES: tuple[str, ...] = (*(str(uid) for uid in LOSSLESS), str(JPEGBaseline8Bit))
"""The transfer syntaxes a phantom can be written in; only JPEG baseline loses anything, and takes 8 bits only."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def _by_gdcm(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    """JPEG lossless: GDCM's Python binding has no safe way to hand bytes over, so the frame goes by way of files."""
    import gdcm

    wanted = gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(transfer_syntax_uid))
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "native"), str(Path(folder) / "jpeg")
        dataset.save_as(source, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(wanted)
        if not reader.Read():
            raise PhantomError("GDCM did not read the native frame: install python-gdcm 3.0.24 or later")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise PhantomError(f"GDCM did not encode {transfer_syntax_uid}: choose another transfer syntax")
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise PhantomError(f"GDCM did not write {transfer_syntax_uid}: is there room in {folder}?")
        return bytes(pydicom.dcmread(target).PixelData)


def _frame_only(dataset: Dataset) -> Dataset:
    """The image pixel module alone, so that GDCM never sees a header it might change."""
    alone = Dataset()
    for keyword in (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelData",
    ):
        alone[keyword] = dataset[keyword]
    alone.SOPClassUID, alone.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "2.25.1"
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return alone


def put_pixels(dataset: Dataset, pixels: Pixels, transfer_syntax_uid: str) -> None:
    """Fills PixelData of a data set whose image pixel module stands, and sets its transfer syntax.

    ``pixels``: uint8 [rows, columns] for BitsAllocated 8, else uint16. Raises PhantomError for a syntax without an
    encoder, or JPEG baseline with more than 8 bits.
    """
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise PhantomError(f"no encoder for {transfer_syntax_uid}: choose among {', '.join(TRANSFER_SYNTAXES)}")
    wide = dataset.BitsAllocated == 16
    dataset.PixelData = pixels.astype("<u2" if wide else "u1").tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OW"
    if transfer_syntax_uid == ExplicitVRBigEndian:
        dataset.PixelData = pixels.astype(">u2").tobytes() if wide else dataset.PixelData
        dataset["PixelData"].VR = "OW" if wide else "OB"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax_uid)
    if transfer_syntax_uid in NATIVE:
        return
    if transfer_syntax_uid == JPEGBaseline8Bit:
        if wide:
            raise PhantomError("JPEG baseline holds 8 bits: set bits=8 or choose another transfer syntax")
        packed = io.BytesIO()
        PilImage.fromarray(pixels).save(packed, "JPEG", quality=92)
        dataset.PixelData = encapsulate([packed.getvalue()])
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.LossyImageCompressionRatio = f"{pixels.size / packed.tell():.2f}"
    elif transfer_syntax_uid in (JPEGLossless, JPEGLosslessSV1):
        if not wide and pixels.size % 2:
            raise PhantomError("GDCM encodes no odd number of 8-bit pixels as JPEG lossless: change size or bits")
        dataset.PixelData = _by_gdcm(_frame_only(dataset), transfer_syntax_uid)
    else:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        # GDCM, which pydicom would take for RLE, ends the whole process on an odd number of bytes
        plugin = "pydicom" if transfer_syntax_uid == RLELossless else ""
        dataset.compress(transfer_syntax_uid, pixels, encoding_plugin=plugin, generate_instance_uid=False)
        return
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
