"""Who is audited: anything that answers pictures with probabilities, a bundle first of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from firstread.models.audit.picture import Picture
from firstread.models.bundle import Bundle
from firstread.models.data.film import Film
from firstread.models.engine import Engine, EngineError
from firstread.models.evaluation.score import admitted
from firstread.models.preprocess import Placement, place, prepare

Numbers = npt.NDArray[np.float64]

BATCH = 16


@dataclass(frozen=True, eq=False)
class Ready:
    """A picture made ready. ``placement``: which part of it fills the square; ``refused``: the gate turns it away."""

    square: Picture
    placement: Placement
    refused: bool


@dataclass(frozen=True, eq=False)
class Answer:
    """``probabilities``: [V, L], calibrated. ``maps``: [V, L, h, w] in [0, 1] over the squares, None without maps."""

    probabilities: Numbers
    maps: npt.NDArray[np.float32] | None


class Judge(Protocol):
    """What the audit needs of a model. ``thresholds``: the operating points of those labels that have one."""

    @property
    def labels(self) -> tuple[str, ...]:
        """L labels in the order of the answers."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Probability at and above which a label is called."""

    def ready(self, picture: Picture) -> Ready:
        """Make a picture [rows, columns] ready; may run in several threads at once."""

    def answer(self, film: Film, pictures: Sequence[Ready]) -> Answer:
        """Answers to V pictures that all stem from one film (whose age, sex and view the model may be told).

        Raises:
            EngineError: it gives no answer.
        """


class BundleJudge:
    """A bundle in an engine, as the service runs it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.bundle: Bundle = engine.bundle

    @property
    def labels(self) -> tuple[str, ...]:
        """The bundle's labels."""
        return self.bundle.labels

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The bundle's operating points."""
        return self.bundle.thresholds

    def ready(self, picture: Picture) -> Ready:
        """Through gate and preparation."""
        analysed, reason, _ = admitted(picture)
        placement = place(analysed, self.bundle.preprocessing)
        return Ready(prepare(analysed, self.bundle.preprocessing, placement), placement, reason is not None)

    def answer(self, film: Film, pictures: Sequence[Ready]) -> Answer:
        """Through the engine, in batches."""
        known = {"age": film.age, "sex": film.sex, "view": film.view}
        parts = []
        for start in range(0, len(pictures), BATCH):
            squares = np.stack([each.square for each in pictures[start : start + BATCH]])
            try:
                parts.append(self._engine.run(squares, [known] * len(squares)))
            except ValueError as error:
                raise EngineError(f"bundle {self.bundle.folder} gives no answer to {film.key}: {error}") from error
        maps = [part.saliency for part in parts if part.saliency is not None]
        return Answer(
            np.concatenate([part.probabilities for part in parts]).astype(np.float64),
            np.concatenate(maps) if len(maps) == len(parts) else None,
        )


def log_odds(probabilities: Numbers) -> Numbers:
    """Probabilities as log odds, cut at about 16 either way: on this scale a shift means the same everywhere."""
    bounded = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    odds: Numbers = np.log(bounded) - np.log1p(-bounded)
    return odds
