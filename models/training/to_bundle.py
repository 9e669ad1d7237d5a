"""A course's outcome becomes a bundle: calibrated, with operating points, figures, a card and where it came from."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from firstread.models.bundle import Bundle, Calibration
from firstread.models.bundle_writer import BundleDraft, default_canaries, stored_weights, write_bundle
from firstread.models.calibration import Scored, calibrate, operating_points, probabilities
from firstread.models.card import Description, training_summary, write_card
from firstread.models.card.training import FEWEST as FEWEST_FOR_FIGURE
from firstread.models.card.training import FILE as SUMMARY
from firstread.models.data.film import FilmSet
from firstread.models.findings import LABELS
from firstread.models.network import load_state
from firstread.models.training.course import Outcome
from firstread.models.training.phantom_films import draw_phantoms
from firstread.models.training.recipe import Recipe
from firstread.models.training.scoring import logits_of
from firstread.models.training.start import State, network_of, without_rows

DRAWN = frozenset({"Cardiomegaly", "Consolidation", "Effusion", "Mass", "Nodule", "Pneumothorax"})
"""The findings that phantoms carry."""

FEWEST_FOR_EVIDENCE = 50
"""Held-out real films with a label, and without, below which it stays experimental."""

Numbers = npt.NDArray[np.float64]


def bundle_of(
    recipe: Recipe,
    outcome: Outcome,
    folder: Path,
    *,
    name: str,
    version: str,
    notes: Sequence[str] = (),
    trained_on: str = "",
) -> Bundle:
    """Calibrate, choose operating points, measure, write the card and the bundle into ``folder``.

    Labels that the films could not teach are no labels of the bundle. ``trained_on``: the machine, in words.

    Raises:
        BundleError: what was written does not pass the product's own verification.
    """
    labels = outcome.labels
    kept = [LABELS.index(label) for label in labels]
    shown = evidence(recipe, outcome)
    experimental = tuple(label for label in labels if label not in shown)
    scored, calibration, probability = _calibrated(recipe, outcome, kept, shown)
    every = operating_points(outcome.scored, _spread(probability, kept), LABELS)
    thresholds = {label: every[label] for label in labels}
    architecture = replace(recipe.architecture(len(LABELS)), outputs=len(labels))
    halving = _cost_of_halving(recipe, outcome, kept, calibration)
    untaught = [label for label in LABELS if label not in labels]
    said = [*notes, *([f"Not assessed, since no film taught it: {', '.join(untaught)}."] if untaught else [])]
    now, canaries = datetime.now(UTC), default_canaries()
    summary = training_summary(
        labels=labels,
        experimental=experimental,
        thresholds=thresholds,
        films=outcome.films,
        scored=scored,
        probability=probability,
        learned=outcome.learned,
        phantoms=recipe.phantoms,
        method=outcome.method,
        recipe=recipe.name,
        recipe_toml=recipe.text,
        seed=recipe.seed,
        halving=halving,
        software=_software(),
        notes=[*said, *(f"Metadata as inputs: {one}." for one in outcome.added)],
        now=now,
    )
    table = {
        **provenance(recipe, outcome, now),
        "trained_on": trained_on,
        "float16_worst_change": float(f"{halving:.2e}"),
    }
    about = Description(
        name=name,
        version=version,
        labels=labels,
        experimental=experimental,
        thresholds=thresholds,
        architecture=architecture,
        preprocessing=recipe.preprocessing,
        calibration=calibration,
        provenance=table,
        canaries=len(canaries),
    )
    draft = BundleDraft(
        name=name,
        version=version,
        labels=labels,
        experimental=experimental,
        thresholds=thresholds,
        architecture=architecture,
        preprocessing=recipe.preprocessing,
        calibration=calibration,
        weights=without_rows(outcome.weights, architecture, kept),
        canaries=canaries,
        card=write_card(about, training=summary),
        provenance=table,
        extra_files={SUMMARY: json.dumps(summary, indent=1, ensure_ascii=False).encode()},
    )
    return write_bundle(draft, folder)


def evidence(recipe: Recipe, outcome: Outcome) -> tuple[str, ...]:
    """The labels that judged real films can say something about: of the recipe's, if it names any, those with a figure;
    else those with enough films of either kind."""
    scored, found = outcome.scored, []
    fewest = FEWEST_FOR_EVIDENCE if recipe.evidence is None else FEWEST_FOR_FIGURE
    for label in outcome.labels if recipe.evidence is None else recipe.evidence:
        if label not in outcome.labels:
            continue
        column = LABELS.index(label)
        present = scored.target[~scored.phantom & scored.known[:, column], column]
        if min(int(present.sum()), int((~present).sum())) >= fewest:
            found.append(label)
    return tuple(found)


def provenance(recipe: Recipe, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """How the bundle came to be, for ``bundle.toml``."""
    told: dict[str, Any] = {
        "made": now.date().isoformat(),
        "recipe": recipe.name,
        "recipe_toml": recipe.text,
        "seed": recipe.seed,
        "real_films": len(outcome.learned),
        "real_patients": len({film.patient for film in outcome.learned}),
        "phantoms": recipe.phantoms,
        "judged_by": outcome.method,
        "software": _software(),
    }
    if outcome.added:
        told["metadata_adds"] = {one.label: _numbers(one) for one in outcome.added}
    return told


def _software() -> dict[str, str]:
    libraries = ("torch", "torchvision", "numpy", "pillow", "scipy")
    return {"python": platform.python_version(), **{library: metadata.version(library) for library in libraries}}


def _calibrated(
    recipe: Recipe, outcome: Outcome, kept: list[int], shown: Sequence[str]
) -> tuple[Scored, Calibration, Numbers]:
    """The judged films and what is said of them, for the bundle's labels alone."""
    whole = outcome.scored
    scored = Scored(whole.logits[:, kept], whole.target[:, kept], whole.known[:, kept], whole.phantom)
    if recipe.loss == "softmax":
        # Labels that share one sum cannot be moved one by one.
        none = Calibration("identity", (1.0,) * len(kept), (0.0,) * len(kept))
        return scored, none, _softmax(scored.logits)
    calibration = calibrate(scored, outcome.labels, DRAWN - set(shown))
    return scored, calibration, probabilities(scored.logits, calibration)


def _softmax(logits: Numbers) -> Numbers:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _spread(probability: Numbers, kept: list[int]) -> Numbers:
    """Probabilities at the places of all fifteen labels, 0 where there is none."""
    whole = np.zeros((len(probability), len(LABELS)))
    whole[:, kept] = probability
    return whole


def _cost_of_halving(recipe: Recipe, outcome: Outcome, kept: list[int], calibration: Calibration) -> float:
    """The largest change of a probability when the weights go from float32 to float16."""
    films: FilmSet = draw_phantoms(min(64, max(8, recipe.judged_phantoms)), recipe.seed + 1, recipe.store_side)
    network = network_of(recipe, len(LABELS))

    def answers(weights: State) -> Numbers:
        load_state(network, weights)
        logits = logits_of(network, films, recipe.preprocessing)[:, kept]
        return _softmax(logits) if recipe.loss == "softmax" else probabilities(logits, calibration)

    halved = {name: torch.from_numpy(array) for name, array in stored_weights(outcome.weights).items()}
    return float(np.abs(answers(outcome.weights) - answers(halved)).max())


def _numbers(added: Any) -> dict[str, Any]:
    return {key: asdict(value) for key, value in vars(added).items() if key != "label"}
