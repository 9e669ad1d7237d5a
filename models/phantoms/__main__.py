"""Writes phantoms as DICOM files with a table like NIH's: ``python -m firstread.models.phantoms --out DIR``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from firstread.models.phantoms.film import PhantomPatient, to_dicom
from firstread.models.phantoms.habits import HABITS
from firstread.models.phantoms.training_set import training_spec

COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def write_phantoms(folder: Path, count: int, seed: int, longest_side: int) -> None:
    """``count`` phantoms of as many patients, each maker in turn, and ``labels.csv``, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = list(HABITS)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(COLUMNS)
        for index in range(count):
            rng = np.random.default_rng([seed, index, 1])
            size = (longest_side, round(longest_side * float(rng.uniform(0.8, 1.0))))
            spec = training_spec(index, seed, size)
            patient = PhantomPatient(f"PH{index + 1:04d}", f"PHANTOM^NUMBER {index + 1}")
            dataset = to_dicom(spec, maker=makers[index % len(makers)], patient=patient)
            name = f"phantom_{seed}_{index:05d}.dcm"
            dataset.save_as(folder / name, enforce_file_format=True)
            rows.writerow((name, "|".join(spec.labels), patient.patient_id, spec.age, spec.sex, spec.view))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m firstread.models.phantoms", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made when absent")
    parser.add_argument("--count", type=int, default=24, help="number of films (24)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same films (1)")
    parser.add_argument("--longest-side", type=int, default=1024, help="pixels (1024)")
    given = parser.parse_args(arguments)
    write_phantoms(given.out, given.count, given.seed, given.longest_side)


if __name__ == "__main__":
    main()
