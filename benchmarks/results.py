"""What goes out for a result: report, heat map and message, built and serialised, on one core.

    python -m benchmarks.results [--short] [--rounds N] [--json FILE]

A study of one film with eight findings present, as the role "studies" builds it, without the write to disk. Beside
each, the same thing as a library does it when it is used in the plain way: the report with the whole tree given to
highdicom's constructor, the heat map drawn by matplotlib and wrapped by highdicom's SCImage, the message put together
and encoded by hl7apy. CPU milliseconds; least / median / most.

Checked first: highdicom's constructor makes the same content tree of ours; the heat map decodes to a picture of 1024
pixels; hl7apy reads our message back at its strict level.

Last line, ``ratio``: the limit (report 120 ms, heat map 100 ms, message 10 ms) divided by our median, the worst of the
three (1.0 and more: within the limits).
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from benchmarks.harness import Measured, PeerMissing, arguments, report, require, rounds
from firstread.agent.clock import Moment
from firstread.agent.config import Hl7Destination
from firstread.agent.objects import ResultObjects
from firstread.agent.store import studies
from firstread.agent.store.studies import OpenStudy
from firstread.agent.studies import SummingUp
from firstread.integration.dicom.report.document import warm
from firstread.models.prediction import Assessment
from tests.agent.builders import Bench, moment
from tests.models.tiny import make_tiny_bundle

LIMITS_MS = {"report": 120.0, "heat map": 100.0, "message": 10.0}
SIDE = 1024
PRESENT = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax")


@dataclass
class Study:
    """A study whose images have all ended, and what is made of it."""

    bench: Bench
    objects: ResultObjects
    open: OpenStudy
    assessment: Assessment
    now: Moment

    def sr(self) -> bytes:
        """Our report, a Part 10 file."""
        return self.objects.report(self.open, self.assessment, self.now).part10

    def heat_map(self) -> bytes:
        """Our heat map, a Part 10 file."""
        built = self.objects.heat_map(self.open, self.assessment, self.now)
        require(built is not None, "there is no heat map")
        assert built is not None
        return built.part10

    def message(self) -> bytes:
        """Our ORU^R01."""
        destination = next(
            one for one in self.bench.settings.all_destinations if isinstance(one, Hl7Destination) and one.name == "ris"
        )
        artifact = self.objects.message(self.open, self.assessment, destination, {"sr": "1.2.3"}, self.now)
        assert artifact.message is not None
        return artifact.message


def study_in(folder: Path) -> Study:
    """One film with findings, received, read and ready to be summed up."""
    bundle = make_tiny_bundle(folder / "tiny")
    bench = Bench(folder / "spool", bundle=bundle)
    bench.receive(study="2.25.1", series="2.25.2")
    (claim,) = bench.claim(moment(1))
    require(bench.end_analysed(claim, moment(2), No_Finding=0.01, **dict.fromkeys(PRESENT, 0.97)), "not analysed")
    for preview in (bench.settings.spool / "previews").iterdir():
        Image.fromarray(picture()).save(preview)
    now = moment(400)
    with bench.store.read() as connection:
        (ready,) = studies.ready_to_sum_up(
            connection, quiet_period_s=1, max_open_s=3600, limit=1, skip=[], now=now
        )  # fmt: skip
    objects = ResultObjects(bench.settings, bench.store, bench.site_uid)
    assessment = SummingUp(bench.settings, bench.store, objects).judge(ready, now)
    require(assessment.analysed and any(one.present for one in assessment.findings), "no finding is present")
    return Study(bench, objects, ready, assessment, now)


def picture() -> np.ndarray:
    """A film of 1024 pixels with noise: what compresses badly costs most."""
    grey = np.add.outer(np.arange(SIDE), np.arange(SIDE)) / 8
    return np.clip(grey + np.random.default_rng(1).normal(0, 8, (SIDE, SIDE)), 0, 255).astype(np.uint8)


# The plain way


def plain_report(study: Study, ours: bytes) -> Dataset:
    """The same tree given whole to highdicom's constructor, which copies and searches it."""
    from highdicom.sr import Comprehensive3DSR

    from firstread.integration.dicom.report import content, document
    from firstread.integration.dicom.report.source import read_sources

    read = read_sources([study.bench.settings.spool / path for path in study.open.source_paths])
    notes: list[str] = []
    settings = study.objects._report_settings
    tree = content.document(
        study.assessment,
        {
            one.sop_instance_uid: content.Film(one, source)
            for one, source in document._films(study.assessment, read, notes)
        },
        settings,
        read[0].procedure or document._procedure(study.assessment),
        notes,
    )  # fmt: skip
    evidence = dcmread(io.BytesIO(ours))
    return Comprehensive3DSR(
        evidence=[dcmread(study.bench.settings.spool / study.open.source_paths[0], stop_before_pixels=True)],
        content=tree,
        series_instance_uid=evidence.SeriesInstanceUID,
        series_number=settings.sr_series_number,
        sop_instance_uid=evidence.SOPInstanceUID,
        instance_number=1,
        manufacturer=settings.manufacturer,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=settings.sr_series_description,
        specific_character_set="ISO_IR 192",
    )


def part10(dataset: Dataset) -> bytes:
    """As a Part 10 file."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def plain_heat_map(study: Study) -> bytes:
    """matplotlib's overlay in highdicom's secondary capture."""
    try:
        import matplotlib
    except ImportError as error:
        raise PeerMissing("matplotlib is missing: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from highdicom.sc import SCImage

    image = study.open.images[0]
    assert image.preview_path is not None
    assert image.path is not None
    preview = np.asarray(Image.open(study.bench.settings.spool / image.preview_path))
    figure = plt.figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(preview, cmap="gray")
    axes.imshow(np.kron(np.eye(7), np.ones((146, 146)))[:SIDE, :SIDE], cmap="jet", alpha=0.4)
    axes.text(10, 40, "Not for diagnosis", color="white")
    axes.axis("off")
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    plt.close(figure)
    film = dcmread(study.bench.settings.spool / image.path, stop_before_pixels=True)
    wrapped = SCImage.from_ref_dataset(
        ref_dataset=film,
        pixel_array=np.ascontiguousarray(drawn),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=["L", "F"],
        series_instance_uid="2.25.9",
        series_number=9,
        sop_instance_uid="2.25.10",
        instance_number=1,
        manufacturer="peer",
    )
    return part10(wrapped)


def plain_message(ours: bytes) -> bytes:
    """The same fields put into hl7apy's tree and encoded by it."""
    from hl7apy.core import Message

    message = Message("ORU_R01", version="2.5")
    for line in ours.decode().split("\r"):
        if not line or line.startswith("Z"):
            continue
        name, *fields = line.split("|")
        if name == "MSH":
            message.msh.msh_10, message.msh.msh_11, message.msh.msh_12 = fields[8], fields[9], "2.5"
            continue
        segment = message.add_segment(name)
        for number, value in enumerate(fields, start=1):
            if value:
                setattr(segment, f"{name.lower()}_{number}", value)
    return str(message.to_er7()).encode()


def timed(build: Callable[[], Any]) -> Callable[[], Mapping[str, float]]:
    """CPU milliseconds of one call."""

    def play() -> Mapping[str, float]:
        began = time.process_time()
        build()
        return {"CPU ms": (time.process_time() - began) * 1000}

    return play


def check(study: Study) -> None:
    """Raises WrongResult where what was built is not what is claimed."""
    ours = study.sr()
    mine, theirs = dcmread(io.BytesIO(ours)), plain_report(study, ours)
    require(len(mine.ContentSequence) > 3, "the report is empty")
    require(mine.ContentSequence == theirs.ContentSequence, "highdicom's constructor makes another tree")
    drawn = dcmread(io.BytesIO(study.heat_map()))
    require(max(drawn.Rows, drawn.Columns) == SIDE, f"the heat map has {drawn.Rows} x {drawn.Columns} pixels")
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

    text = "".join(line + "\r" for line in study.message().decode().split("\r") if line and line[0] != "Z")
    read = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
    require(read.msh.msh_9.to_er7().startswith("ORU^R01"), "hl7apy reads another message")


def main() -> None:
    """Checks, measures, prints."""
    asked = arguments(__doc__).parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    count = asked.rounds or (10 if asked.short else 40)
    with tempfile.TemporaryDirectory(prefix="firstread-results-") as name:
        study = study_in(Path(name))
        warm()
        check(study)
        sr, message = study.sr(), study.message()
        ours = [
            Measured("report", "ours", timed(study.sr)),
            Measured("heat map", "ours", timed(study.heat_map)),
            Measured("message", "ours", timed(study.message)),
        ]
        peers = [
            Measured("report", "highdicom, whole tree", timed(lambda: part10(plain_report(study, sr)))),
            Measured("heat map", "matplotlib and SCImage", timed(lambda: plain_heat_map(study))),
            Measured("message", "hl7apy", timed(lambda: plain_message(message))),
        ]
        rows = [row for pair in zip(ours, peers, strict=True) for row in pair]
        rounds(rows, count)
        study.bench.store.close()
    report(
        rows,
        lambda: min(LIMITS_MS[row.case] / row.median("CPU ms") for row in ours),
        packages=("highdicom", "pydicom", "hl7apy", "pillow", "matplotlib"),
        file=asked.json,
    )


if __name__ == "__main__":
    main()
