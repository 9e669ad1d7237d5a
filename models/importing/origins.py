"""Where weights come from decides how a film must be prepared for them: what each library does, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firstread.models.data.film import DataError
from firstread.models.importing.labels import COLLECTIONS
from firstread.models.preprocess import Preprocessing

AUTO = "auto"
ONNX = "onnx"
TORCHVISION = "resnet50"
TIMM = "timm-resnet50"
XRAYVISION = "torchxrayvision-resnet50"

ARCHITECTURES = (TORCHVISION, TIMM, XRAYVISION, ONNX)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

WIDEST_ASPECT = 4.0
"""Films are stretched whatever their shape, as ``Resize((S, S))`` does: the product's own padding is kept out."""


@dataclass(frozen=True)
class Origin:
    """What a library does to a picture before its ResNet50 sees it.

    ``share``: the side of the square as a share of the shorter side it is cut out of (``resize_then_crop`` alone).
    ``mean``, ``std``: normalisation on greys in [0, 1]; empty where nobody can know it. ``source``: for the record.
    """

    arch: str
    input_size: int
    fit: str
    resample: str
    eight_bit: bool
    share: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]
    source: str

    def resize_to(self, input_size: int) -> int:
        """The shorter side before cutting, as the library computes it."""
        return math.floor(input_size / self.share)


ORIGINS: Mapping[str, Origin] = {
    TORCHVISION: Origin(
        arch=TORCHVISION,
        input_size=224,
        fit="resize_then_crop",
        resample="bilinear",
        eight_bit=True,
        share=224 / 256,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        labels=(),
        source="torchvision: Resize(256), CenterCrop(224), ToTensor, Normalize of ImageNet, on an 8-bit picture",
    ),
    TIMM: Origin(
        arch=TIMM,
        input_size=224,
        fit="resize_then_crop",
        resample="bicubic",
        eight_bit=True,
        share=0.95,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        labels=(),
        source="timm: default_cfg of resnet50 (crop_pct 0.95, bicubic, ImageNet's normalisation), on an 8-bit picture",
    ),
    XRAYVISION: Origin(
        arch=XRAYVISION,
        input_size=512,
        fit="centre_crop",
        resample="gaussian",
        eight_bit=False,
        share=1.0,
        # (x - 0.5) * 2048 is torchxrayvision's range from -1024 to 1024.
        mean=(0.5,),
        std=(1 / 2048,),
        labels=COLLECTIONS["torchxrayvision"],
        source="torchxrayvision: normalize to [-1024, 1024], XRayCenterCrop, XRayResizer(512) by scikit-image",
    ),
    ONNX: Origin(
        arch=ONNX,
        input_size=0,
        fit="resize_then_crop",
        resample="bilinear",
        eight_bit=True,
        share=224 / 256,
        mean=(),
        std=(),
        labels=(),
        source="an ONNX file; squares as torchvision makes them, unless said otherwise",
    ),
}


@dataclass(frozen=True)
class Wanted:
    """What the user says of the preprocessing; None and empty leave the library's own."""

    input_size: int | None = None
    fit: str = ""
    resize_to: int | None = None
    resample: str = ""
    eight_bit: bool | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def preprocessing_of(origin: Origin, wanted: Wanted, fixed_size: int | None = None) -> Preprocessing:
    """The preprocessing that does what the library does. ``fixed_size``: the side that a graph is bound to.

    Raises:
        DataError: sizes or names that cannot be meant.
    """
    size = (fixed_size or origin.input_size) if wanted.input_size is None else wanted.input_size
    if wanted.input_size is None and not size:
        raise DataError("the graph takes squares of any size: give the one that it was trained on with --input-size")
    if fixed_size and size != fixed_size:
        raise DataError(f"--input-size is {size}, the graph takes {fixed_size}: leave the option out")
    fit = wanted.fit or origin.fit
    usual = origin.resize_to(size) if fit == "resize_then_crop" else 0
    resize_to = usual if wanted.resize_to is None else wanted.resize_to
    if wanted.resize_to is not None and fit != "resize_then_crop":
        raise DataError(f"--resize-to goes with --fit resize_then_crop, not with {fit}: leave one of them out")
    try:
        return Preprocessing(
            input_size=size,
            max_aspect=WIDEST_ASPECT,
            trim=False,
            equalise=False,
            fit=fit,
            resize_to=resize_to,
            resample=wanted.resample or origin.resample,
            eight_bit=origin.eight_bit if wanted.eight_bit is None else wanted.eight_bit,
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def normalisation_of(origin: Origin, wanted: Wanted, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on greys in [0, 1].

    Raises:
        DataError: they are not known, not as many as channels, or on another scale.
    """
    known = origin.mean if len(origin.mean) == channels else ()
    mean, std = wanted.mean or known, wanted.std or (origin.std if known else ())
    if bool(wanted.mean) != bool(wanted.std):
        raise DataError("--mean and --std belong together: give both, or neither")
    if not mean or not std:
        what = "a graph" if origin.arch == ONNX else f"{channels}-channel weights"
        raise DataError(
            f"nobody can tell from {what} how greys were normalised, and wrong ones cannot be noticed: give "
            "--mean and --std on the scale from 0 to 1 (none at all is --mean 0 --std 1; ImageNet's are "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225; 0 to 255 is --mean 0 --std 0.00392156862745098)"
        )
    return _per_channel("--mean", mean, channels), _per_channel("--std", std, channels, positive=True)


def _per_channel(option: str, values: Sequence[float], channels: int, *, positive: bool = False) -> tuple[float, ...]:
    if len(values) == 1:
        values = tuple(values) * channels
    if len(values) != channels:
        raise DataError(
            f"{option} has {len(values)} values, the first layer reads {channels} channels: give 1 or {channels}"
        )
    if not all(math.isfinite(value) for value in values) or (positive and min(values) <= 0):
        raise DataError(
            f"{option} holds {', '.join(map(str, values))}: numbers{' above 0' if positive else ''} are needed"
        )
    if max(abs(value) for value in values) > 2:
        raise DataError(f"{option} holds {max(values):g}: give it on the scale from 0 to 1 (divide by 255)")
    return tuple(float(value) for value in values)
