"""The randomisation test: a map that stays the same when the weights are random shows the film, not the model.

Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018): the weights are made random from the head backwards,
one stage after the other, and each time the maps are compared with the trained network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr

from firstread.models.bundle import Bundle
from firstread.models.metadata import Known, encode
from firstread.models.saliency import upsample

Map = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

STAGES = ("head", "layer4", "layer3", "layer2", "layer1", "conv1")
"""Randomised in this order, each with all before it."""

ALIKE = 0.5
"""A map counts as another one when its mean rank correlation with the trained network's is below this."""

SEEDS = 2
SIDE = 64
WINDOW = 7


@dataclass(frozen=True)
class RandomisedStage:
    """Means over films, labels and seeds when ``stage`` and everything after it in the network is random.

    ``rank_correlation``: Spearman's, of the maps' cells; ``absolute``: without its sign. ``ssim``: structural
    similarity of the maps as they are shown. NaN where no map had anything to compare.
    """

    stage: str
    rank_correlation: float
    absolute: float
    ssim: float


@dataclass(frozen=True)
class Randomisation:
    """``depends``: the maps are others as soon as the head is random, and when everything is. ``why_not``: why it was
    not tested, empty when it was."""

    films: int
    maps: int
    seeds: int
    stages: tuple[RandomisedStage, ...]
    why_not: str = ""

    @property
    def depends(self) -> bool:
        """Whether the maps depend on what was learned."""
        ends = (self.stages[0], self.stages[-1]) if self.stages else ()
        return bool(ends) and all(one.rank_correlation < ALIKE for one in ends)


def randomisation_test(
    bundle: Bundle,
    squares: npt.NDArray[np.float32],
    columns: Sequence[int],
    known: Sequence[Known | None] | None = None,
    seeds: int = SEEDS,
) -> Randomisation:
    """Compare maps of films before and after their network's weights are made random.

    ``squares``: [N, S, S] as ``prepare`` makes them; ``columns``: for each film the label whose map is compared;
    ``known``: what a network that takes metadata is told of each.
    """
    if not bundle.has_maps or bundle.architecture.name == "onnx":
        why = "it has no maps" if not bundle.has_maps else "an ONNX file's weights cannot be made random stage by stage"
        return Randomisation(len(squares), 0, 0, (), why)
    import torch

    from firstread.models.engine_torch import network_of

    names = bundle.architecture.metadata
    told = torch.from_numpy(encode(known or [None] * len(squares), names)) if names else None
    batch = torch.from_numpy(np.ascontiguousarray(squares, np.float32))

    def maps(network: torch.nn.Module) -> Numbers:
        with torch.inference_mode():
            activations = network(batch, told)[1]
        return np.stack([activations[n, column].double().numpy() for n, column in enumerate(columns)])

    trained = maps(network_of(bundle))
    found: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}
    for seed in range(seeds):
        network = network_of(bundle)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for stage in STAGES:
                _randomise(network.resnet, stage)
                found[stage] += [
                    (rank_correlation(one, other), ssim(shown(one), shown(other)))
                    for one, other in zip(trained, maps(network), strict=True)
                ]
    stages = tuple(_stage(stage, np.array(values)) for stage, values in found.items())
    return Randomisation(len(squares), len(trained), seeds, stages)


def rank_correlation(first: Numbers, second: Numbers) -> float:
    """Spearman's rank correlation of two maps' cells; NaN when one of them is flat."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def shown(activations: Numbers) -> Map:
    """A map as it is shown: positive evidence [0, 1] relative to its peak, enlarged to 64 x 64."""
    positive = np.maximum(activations, 0)
    top = float(positive.max())
    return upsample(np.asarray(positive / (top if top > 0 else 1), np.float32), (SIDE, SIDE))


def ssim(first: Map, second: Map) -> float:
    """Mean structural similarity of two maps in [0, 1] (Wang et al., IEEE Trans. Image Processing 13(4), 2004), 7 px
    windows; NaN when one of them is flat."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    x, y = first.astype(np.float64), second.astype(np.float64)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_x, mean_y = uniform_filter(x, WINDOW), uniform_filter(y, WINDOW)
    var_x = unbiased * (uniform_filter(x * x, WINDOW) - mean_x**2)
    var_y = unbiased * (uniform_filter(y * y, WINDOW) - mean_y**2)
    both = unbiased * (uniform_filter(x * y, WINDOW) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    map_ = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    edge = WINDOW // 2
    return float(map_[edge:-edge, edge:-edge].mean())


def _stage(stage: str, values: Numbers) -> RandomisedStage:
    correlations, similarities = values[:, 0], values[:, 1]
    return RandomisedStage(stage, _mean(correlations), _mean(np.abs(correlations)), _mean(similarities))


def _mean(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _randomise(resnet: object, stage: str) -> None:
    """One stage as torchvision's ResNet is before a training: He's normal distribution, batch normalisation idle."""
    from torch import nn

    named = {"head": ["fc"], "conv1": ["conv1", "bn1"]}.get(stage, [stage])
    for name in named:
        for module in getattr(resnet, name).modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()
