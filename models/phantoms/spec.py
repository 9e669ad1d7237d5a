"""What a phantom is to show: view, patient, lesions and film, said in full before a pixel is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from firstread.models.findings import NO_FINDING
from firstread.models.prediction import Box

VIEWS: tuple[str, ...] = ("PA", "AP", "LATERAL", "HAND")

DRAWABLE: tuple[str, ...] = ("Cardiomegaly", "Consolidation", "Effusion", "Mass", "Nodule", "Pneumothorax")
"""The findings that a phantom can carry."""

DEVICES: dict[str, float] = {
    "leads": 1.0,
    "venous line": 0.6,
    "gastric tube": 0.4,
    "airway tube": 0.3,
    "pacemaker": 0.2,
}
"""Name to how often it lies on a film, against the commonest."""

Image = NDArray[np.float32]


class PhantomError(ValueError):
    """A phantom that cannot be drawn as asked; the message says what to change."""


@dataclass(frozen=True)
class Lesion:
    """One finding and where it lies.

    ``x``, ``y``: fractions of the thorax: x from the image's left inner chest wall (0, the patient's right) to its
    right (1); y from the lung apex (0) to the right dome of the diaphragm (1). Pneumothorax and effusion only take
    the side from x; cardiomegaly takes neither.
    ``size``: Mass, Nodule, Consolidation: diameter as a fraction of the thorax width (a nodule of 2 cm is 0.07).
    Pneumothorax: gap at the apex, Effusion: height of the fluid, both as fractions of the lung. Cardiomegaly: the
    cardiothoracic ratio.
    ``strength``: how much the film shows of it, 0 (nothing) to 1.
    """

    label: str
    x: float
    y: float
    size: float
    strength: float

    def __post_init__(self) -> None:
        if self.label not in DRAWABLE:
            raise PhantomError(f"a phantom cannot carry {self.label!r}: choose among {', '.join(DRAWABLE)}")


@dataclass(frozen=True)
class PhantomSpec:
    """Everything a phantom is drawn from: the same spec gives the same pixels.

    ``size``: rows, columns. ``noise``: quantum noise, 1 is a usual film. ``exposure``: shift of the tone curve, 0 is
    a usual film, +1 bright. ``contrast``: slope of the tone curve, 1 is usual. ``habitus``: 0 lean to 1 stout.
    ``inspiration``: 0 shallow to 1 deep. ``devices``: drawn lines, tubes, leads (see ``DEVICES``).
    ``collimation``: fraction of each side behind the collimator. ``laterality_mark``: letter at the patient's side,
    none when empty. ``rotation_deg``: patient against the film.
    ``person``: a second seed, for bones, heart and vessels, so that two films can show the same person; the film's own
    seed when None.
    """

    seed: int
    view: str = "PA"
    sex: str = "F"
    age: int = 50
    lesions: tuple[Lesion, ...] = ()
    size: tuple[int, int] = (512, 512)
    noise: float = 1.0
    exposure: float = 0.0
    contrast: float = 1.0
    habitus: float = 0.3
    inspiration: float = 0.6
    rotation_deg: float = 0.0
    collimation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    devices: tuple[str, ...] = ()
    laterality_mark: str = "L"
    person: int | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise PhantomError(f"unknown view {self.view!r}: choose among {', '.join(VIEWS)}")
        if min(self.size) < 32 or max(self.size) > 8192:
            raise PhantomError(f"a phantom is 32 to 8192 pixels a side, not {self.size}: change size")

        if self.lesions and self.view not in ("PA", "AP"):
            raise PhantomError(f"only PA and AP phantoms carry lesions, not {self.view}: change view or lesions")

    @property
    def body_seed(self) -> int:
        """The seed of everything that stays the same from one film of a person to the next."""
        return self.seed if self.person is None else self.person

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels the film is truly to carry, ``No Finding`` alone when there are none."""
        return tuple(sorted({lesion.label for lesion in self.lesions})) or (NO_FINDING,)


@dataclass(frozen=True)
class Phantom:
    """A drawn phantom.

    ``image``: float32 [rows, columns] in [0, 1], bone bright. ``truth``: label to the box that holds the lesion, in
    the image's own pixels (several lesions of a label: the box around all). ``labels``: as in NIH's table.
    """

    image: Image
    truth: Mapping[str, Box]
    labels: tuple[str, ...]
    spec: PhantomSpec


def random_lesion(rng: np.random.Generator, label: str) -> Lesion:
    """A lesion of ``label`` at a plausible place, from subtle to plain."""
    side = rng.choice([-1.0, 1.0])
    strength = float(rng.uniform(0.55, 1.0))
    if label == "Pneumothorax":
        return Lesion(label, 0.5 + 0.4 * side, 0.2, float(rng.uniform(0.14, 0.5)), strength)
    if label == "Effusion":
        return Lesion(label, 0.5 + 0.4 * side, 0.95, float(rng.uniform(0.2, 0.52)), strength)
    if label == "Cardiomegaly":
        return Lesion(label, 0.55, 0.75, float(rng.uniform(0.57, 0.72)), strength)
    x = 0.5 + side * float(rng.uniform(0.2, 0.37))
    if label == "Consolidation":
        return Lesion(label, x, float(rng.uniform(0.3, 0.85)), float(rng.uniform(0.18, 0.36)), strength)
    size = rng.uniform(0.12, 0.28) if label == "Mass" else rng.uniform(0.045, 0.095)
    return Lesion(label, x, float(rng.uniform(0.25, 0.8)), float(size), strength)


def random_spec(
    rng: np.random.Generator, labels: Sequence[str] = (), size: tuple[int, int] = (512, 512), view: str = ""
) -> PhantomSpec:
    """An adult's frontal film with ``labels`` (each once; ``No Finding`` is none), all else by chance.

    View, devices, exposure and habitus are drawn before the lesions are looked at, so that none of them tells the
    diseased from the others. Raises PhantomError for a label that cannot be drawn.
    """
    seed = int(rng.integers(0, 2**63 - 1))
    frontal = view or ("PA" if rng.random() < 0.6 else "AP")
    portable = frontal == "AP"
    rate = 0.55 if portable else 0.12
    devices = tuple(name for name, share in DEVICES.items() if rng.random() < rate * share)
    edges = [float(edge) for edge in rng.uniform(0.0, 0.05, 4) * (rng.random() < 0.35)]
    usual = PhantomSpec(
        seed=seed,
        view=frontal,
        size=size,
        devices=devices,
        collimation=(edges[0], edges[1], edges[2], edges[3]),
        sex="F" if rng.random() < 0.47 else "M",
        age=int(np.clip(rng.normal(52, 17), 19, 94)),
        noise=float(np.exp(rng.normal(0.0, 0.45))),
        exposure=float(np.clip(rng.normal(0.0, 0.45), -1.1, 1.1)),
        contrast=float(np.exp(rng.normal(0.0, 0.18))),
        habitus=float(rng.beta(2, 3)),
        inspiration=float(np.clip(rng.normal(0.4 if portable else 0.65, 0.2), 0.0, 1.0)),
        rotation_deg=float(rng.normal(0.0, 3.0 if portable else 1.6)),
        laterality_mark="" if rng.random() < 0.15 else ("L" if rng.random() < 0.8 else "R"),
    )
    return replace(usual, lesions=tuple(random_lesion(rng, label) for label in labels if label != NO_FINDING))
