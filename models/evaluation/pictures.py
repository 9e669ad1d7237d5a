"""Small pictures of films for a page: a thumbnail, a heat map beside it, and the line that says what it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models.data.film import DataError, Film
from firstread.models.evaluation.score import FloatImage, admitted, upright
from firstread.models.findings import LABELS
from firstread.models.preprocess import Placement
from firstread.models.saliency import over_film

SIDE = 176
"""Longest side of a picture in pixels: a page of a hundred stays below two megabytes."""

_HEAT = np.array([[250, 204, 90], [240, 96, 60]], np.float32)
"""Colours of weak and strong evidence; both differ from grey for every colour vision."""


def thumbnail(film: Film, side: int = SIDE) -> FloatImage | None:
    """The film [rows, columns] in [0, 1] with ``side`` pixels on its longer side; None where it cannot be read."""
    try:
        grey, _, _ = admitted(upright(film)[0])
    except DataError:
        return None
    scale = side / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), np.float32)


def as_uri(grey: FloatImage) -> str:
    """A grey picture as a ``data:`` URI (JPEG)."""
    return _uri(Image.fromarray((np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)))


def heat_uri(grey: FloatImage, cam: npt.NDArray[np.float32], placement: Placement) -> str:
    """The picture under the evidence for a label, as a ``data:`` URI. ``cam``: [h, w] in [0, 1]."""
    heat = over_film(cam, placement, (grey.shape[0], grey.shape[1]))[..., None]
    colour = _HEAT[0] + (_HEAT[1] - _HEAT[0]) * heat
    cover = 0.65 * np.clip((heat - 0.15) / 0.85, 0, 1)
    blended = (1 - cover) * (grey[..., None] * 255) + cover * colour
    return _uri(Image.fromarray(np.clip(blended + 0.5, 0, 255).astype(np.uint8)))


def diagnosis_line(film: Film, said: Mapping[str, float], thresholds: Mapping[str, float]) -> str:
    """What is known and what was said: ``Dx: No Finding, PDx: No F: 37 %``.

    After PDx stand the labels that the film carries or the model calls, shortened to four letters, more where two
    labels would read alike (``Pneumon``, ``Pneumot``). A label that the model does not assess reads ``not assessed``.
    """
    known = [label for i, label in enumerate(LABELS) if film.known[i] and film.target[i]]
    called = [label for label, value in said.items() if value >= thresholds.get(label, 0.5)]
    shown = [label for label in LABELS if label in known or label in called]
    dx = ", ".join(label.replace("_", " ") for label in known) or "not stated"
    if not said:
        return f"Dx: {dx}, PDx: not readable"
    pdx = ", ".join(
        f"{SHORT[label]}: {100 * said[label]:.0f} %" if label in said else f"{SHORT[label]}: not assessed"
        for label in shown
    )
    return f"Dx: {dx}, PDx: {pdx or 'none called'}"


def _short(labels: Sequence[str]) -> dict[str, str]:
    found = {}
    for label in labels:
        length = 4
        while any(other != label and other[:length] == label[:length] for other in labels):
            length += 1
        found[label] = label[:length].replace("_", " ")
    return found


SHORT: Mapping[str, str] = _short(LABELS)


def _uri(picture: Image.Image) -> str:
    with io.BytesIO() as stream:
        picture.save(stream, format="JPEG", quality=72, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
