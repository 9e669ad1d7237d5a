"""Results out: report, heat map and message, built and serialised by us and by what a site would use instead.

    python -m benchmarks.results [--short] [--json FILE]

One core, everything warm, a study of one film with 15 findings and a raised pneumothorax:

- SR: ours, beside highdicom's own constructors called with the whole content tree and evidence, as documented there.
- heat map, 1024 px: ours, beside a figure of matplotlib and beside Pillow's blend in highdicom's Secondary Capture.
- ORU^R01: ours, mapping included, beside hl7apy's writer given every field ready.

Each pair is compared before a figure is printed: the same content tree, the same size and kind of picture, the same
bytes of message. ``ratio``: CPU milliseconds of the fastest peer to ours, the worst of the three.
"""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image

from benchmarks.harness import Measured, arguments, report, require, rounds
from firstread.agent.objects import map_size
from firstread.integration.dicom import identity
from firstread.integration.dicom.report import build_heat_map, build_report, concepts, content, warm
from firstread.integration.dicom.report.instance import part10
from firstread.integration.dicom.report.source import read_source
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.integration.hl7.result import build_oru
from firstread.models.prediction import ImageOutcome
from firstread.models.preprocess import Placement
from firstread.models.saliency import localise, over_film, upsample
from tests.integration import hl7_examples
from tests.integration.report_cases import DX, FILM, NOON, SERIES, SETTINGS, film, positive, uids

Grey = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

SIDE = 1024
GOALS_MS = {"SR": 120.0, "heat map 1024 px": 100.0, "ORU": 10.0}

ASSESSMENT = positive(notes=(), images=(ImageOutcome(FILM, DX, SERIES),))
FINDING = "Pneumothorax"


def sr_ours() -> bytes:
    """As the agent builds it."""
    identities = uids(ASSESSMENT, identity.SR)
    return build_report(ASSESSMENT, [film()], identities, SETTINGS, content_datetime=NOON).part10


def sr_highdicom() -> bytes:
    """The same tree handed to highdicom's constructor, with the film as evidence."""
    from highdicom.sr import Comprehensive3DSR

    header = film()
    source = read_source(header)
    films = {FILM: content.Film(ASSESSMENT.images[0], source)}
    tree = content.document(ASSESSMENT, films, SETTINGS, concepts.CHEST_RADIOGRAPHY, [])
    sop_instance_uid, series_instance_uid = uids(ASSESSMENT, identity.SR)
    document = Comprehensive3DSR(
        evidence=[header],
        content=tree,
        series_instance_uid=series_instance_uid,
        series_number=SETTINGS.sr_series_number,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=SETTINGS.manufacturer,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=SETTINGS.sr_series_description,
    )
    return part10(document)


def same_reports(one: bytes, other: bytes) -> None:
    """Raises WrongResult unless both hold the same content tree about the same study."""
    first, second = (pydicom.dcmread(io.BytesIO(each)) for each in (one, other))
    require(first.StudyInstanceUID == second.StudyInstanceUID, "the reports are of two studies")
    require(first.ContentSequence == second.ContentSequence, "the content trees differ")
    require(len(first.ContentSequence) > 5, "the content tree is all but empty")


@functools.cache
def picture() -> tuple[Grey, Map]:
    """A preview uint8 [1024, 819] and an activation map float32 [7, 7] over it with one warm spot."""
    rows, columns = SIDE, round(SIDE * 0.8)
    across, down = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
    noise = np.random.default_rng(1).normal(0, 6, (rows, columns))
    preview = np.clip(160 - 90 * (across**2 + down**2) + noise, 0, 255).astype(np.uint8)
    cam = np.zeros((7, 7), np.float32)
    cam[2, 5], cam[2, 4], cam[3, 5] = 1.0, 0.5, 0.4
    return preview, cam


def enlarged() -> tuple[Grey, Map]:
    """The same, the map at the preview's size, as the peers' ways need it."""
    preview, cam = picture()
    return preview, upsample(cam, (preview.shape[0], preview.shape[1]))


def heat_ours() -> bytes:
    """As the agent builds it."""
    preview, cam = picture()
    rows, columns = preview.shape
    placement = Placement(rows, columns, 0, 0, columns, rows, 224)
    heat = over_film(cam, placement, map_size(rows, columns))
    box = localise(cam, placement)
    identities = uids(ASSESSMENT, identity.HEATMAP)
    return build_heat_map(ASSESSMENT, FINDING, film(), preview, heat, box, identities, SETTINGS, NOON).part10


def heat_matplotlib() -> bytes:
    """imshow over imshow, saved as pixels, in a Secondary Capture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    preview, heat = enlarged()
    rows, columns = preview.shape
    figure = Figure(figsize=(columns / 100, rows / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(preview, cmap="gray", vmin=0, vmax=255)
    axes.imshow(heat, cmap="jet", alpha=np.clip(heat, 0, 0.55), vmin=0, vmax=1)
    axes.add_patch(Rectangle((480, 200), 170, 200, fill=False, edgecolor="white"))
    axes.text(20, 20, f"{FINDING} 0.81", color="white")
    axes.text(20, rows - 20, "AI - NOT FOR DIAGNOSIS", color="yellow")
    canvas.draw()
    return secondary_capture(np.asarray(canvas.buffer_rgba())[..., :3])


def heat_pillow() -> bytes:
    """A colour table and Pillow's blend, in a Secondary Capture."""
    from PIL import ImageDraw

    preview, heat = enlarged()
    levels = (heat * 255).astype(np.uint8)
    red = np.stack([levels, np.zeros_like(levels), 255 - levels], axis=-1)
    mixed = Image.composite(
        Image.fromarray(red), Image.fromarray(preview).convert("RGB"), Image.fromarray((heat * 140).astype(np.uint8))
    )
    draw = ImageDraw.Draw(mixed)
    draw.rectangle((480, 200, 650, 400), outline=(255, 255, 255))
    draw.text((20, 20), f"{FINDING} 0.81", fill=(255, 255, 255))
    draw.text((20, mixed.height - 20), "AI - NOT FOR DIAGNOSIS", fill=(255, 210, 60))
    return secondary_capture(np.asarray(mixed))


def secondary_capture(pixels: npt.NDArray[np.uint8]) -> bytes:
    """highdicom's Secondary Capture of RGB pixels, serialised."""
    from highdicom.sc import SCImage

    sop_instance_uid, series_instance_uid = uids(ASSESSMENT, identity.HEATMAP)
    header = film()
    made = SCImage(
        np.ascontiguousarray(pixels),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=series_instance_uid,
        series_number=SETTINGS.heatmap_series_number,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=SETTINGS.manufacturer,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_orientation=("L", "F"),
    )
    return part10(made)


def a_heat_map(encoded: bytes) -> None:
    """Raises WrongResult unless it is a colour picture of the asked size that is coloured where the map is warm."""
    read = pydicom.dcmread(io.BytesIO(encoded))
    pixels = read.pixel_array
    require(SIDE - 110 <= pixels.shape[0] <= SIDE and pixels.shape[2] == 3, f"a picture of {pixels.shape}")
    apart = pixels.max(axis=2).astype(int) - pixels.min(axis=2)
    warm_spot = apart[int(pixels.shape[0] * 0.25) : int(pixels.shape[0] * 0.35), int(pixels.shape[1] * 0.65) :]
    require(warm_spot.max() > 60 and np.median(apart[-200:-80]) < 20, "the colour is not where the map is warm")


def oru_ours() -> bytes:
    """As the agent builds it."""
    return build_oru(
        hl7_examples.RAISED, hl7_examples.STUDY, Hl7Mapping(), control_id="FR0001", message_datetime=hl7_examples.NOW
    )


@functools.cache
def oru_fields() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every segment of our message with its fields, ready for another writer."""
    lines = oru_ours().decode("utf-8").rstrip("\r").split("\r")
    return tuple((line[:3], tuple(line.split("|")[1:])) for line in lines)


def oru_hl7apy() -> bytes:
    """hl7apy's objects, filled and written."""
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.core import Message, Segment

    message = Message("ORU_R01", version="2.5.1", validation_level=VALIDATION_LEVEL.TOLERANT)
    for name, fields in oru_fields():
        made = message.msh if name == "MSH" else Segment(name, version="2.5.1")
        first = 3 if name == "MSH" else 1  # MSH-1 and MSH-2, the separators, are hl7apy's own
        for number, value in enumerate(fields[1:] if name == "MSH" else fields, start=first):
            if value:
                setattr(made, f"{name.lower()}_{number}", value)
        if name != "MSH":
            message.add(made)
    return (message.to_er7() + "\r").encode("utf-8")


def same_messages(one: bytes, other: bytes) -> None:
    """Raises WrongResult unless both messages hold the same segments and fields."""

    def lines(message: bytes) -> list[str]:
        return [line.rstrip("|") for line in message.decode("utf-8").rstrip("\r").split("\r")]

    ours, theirs = lines(one), lines(other)
    wrong = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), None)
    require(len(ours) == len(theirs) and wrong is None, f"the messages differ: {wrong}")


def timed(make: Callable[[], bytes], times: int) -> Callable[[], Mapping[str, float]]:
    """Plays ``make`` so often, and answers with milliseconds each."""

    def play() -> Mapping[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            made = make()
        took = (time.perf_counter() - wall, time.process_time() - cpu)
        return {"ms": took[0] * 1000 / times, "CPU ms": took[1] * 1000 / times, "kB": len(made) / 1000}

    return play


def main() -> None:
    """Runs it."""
    asked = arguments(__doc__).parse_args()
    times = 5 if asked.short else 20
    warm()
    made = {
        "SR": {"firstread": sr_ours, "highdicom": sr_highdicom},
        "heat map 1024 px": {"firstread": heat_ours, "matplotlib": heat_matplotlib, "Pillow + highdicom": heat_pillow},
        "ORU": {"firstread": oru_ours, "hl7apy": oru_hl7apy},
    }
    same_reports(sr_ours(), sr_highdicom())
    same_messages(oru_ours(), oru_hl7apy())
    for make in made["heat map 1024 px"].values():
        a_heat_map(make())
    rows = [Measured(case, who, timed(make, times)) for case, whos in made.items() for who, make in whos.items()]
    rounds(rows, asked.rounds or (3 if asked.short else 7))

    def ratio() -> float:
        worst = float("inf")
        for case in made:
            ours, *peers = (row.median("CPU ms") for row in rows if row.case == case)
            worst = min(worst, min(peers) / ours)
            print(f"{case}: {ours:.1f} ms of CPU, goal {GOALS_MS[case]:.0f} ms; fastest peer {min(peers):.1f} ms")
        return worst

    report(rows, ratio, packages=("highdicom", "pydicom", "pillow", "matplotlib", "hl7apy"), file=asked.json)


if __name__ == "__main__":
    main()
