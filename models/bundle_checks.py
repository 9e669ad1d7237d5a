"""What keeps a whole, unchanged bundle from being used all the same: its parts do not fit, or its numbers are none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from firstread.models.architecture import parameter_shapes
from firstread.models.findings import LABELS

if TYPE_CHECKING:
    from firstread.models.bundle import Bundle

SMALLEST_CANARY, LARGEST_CANARY = 16, 4096
METHODS = ("platt", "temperature", "identity")


def problems(bundle: Bundle) -> list[str]:
    """Every reason not to use a bundle whose files are those that it was made with, as sentences."""
    found = [*_label_problems(bundle), *_calibration_problems(bundle), *_canary_problems(bundle)]
    if bundle.architecture.name == "onnx":
        from firstread.models import onnx_file

        return [
            *found,
            *onnx_file.problems(bundle.folder / bundle.weights_file, bundle.architecture, bundle.input_size),
        ]
    return [*found, *_weight_problems(bundle)]


def _label_problems(bundle: Bundle) -> list[str]:
    labels = bundle.labels
    found = [f"label {label!r} is unknown to this product" for label in labels if label not in LABELS]
    if len(set(labels)) != len(labels) or not labels:
        found.append("its labels are empty or one stands twice: outputs and labels cannot be matched")
    for label in sorted(bundle.experimental - set(labels)):
        found.append(f"{label!r} is called experimental but is no label of it")
    for label, threshold in bundle.thresholds.items():
        if not 0 < threshold <= 1:
            found.append(f"the operating point of {label} is {threshold}: it must lie in (0, 1]")
    return found


def _calibration_problems(bundle: Bundle) -> list[str]:
    calibration = bundle.calibration
    found = []
    pairs = list(zip(bundle.labels, calibration.slope, calibration.offset, strict=True))
    for label, slope, offset in pairs:
        if not (math.isfinite(slope) and math.isfinite(offset)) or slope <= 0:
            found.append(f"the calibration of {label} is {slope}, {offset}: a slope above 0 is needed")
    if calibration.method not in METHODS:
        found.append(f"calibration method {calibration.method!r} is unknown: this version reads {', '.join(METHODS)}")
    changing = [label for label, slope, offset in pairs if (slope, offset) != (1.0, 0.0)]
    if calibration.method == "identity" and changing:
        found.append(f"its calibration is called identity and changes {changing[0]}: slope 1 and offset 0 are needed")
    if calibration.method == "temperature" and any(calibration.offset):
        found.append("its calibration is called temperature and has offsets: they must be 0")
    if bundle.architecture.output == "softmax" and (calibration.method != "identity" or changing):
        found.append(
            f"its outputs are a softmax, and its calibration is {calibration.method}: labels that share one sum cannot "
            "be calibrated one by one; use identity"
        )
    return found


def _canary_problems(bundle: Bundle) -> list[str]:
    if not bundle.canaries:
        return ["it has no canaries: without them nobody can tell that it works"]
    found = []
    for canary in bundle.canaries:
        if set(canary.expected) != set(bundle.labels):
            found.append(f"canary {canary.file} does not say what to expect for each label")
        if canary.file not in bundle.files:
            found.append(f"canary {canary.file} is not in the list of files")
        elif not _is_a_picture(bundle.folder / canary.file):
            found.append(f"canary {canary.file} is no grey PNG of {SMALLEST_CANARY} to {LARGEST_CANARY} pixels a side")
    return found


def _is_a_picture(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            sides = picture.size
            if not SMALLEST_CANARY <= min(sides) <= max(sides) <= LARGEST_CANARY:
                return False
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def _weight_problems(bundle: Bundle) -> list[str]:
    expected, file = parameter_shapes(bundle.architecture), bundle.weights_file
    try:
        with safe_open(bundle.folder / file, framework="numpy") as stored:
            found = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
            wrong = _shape_problem(bundle, expected, found)
            if wrong:
                return [wrong]
            for name in found:
                if not np.isfinite(stored.get_tensor(name)).all():
                    return [f"{file}: {name} holds values that are no numbers (NaN or infinite): train or import again"]
    except (OSError, SafetensorError, TypeError) as error:
        return [f"{file} cannot be read ({error}): install the bundle again"]
    return []


def _shape_problem(
    bundle: Bundle, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> str | None:
    file = bundle.weights_file
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        names = ", ".join([*(f"no {name}" for name in missing[:3]), *(f"unknown {name}" for name in unknown[:3])])
        return f"{file} does not hold this network ({names}): weights and description belong to different models"
    last = [name for name in expected if name.startswith("fc.") and name.endswith(".bias")][-1]
    if found[last] != expected[last]:
        return f"the weights have {found[last][0]} outputs, bundle.toml names {len(bundle.labels)} labels"
    for name, shape in expected.items():
        if found[name] != shape:
            return f"{file}: {name} is {list(found[name])}, the network needs {list(shape)}: other weights"
    return None
