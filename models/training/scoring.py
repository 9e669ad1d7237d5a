"""A network in training, asked: the logits of films that it does not learn from, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset

from firstread.models.data.film import Film, FilmSet
from firstread.models.findings import LABELS
from firstread.models.metadata import Known, encode
from firstread.models.network import ChestNetwork
from firstread.models.preprocess import Preprocessing, prepare
from firstread.models.training.batches import known_of
from firstread.models.training.ranks import Ranks

Numbers = npt.NDArray[np.float64]

FEWEST = 1
"""A label with no film of either kind has no AUROC. (Figures with intervals, for the card, ask for more.)"""


@dataclass(frozen=True)
class Watched:
    """What the films kept aside say after an epoch: mean loss per known label, AUROC per label (NaN where all films are
    of one kind)."""

    loss: float
    auroc: dict[str, float]

    def figure(self, name: str) -> float:
        """A named figure, higher is better: ``loss`` (negated), ``auroc`` (mean over labels), ``auroc.<label>``."""
        if name == "loss":
            return -self.loss
        if name == "auroc":
            values = [value for value in self.auroc.values() if np.isfinite(value)]
            return float(np.mean(values)) if values else float("nan")
        return self.auroc[name.removeprefix("auroc.")]


def logits_of(
    network: ChestNetwork,
    films: FilmSet,
    preprocessing: Preprocessing,
    *,
    metadata: bool = True,
    batch: int = 16,
    ranks: Ranks | None = None,
    workers: int = 0,
) -> Numbers:
    """Logits [N, L] of a film set in float32 arithmetic, without auxiliary outputs.

    ``metadata``: False hides it, as if nothing but the pixels were known. ``ranks``: several processes share the work,
    and each gets all answers. ``workers``: processes that prepare films, none by default.
    """
    network.eval()
    ranks = ranks or Ranks()
    device = next(network.parameters()).device
    own = list(range(ranks.rank, len(films), ranks.world))
    parts = []
    names = network.architecture.metadata
    loader = DataLoader(
        _Plain(films, preprocessing), batch, sampler=own, num_workers=workers if len(own) > batch else 0
    )
    for number, squares in enumerate(loader):
        chosen = own[number * batch : number * batch + len(squares)]
        known: list[Known | None] = [known_of(films.films[i]) if metadata else None for i in chosen]
        with torch.inference_mode():
            logits, _ = network(squares.to(device), torch.from_numpy(encode(known, names)).to(device))
        parts.append(logits[:, : len(LABELS)].float().cpu().numpy().astype(np.float64))
    found = np.concatenate(parts) if parts else np.zeros((0, len(LABELS)))
    answers = np.full((len(films), found.shape[1]), np.nan)
    for rank, theirs in enumerate(ranks.gathered(found)):
        answers[rank :: ranks.world] = theirs
    return answers


class _Plain(Dataset[npt.NDArray[np.float32]]):
    """Films as the service prepares them, not varied."""

    def __init__(self, films: FilmSet, preprocessing: Preprocessing) -> None:
        self.films, self.preprocessing = films, preprocessing

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> npt.NDArray[np.float32]:
        return prepare(self.films.image(index), self.preprocessing)


def watch(films: Sequence[Film], logits: Numbers, softmax: bool) -> Watched:
    """What held-aside films say. ``softmax``: the logits share one sum."""
    target = np.stack([film.target for film in films]) > 0.5
    known = np.stack([film.known for film in films]) > 0.5
    if softmax:
        shifted = logits - logits.max(axis=1, keepdims=True)
        score = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        errors = -score[target & known]
    else:
        score = logits
        errors = np.logaddexp(0.0, np.where(target, -logits, logits))[known]
    auroc = {}
    for column, label in enumerate(LABELS):
        rows = known[:, column]
        present = target[rows, column]
        both = min(int(present.sum()), int((~present).sum())) >= FEWEST and bool(np.isfinite(score).all())
        auroc[label] = float(roc_auc_score(present, score[rows, column])) if both else float("nan")
    return Watched(float(errors.mean()) if errors.size else float("nan"), auroc)
