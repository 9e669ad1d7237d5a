"""A film becomes the square that the network reads: one code path for training and for serving.

Three steps, each with its parameters in the bundle: empty borders are left out, the rest is shrunk to the square by
area averaging, and the greys are equalised by rank. Equalising is what hides how a film was exposed and windowed: any
brightness, contrast or gamma gives the same square, so that the network cannot tell films apart by it.

Weights from elsewhere were trained on squares made in other ways; the parameters say which, and ``resize`` does what
the libraries do that they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from firstread.models.prediction import Box
from firstread.models.resize import RESAMPLES, FloatImage, resize

FITS = ("stretch", "centre_crop", "resize_then_crop")


@dataclass(frozen=True)
class Preprocessing:
    """Every parameter of :func:`prepare`, as it stands in ``bundle.toml``.

    ``input_size``: side of the square in pixels.
    ``max_aspect``: a film is stretched to the square as long as its sides differ by no more than this factor; beyond
    it, the shorter side is padded with its own edge first.
    ``trim_span``: border rows and columns whose greys span less than this are left out (collimation, added frames).
    ``trim_limit``: at most this share of a side is left out at either end.
    ``equalise_margin``: this share of each side does not count when the grey scale is measured.
    ``equalise_levels``: number of quantiles that make the grey scale.
    ``smoothing_px``: Gaussian sigma in pixels of the square, before the grey scale is measured; 0 for none.

    For weights from elsewhere:
    ``trim``: whether empty borders are left out at all. ``equalise``: False leaves the greys as they are.
    ``fit``: ``stretch``; ``centre_crop``, the largest square around the centre; or ``resize_then_crop``, as torchvision
    and timm do: the shorter side becomes ``resize_to`` pixels, then the middle ``input_size`` pixels are cut out.
    ``resample``: ``box`` (area averaging), ``bilinear`` or ``bicubic`` with Pillow's antialiasing, as
    ``torchvision.transforms.Resize`` on a Pillow image, or ``gaussian``, scikit-image's ``resize`` as torchxrayvision
    calls it. ``eight_bit``: greys are rounded to 256 steps before and after, as with 8-bit pictures.
    """

    input_size: int
    max_aspect: float = 1.4
    trim_span: float = 0.03
    trim_limit: float = 0.25
    equalise_margin: float = 0.1
    equalise_levels: int = 256
    smoothing_px: float = 0.0
    trim: bool = True
    equalise: bool = True
    fit: str = "stretch"
    resize_to: int = 0
    resample: str = "box"
    eight_bit: bool = False

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be meant.

        Raises:
            ValueError: names the parameter and its range.
        """
        ranges: tuple[tuple[str, float, float], ...] = (
            ("input_size", 32, 1024),
            ("max_aspect", 1.0, 4.0),
            ("trim_span", 0.0, 0.2),
            ("trim_limit", 0.0, 0.45),
            ("equalise_margin", 0.0, 0.4),
            ("equalise_levels", 16, 4096),
            ("smoothing_px", 0.0, 8.0),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"preprocessing.{name} is {value}, it must lie between {low} and {high}")
        for name, value, known in (("fit", self.fit, FITS), ("resample", self.resample, RESAMPLES)):
            if value not in known:
                raise ValueError(f"preprocessing.{name} is {value!r}, it must be one of {', '.join(known)}")
        if self.fit == "resize_then_crop" and not self.input_size <= self.resize_to <= 2048:
            raise ValueError(
                f"preprocessing.resize_to is {self.resize_to}: the shorter side needs {self.input_size} to 2048 pixels"
            )


@dataclass(frozen=True)
class Placement:
    """Which part of the film fills the square, so that what is found in the square is found in the film.

    The part is in the upright film's pixels (0, 0 is the outer corner of the first pixel) and may reach beyond the
    film where it was padded.
    """

    film_rows: int
    film_columns: int
    left: float
    top: float
    right: float
    bottom: float
    size: int

    def to_film(self, box: Box) -> Box:
        """A box in pixels of the square becomes one in pixels of the upright film, cut at the film's edge."""
        across = (self.right - self.left) / self.size
        down = (self.bottom - self.top) / self.size
        return Box(
            left=_clip(self.left + box.left * across, self.film_columns),
            top=_clip(self.top + box.top * down, self.film_rows),
            right=_clip(self.left + box.right * across, self.film_columns),
            bottom=_clip(self.top + box.bottom * down, self.film_rows),
        )

    def to_square(self, box: Box) -> Box:
        """A box in pixels of the upright film becomes one in pixels of the square, cut at its edge."""
        across = self.size / (self.right - self.left)
        down = self.size / (self.bottom - self.top)
        return Box(
            left=_clip((box.left - self.left) * across, self.size),
            top=_clip((box.top - self.top) * down, self.size),
            right=_clip((box.right - self.left) * across, self.size),
            bottom=_clip((box.bottom - self.top) * down, self.size),
        )


def place(image: FloatImage, preprocessing: Preprocessing) -> Placement:
    """Decide which part of an upright film [rows, columns], grey in [0, 1], fills the square.

    Raises:
        ValueError: not a two-dimensional image, or one that holds no pixels or values that are not numbers.
    """
    _check(image)
    rows, columns = image.shape
    top, bottom = _trim(image, 1, preprocessing) if preprocessing.trim else (0, rows)
    left, right = _trim(image, 0, preprocessing) if preprocessing.trim else (0, columns)
    part = {"stretch": _stretched, "centre_crop": _centred, "resize_then_crop": _cropped}[preprocessing.fit]
    edges = part(right - left, bottom - top, preprocessing)
    return Placement(
        film_rows=rows,
        film_columns=columns,
        left=left + edges[0],
        top=top + edges[1],
        right=left + edges[2],
        bottom=top + edges[3],
        size=preprocessing.input_size,
    )


def prepare(image: FloatImage, preprocessing: Preprocessing, placement: Placement | None = None) -> FloatImage:
    """Turn an upright film [rows, columns], grey in [0, 1], bone bright, into the square [S, S] in [0, 1].

    ``placement``: what :func:`place` said of this film, when the caller has it already. The same film gives the same
    square, bit by bit.

    Raises:
        ValueError: not a two-dimensional image, or one that holds no pixels or values that are not numbers.
    """
    if placement is None:
        placement = place(image, preprocessing)
    square = _shrink(image, placement, preprocessing)
    if preprocessing.smoothing_px > 0:
        square = ndimage.gaussian_filter(square, preprocessing.smoothing_px, mode="nearest")
    if not preprocessing.equalise:
        return np.asarray(np.clip(square, 0, 1), np.float32)
    return equalise(square, preprocessing.equalise_margin, preprocessing.equalise_levels)


Edges = tuple[float, float, float, float]
"""Left, top, right and bottom of what fills the square, within the part of the film that is used."""


def _stretched(width: int, height: int, preprocessing: Preprocessing) -> Edges:
    across = max(0.0, height / preprocessing.max_aspect - width) / 2
    down = max(0.0, width / preprocessing.max_aspect - height) / 2
    return -across, -down, width + across, height + down


def _centred(width: int, height: int, _: Preprocessing) -> Edges:
    side = min(width, height)
    left, top = width // 2 - side // 2, height // 2 - side // 2
    return left, top, left + side, top + side


def _cropped(width: int, height: int, preprocessing: Preprocessing) -> Edges:
    columns, rows, left, top = _crop(width, height, preprocessing)
    across, down, size = width / columns, height / rows, preprocessing.input_size
    return left * across, top * down, (left + size) * across, (top + size) * down


def _crop(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Columns and rows after resizing, and the left and top of the square in them, rounded as torchvision rounds."""
    shorter, size = preprocessing.resize_to, preprocessing.input_size
    columns = shorter if width <= height else int(shorter * width / height)
    rows = shorter if height <= width else int(shorter * height / width)
    return columns, rows, round((columns - size) / 2), round((rows - size) / 2)


def equalise(square: FloatImage, margin: float, levels: int) -> FloatImage:
    """Replace each grey by its rank among the greys of the inner part: [S, S] in any units to [S, S] in [0, 1]."""
    rows, columns = square.shape
    down, across = int(rows * margin), int(columns * margin)
    inner = square[down : rows - down, across : columns - across]
    scale = np.quantile(inner, np.linspace(0.0, 1.0, levels)).astype(np.float64)
    # np.interp needs rising abscissae: greys that many pixels share make steps, and a step takes its middle rank.
    grey, first, count = np.unique(scale, return_index=True, return_counts=True)
    rank = (first + (count - 1) / 2) / (levels - 1)
    return np.interp(square, grey, rank).astype(np.float32)


def _check(image: FloatImage) -> None:
    if image.ndim != 2 or min(image.shape) < 2:
        raise ValueError(f"an image of shape {image.shape} cannot be prepared: it must have rows and columns")
    if not np.isfinite(image).all():
        raise ValueError("the image holds values that are not numbers: decode it again")


def _trim(image: FloatImage, axis: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """First and last (exclusive) row or column that is not an empty border."""
    span = image.max(axis=axis) - image.min(axis=axis)
    length = span.shape[0]
    limit = int(length * preprocessing.trim_limit)
    start, end = 0, length
    while start < limit and span[start] < preprocessing.trim_span:
        start += 1
    while length - end < limit and span[end - 1] < preprocessing.trim_span:
        end -= 1
    # A border that goes on beyond the limit is no border: the film is dark or flat there.
    if start == limit:
        start = 0
    if length - end == limit:
        end = length
    return start, end


def _shrink(image: FloatImage, placement: Placement, preprocessing: Preprocessing) -> FloatImage:
    size, resample, eight_bit = placement.size, preprocessing.resample, preprocessing.eight_bit
    film = np.ascontiguousarray(image, dtype=np.float32)
    if preprocessing.fit == "resize_then_crop":
        # The part that was left after trimming is resized as a whole, then cut: its edge pixels count in both.
        part = film[_used(image, preprocessing)]
        columns, rows, first, above = _crop(part.shape[1], part.shape[0], preprocessing)
        return resize(part, (rows, columns), resample, eight_bit=eight_bit)[above : above + size, first : first + size]
    left, top, right, bottom = placement.left, placement.top, placement.right, placement.bottom
    beyond = max(-left, -top, right - placement.film_columns, bottom - placement.film_rows, 0.0)
    if beyond > 0:
        pad = int(np.ceil(beyond))
        film = np.pad(film, pad, mode="edge")
        left, top, right, bottom = left + pad, top + pad, right + pad, bottom + pad
    return resize(film, (size, size), resample, box=(left, top, right, bottom), eight_bit=eight_bit)


def _used(image: FloatImage, preprocessing: Preprocessing) -> tuple[slice, slice]:
    if not preprocessing.trim:
        return slice(None), slice(None)
    return slice(*_trim(image, 1, preprocessing)), slice(*_trim(image, 0, preprocessing))


def _clip(value: float, limit: int) -> float:
    return float(min(max(value, 0.0), limit))
