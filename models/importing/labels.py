"""Names of outputs, as published collections spell them, become the product's labels; unknown ones are dropped."""

from __future__ import annotations

import csv
import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firstread.models.data.film import DataError
from firstread.models.findings import LABELS, NO_FINDING

COLLECTIONS: Mapping[str, tuple[str, ...]] = {
    "chexpert": (
        "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
        "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
        "Support Devices",
    ),
    "torchxrayvision": (
        "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
        "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
        "Lung Opacity", "Enlarged Cardiomediastinum",
    ),
}  # fmt: skip
"""Label orders that may be named instead of spelled out. NIH's is not among them: every author has another."""

_ALIASES: Mapping[str, str] = {
    "pleuraleffusion": "Effusion",
    "effusions": "Effusion",
    "pulmonaryedema": "Edema",
    "oedema": "Edema",
    "pulmonaryoedema": "Edema",
    "lungedema": "Edema",
    "infiltrate": "Infiltration",
    "infiltrates": "Infiltration",
    "infiltrations": "Infiltration",
    "lungconsolidation": "Consolidation",
    "pulmonaryfibrosis": "Fibrosis",
    "lungfibrosis": "Fibrosis",
    "pulmonaryemphysema": "Emphysema",
    "hiatalhernia": "Hernia",
    "hiatushernia": "Hernia",
    "diaphragmatichernia": "Hernia",
    "lungmass": "Mass",
    "pulmonarymass": "Mass",
    "lungnodule": "Nodule",
    "pulmonarynodule": "Nodule",
    "thickeningpleural": "Pleural_Thickening",
    "pleurathickening": "Pleural_Thickening",
    "enlargedheart": "Cardiomegaly",
    "atelectases": "Atelectasis",
    "nofindings": NO_FINDING,
    "normal": NO_FINDING,
    "healthy": NO_FINDING,
}

_FOREIGN = frozenset(
    {
        "abnormal", "airspaceopacity", "aorticenlargement", "calcification", "catheter", "claviclefracture", "copd",
        "covid", "covid19", "device", "enlargedcardiomediastinum", "fracture", "ild", "lungcavity", "lungcyst",
        "lunglesion", "lungopacity", "lungtumor", "massnodule", "mediastinalshift", "nodulemass", "noduleormass",
        "otherdiseases", "otherlesion", "pleuralabnormality", "pleuralother", "ribfracture", "supportdevices",
        "tube", "tuberculosis",
    }
)  # fmt: skip
"""Known names of other collections that are none of the product's labels, near as some are spelled."""

DROPPED_MARKS = ("", "-", "_", "nan")
"""What stands in a list of labels for an output that means nothing."""


def known_as(name: str) -> str | None:
    """The product's label for a published name; None when the product has none.

    Raises:
        DataError: the name is so near to a label that it must be meant, and is not spelled as one.
    """
    key = _key(name)
    if name.strip().lower() in DROPPED_MARKS or key in _FOREIGN:
        return None
    spelled = {_key(label): label for label in LABELS} | dict(_ALIASES)
    if key in spelled:
        return spelled[key]
    near = difflib.get_close_matches(key, spelled, n=1, cutoff=0.8)
    if near:
        raise DataError(
            f"label {name!r} is not known, but close to {spelled[near[0]]!r}: spell it so, or write - for an output to "
            "leave out"
        )
    return None


def matched(names: Sequence[str]) -> tuple[str | None, ...]:
    """The product's label for each output, None where it has none and the output is left out.

    Raises:
        DataError: two outputs mean the same label, no output means any, or a name is a near miss.
    """
    labels = tuple(known_as(name) for name in names)
    counted = Counter(label for label in labels if label is not None)
    if not counted:
        raise DataError(
            f"none of the labels {', '.join(names[:6])} is known to this product: it knows {', '.join(LABELS)}"
        )
    twice = next((label for label, times in counted.items() if times > 1), None)
    if twice is not None:
        same = " and ".join(repr(name) for name, label in zip(names, labels, strict=True) if label == twice)
        raise DataError(f"{same} both mean {twice!r}: write - for the output that is not to be used")
    return labels


def read_names(given: str) -> tuple[str, ...]:
    """Names of the outputs in order, from a list with commas, a file (lines, one CSV row, JSON) or a collection's name.

    Raises:
        DataError: the file cannot be read or is no list of names; says what to do.
    """
    if given.strip().lower() in COLLECTIONS:
        return COLLECTIONS[given.strip().lower()]
    path = Path(given)
    if _is_file(path):
        return _names_in(path)
    if path.suffix.lower() in (".txt", ".csv", ".json", ".toml", ".names") or ("/" in given and "," not in given):
        raise DataError(f"{given}: there is no such file of labels")
    return tuple(part.strip() for part in given.split(","))


def read_points(path: Path) -> dict[str, float]:
    """Operating points by label from a JSON or TOML file ``{"Effusion": 0.4, ...}`` (also under a key ``thresholds``).

    Names are matched as those of outputs are; those that the product does not know are left out.

    Raises:
        DataError: the file cannot be read, a value is no number in (0, 1], or a label stands twice.
    """
    stored = _parsed(path, tomllib.loads if path.suffix.lower() == ".toml" else json.loads)
    if isinstance(stored, dict) and isinstance(stored.get("thresholds"), dict):
        stored = stored["thresholds"]
    if not isinstance(stored, dict) or not stored:
        raise DataError(f'{path} is no table of operating points: it must read {{"Effusion": 0.4, ...}}')
    points: dict[str, float] = {}
    for name, value in stored.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise DataError(
                f"{path}: the operating point of {name} is {value!r}: it must be a number above 0, at most 1"
            )
        label = known_as(str(name))
        if label in points:
            raise DataError(f"{path}: two operating points are given for {label}: leave one")
        if label is not None:
            points[label] = float(value)
    return points


def _names_in(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() == ".json":
        stored = _parsed(path, json.loads)
        if isinstance(stored, dict) and isinstance(stored.get("id2label"), dict):
            stored = stored["id2label"]
        if isinstance(stored, dict):
            stored = _by_number(stored, path)
        if not isinstance(stored, list) or not all(isinstance(name, str) for name in stored):
            raise DataError(f'{path} is no list of labels: it must read ["Atelectasis", "Cardiomegaly", ...]')
        return tuple(name.strip() for name in stored)
    text = _parsed(path, str)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty: write one label a line, in the order of the outputs")
    if len(lines) == 1 and "," in lines[0]:
        lines = next(csv.reader(lines))
    return tuple(line.strip() for line in lines)


def _by_number(stored: Mapping[str, Any], path: Path) -> list[Any]:
    """``{"0": "Atelectasis", ...}`` or ``{"Atelectasis": 0, ...}`` in the order of the numbers."""
    try:
        pairs = (
            {int(value): name for name, value in stored.items()}
            if all(isinstance(value, int) for value in stored.values())
            else {int(name): value for name, value in stored.items()}
        )
    except ValueError:
        pairs = {}
    if sorted(pairs) != list(range(len(stored))):
        raise DataError(
            f'{path} does not number its labels from 0 on: it must read {{"0": "Atelectasis", ...}} or be a list'
        )
    return [pairs[number] for number in range(len(pairs))]


def _parsed(path: Path, parse: Any) -> Any:
    try:
        if path.stat().st_size > 1_000_000:
            raise DataError(f"{path} has more than a megabyte: it is no table of labels")
        return parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0][:200]}): mend it or give another file"
        ) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long list is no file name
        return False


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
