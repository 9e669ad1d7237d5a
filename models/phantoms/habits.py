"""How makers fill a film's header: one habit per invented maker, each seen on real films."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

DX, CR, SC = DigitalXRayImageStorageForPresentation, ComputedRadiographyImageStorage, SecondaryCaptureImageStorage


@dataclass(frozen=True)
class Wording:
    """What a maker writes for one view: BodyPartExamined, the descriptions, and the study's."""

    body_part: str
    series: str = ""
    protocol: str = ""
    study: str = ""


@dataclass(frozen=True)
class Habit:
    """One maker's way of tagging.

    ``view_position``, ``view_code``, ``region_code``, ``orientation``: whether these attributes are filled.
    ``greys``: how stored values become greys: ``"full"`` (the whole range, no window), ``"window"`` (a part of the
    range and a window), ``"lut"`` (a VOI LUT Sequence). ``rescale``: slope and intercept, none when absent.
    ``spacing``: attributes that carry the pixel spacing. ``padding``: PixelPaddingValue behind the collimator.
    ``wording``: by view; ``PA`` stands for AP too.
    """

    manufacturer: str
    model: str
    sop_class_uid: str
    wording: dict[str, Wording]
    polarity: str = "MONOCHROME2"
    bits: int = 12
    transfer_syntax_uid: str = ExplicitVRLittleEndian
    view_position: bool = True
    view_code: bool = False
    region_code: bool = False
    orientation: bool = True
    greys: str = "window"
    rescale: tuple[float, float] | None = None
    lut_shape: bool = False
    spacing: tuple[str, ...] = ("ImagerPixelSpacing",)
    padding: bool = False
    character_set: tuple[str, ...] = ("ISO_IR 100",)
    institution: str = "Phantom General Hospital"

    def words(self, view: str) -> Wording:
        return self.wording.get(view, self.wording["PA"])


def _wording(chest: Wording, lateral: Wording, hand: Wording, portable: Wording | None = None) -> dict[str, Wording]:
    return {"PA": chest, "AP": portable or chest, "LATERAL": lateral, "HAND": hand}


HABITS: dict[str, Habit] = {
    # flat panel room: everything coded, everything filled
    "alder": Habit(
        manufacturer="Alder Imaging",
        model="Alder Wall 43",
        sop_class_uid=DX,
        wording=_wording(
            Wording("CHEST", "Chest PA", "CHEST PA", "XR CHEST"),
            Wording("CHEST", "Chest LAT", "CHEST LATERAL", "XR CHEST"),
            Wording("HAND", "Hand PA", "HAND PA", "XR HAND"),
            Wording("CHEST", "Chest AP", "CHEST AP PORTABLE", "XR CHEST PORTABLE"),
        ),
        view_code=True,
        region_code=True,
        lut_shape=True,
    ),
    # flat panel with MONOCHROME1, the view only as a code, the greys in a VOI LUT
    "birch": Habit(
        manufacturer="Birch Medical",
        model="B-Ray 14",
        sop_class_uid=DX,
        wording=_wording(
            Wording("CHEST", "W Chest PA", "Chest", "Chest 2 views"),
            Wording("CHEST", "W Chest Lat", "Chest", "Chest 2 views"),
            Wording("HAND", "T Hand", "Hand", "Hand"),
            Wording("CHEST", "Mobile chest AP", "Chest bed", "Portable chest"),
        ),
        polarity="MONOCHROME1",
        bits=14,
        transfer_syntax_uid=JPEGLosslessSV1,
        view_position=False,
        view_code=True,
        region_code=True,
        greys="lut",
        lut_shape=True,
        character_set=("ISO_IR 192",),
    ),
    # plate reader: MONOCHROME1, 10 bits, orientation left empty
    "cedar": Habit(
        manufacturer="Cedar Radiography",
        model="CR Plate 10",
        sop_class_uid=CR,
        wording=_wording(
            Wording("CHEST", "CHEST,FRN", "CHEST,FRN", ""),
            Wording("CHEST", "CHEST,LAT", "CHEST,LAT", ""),
            Wording("HAND", "HAND,PA", "HAND", ""),
        ),
        polarity="MONOCHROME1",
        bits=10,
        transfer_syntax_uid=JPEG2000Lossless,
        orientation=False,
        spacing=("ImagerPixelSpacing", "PixelSpacing"),
        padding=True,
    ),
    # German plate reader: no body part, no view, all of it in words; no window
    "dogwood": Habit(
        manufacturer="Dogwood Röntgen",
        model="Speicherfolie 5",
        sop_class_uid=CR,
        wording=_wording(
            Wording("", "Thorax p.a.", "Thorax p.a. stehend", "Röntgen Thorax"),
            Wording("", "Thorax seitlich", "Thorax seitlich", "Röntgen Thorax"),
            Wording("", "Hand d.p.", "Hand dorsopalmar", "Röntgen Hand"),
            Wording("", "Thorax a.p. liegend", "Thorax a.p. Bett", "Röntgen Thorax"),
        ),
        transfer_syntax_uid=ImplicitVRLittleEndian,
        view_position=False,
        orientation=False,
        greys="full",
        spacing=("PixelSpacing",),
        institution="Klinikum Musterstadt",
    ),
    # Japanese plate reader: multi-byte names, rescale slope
    "elm": Habit(
        manufacturer="Elm Kogyo",
        model="ER-2",
        sop_class_uid=CR,
        wording=_wording(
            Wording("CHEST", "胸部 正面", "胸部", "胸部単純"),
            Wording("CHEST", "胸部 側面", "胸部", "胸部単純"),
            Wording("HAND", "手 正面", "手", "手"),
        ),
        transfer_syntax_uid=JPEGLSLossless,
        orientation=False,
        rescale=(0.25, 0.0),
        character_set=("", "ISO 2022 IR 87"),
        institution="Phantom Byouin",
    ),
    # a gateway that wraps films as Secondary Capture
    "fir": Habit(
        manufacturer="Fir Gateway",
        model="Archive Bridge",
        sop_class_uid=SC,
        wording=_wording(
            Wording("CHEST", "view: PA"),
            Wording("CHEST", "view: LATERAL"),
            Wording("HAND", "view: PA"),
            Wording("CHEST", "view: AP"),
        ),
        bits=8,
        transfer_syntax_uid=JPEGBaseline8Bit,
        orientation=False,
        greys="full",
        spacing=("PixelSpacing",),
    ),
    # mobile unit: 16 bits, padding, UTF-8
    "gorse": Habit(
        manufacturer="Gorse Mobile",
        model="Bedside G3",
        sop_class_uid=DX,
        wording=_wording(
            Wording("CHEST", "AP SUPINE", "PORT CHEST 1V", "XR CHEST 1 VIEW PORTABLE"),
            Wording("CHEST", "LAT XTABLE", "PORT CHEST LAT", "XR CHEST LATERAL"),
            Wording("HAND", "HAND", "PORT HAND", "XR HAND"),
        ),
        bits=16,
        transfer_syntax_uid=RLELossless,
        region_code=True,
        lut_shape=True,
        padding=True,
        character_set=("ISO_IR 192",),
    ),
    # plate reader that names the thorax, deflates and keeps the whole range
    "hazel": Habit(
        manufacturer="Hazel Santé",
        model="H-CR",
        sop_class_uid=CR,
        wording=_wording(
            Wording("THORAX", "Thorax face", "Thorax de face", "Radio thorax"),
            Wording("THORAX", "Thorax profil", "Thorax de profil", "Radio thorax"),
            Wording("MAIN", "Main face", "Main", "Radio main"),
            Wording("THORAX", "Thorax face au lit", "Thorax au lit", "Radio thorax"),
        ),
        bits=12,
        transfer_syntax_uid=DeflatedExplicitVRLittleEndian,
        greys="full",
        institution="Hôpital Fantôme",
    ),
}
"""Maker to habit. The makers are invented; what they do is not."""
