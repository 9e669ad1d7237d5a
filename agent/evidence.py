"""Where a model saw what, as it is kept with an analysed image: activation maps and how they lie on the film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from firstread.models.saliency import localise, over_film

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """``maps``: float32 [labels, h, w] in [0, 1], in the order of ``labels``.

    ``placement`` lays them on the upright film, in the pixels of its preview.
    """

    labels: tuple[str, ...]
    maps: FloatMap
    placement: Placement

    def over_film(self, label: str, size: tuple[int, int]) -> FloatMap:
        """The map of a label over the whole film, drawn at ``size`` (rows, columns). KeyError if not assessed."""
        return over_film(self._map(label), self.placement, size)

    def shows(self, label: str) -> bool:
        """False where the map of a label holds no evidence at all. KeyError if not assessed."""
        return bool(self._map(label).any())

    def box(self, label: str) -> Box:
        """Where the evidence for a label is strongest, in the preview's pixels. KeyError if not assessed."""
        return localise(self._map(label), self.placement)

    def _map(self, label: str) -> FloatMap:
        if label not in self.labels:
            raise KeyError(label)
        return np.asarray(self.maps[self.labels.index(label)], np.float32)


def freeze(labels: Sequence[str], maps: FloatMap, placement: Placement) -> bytes:
    """Evidence as it is kept in the database (.npz, maps as uint8, placement in its own fields)."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        labels=np.array(list(labels), dtype=np.str_),
        maps=(np.clip(maps, 0, 1) * 255 + 0.5).astype(np.uint8),
        placement=np.array(
            [
                placement.film_rows,
                placement.film_columns,
                placement.left,
                placement.top,
                placement.right,
                placement.bottom,
                placement.size,
            ],
            dtype=np.float64,
        ),
    )
    return buffer.getvalue()


def thaw(stored: bytes) -> Evidence:
    """What freeze kept. Raises ValueError when the bytes are not evidence."""
    try:
        with np.load(io.BytesIO(stored), allow_pickle=False) as kept:
            rows, columns, left, top, right, bottom, size = kept["placement"].tolist()
            return Evidence(
                labels=tuple(str(label) for label in kept["labels"]),
                maps=kept["maps"].astype(np.float32) / 255.0,
                placement=Placement(int(rows), int(columns), left, top, right, bottom, int(size)),
            )
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"the evidence kept with this image cannot be read: {error}") from error
