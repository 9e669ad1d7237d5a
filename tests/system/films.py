"""Phantom films for tests of the whole chain: drawn once, sent as often as wanted under other identities."""

from __future__ import annotations

import uuid
from copy import deepcopy
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from firstread.models.phantoms.cohort import demo_cohort

NOTHING, LATERAL, HAND, PNEUMOTHORAX = 0, 2, 6, 21
"""Places in the demo's morning."""


@cache
def _drawn(number: int) -> Dataset:
    return demo_cohort(now=datetime(2026, 3, 1, 12, 0), longest_side=512)[number].dataset()


def new_uid() -> str:
    """A fresh UID."""
    return f"2.25.{uuid.uuid4().int}"


def film(number: int = NOTHING, study: str = "", **attributes: Any) -> Dataset:
    """A film of one patient under its own SOP Instance UID and, unless ``study`` says which, of its own study."""
    dataset = deepcopy(_drawn(number))
    study = study or new_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, new_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = new_uid()
    dataset.AccessionNumber = f"A{study[-12:]}"
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = "PH0001", "PHANTOM^ANNA", "19900301"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write(folder: Path, *datasets: Dataset) -> list[Path]:
    """The films as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in datasets:
        path = folder / f"{dataset.SOPInstanceUID[-20:]}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
