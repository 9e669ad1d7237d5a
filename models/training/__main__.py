"""``python -m firstread.models.training train``: from NIH's films to a bundle, and on again after a stop."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from firstread.models.bundle import Bundle, BundleError
from firstread.models.data.film import FilmSet
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.network import load_state
from firstread.models.phantoms import draw as draw_phantom
from firstread.models.phantoms import random_spec
from firstread.models.training.calibrate import calibrate, operating_points, probabilities
from firstread.models.training.card import figures_table, measure, write_card
from firstread.models.training.course import Outcome, run_course
from firstread.models.training.dataset import TrainingDataError, draw_phantoms, read_nih
from firstread.models.training.evaluate import logits_of
from firstread.models.training.make_bundle import Ingredients, halve, write_bundle
from firstread.models.training.recipe import Recipe, load_recipe
from firstread.models.training.train import architecture_of, network_of

SHOWN_ON_REAL_FILMS = (NO_FINDING, "Pneumonia")
"""The labels that the reference films can say something about; every other one is experimental."""

ON_PHANTOMS = frozenset({"Cardiomegaly", "Consolidation", "Effusion", "Mass", "Nodule", "Pneumothorax"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 with a sentence on standard error."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        recipe = load_recipe(options.recipe)
        recipe = replace(recipe, seed=options.seed) if options.seed is not None else recipe
        real = read_nih(options.nih_labels, options.nih_images, recipe.store_side)
        outcome = run_course(recipe, real, options.out, options.folds, options.hold_out, _say)
        bundle = bundle_of(recipe, outcome, options.out, options.name, options.version, options.note)
    except (TrainingDataError, BundleError) as error:
        _say(str(error))
        return 1
    _say(f"bundle {bundle.name} {bundle.version} lies in {bundle.folder}")
    return 0


def bundle_of(
    recipe: Recipe, outcome: Outcome, out: Path, name: str, version: str, notes: Sequence[str] = ()
) -> Bundle:
    """Calibrate, choose operating points, measure, write the card and the bundle into ``out/bundle``."""
    calibration = calibrate(outcome.scored, LABELS, ON_PHANTOMS)
    probability = probabilities(outcome.scored.logits, calibration)
    thresholds = operating_points(outcome.scored, probability, LABELS)
    experimental = tuple(label for label in LABELS if label not in SHOWN_ON_REAL_FILMS)
    figures = measure(LABELS, experimental, thresholds, outcome.films, outcome.scored, probability)
    judged = draw_phantoms(min(64, recipe.judged_phantoms), recipe.seed + 1, recipe.store_side)
    halving = _cost_of_halving(recipe, outcome, judged, calibration_of=lambda x: probabilities(x, calibration))
    card = write_card(
        title=f"{name} {version}",
        figures=figures,
        learned=outcome.learned,
        films=outcome.films,
        scored=outcome.scored,
        calibration=calibration,
        labels=LABELS,
        method=outcome.method,
        recipe=recipe.text,
        halving=halving,
        notes=notes,
    )
    provenance = {
        "made": datetime.now(UTC).date().isoformat(),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "real_films": len(outcome.learned),
        "real_patients": len({film.patient for film in outcome.learned}),
        "phantoms": recipe.phantoms,
        "judged_by": outcome.method,
        "float16_worst_change": float(f"{halving:.2e}"),
        "software": {
            "python": platform.python_version(),
            **{library: metadata.version(library) for library in ("torch", "torchvision", "numpy", "pillow", "scipy")},
        },
        "figures": figures_table(figures),
    }
    return write_bundle(
        out / "bundle",
        Ingredients(
            name=name,
            version=version,
            labels=LABELS,
            experimental=experimental,
            thresholds=thresholds,
            architecture=architecture_of(recipe),
            preprocessing=recipe.preprocessing,
            calibration=calibration,
            weights=outcome.weights,
            canaries=_canaries(recipe.store_side),
            card=card,
            provenance=provenance,
        ),
    )


def _canaries(side: int) -> list[npt.NDArray[np.uint8]]:
    """Four phantoms: one without a lesion and three that differ from it and from one another."""
    films = []
    for number, labels in enumerate(((), ("Effusion",), ("Pneumothorax",), ("Cardiomegaly", "Mass"))):
        phantom = draw_phantom(random_spec(np.random.default_rng([20240607, number]), labels, (side, side)))
        films.append((phantom.image * 255 + 0.5).astype(np.uint8))
    return films


def _cost_of_halving(recipe: Recipe, outcome: Outcome, films: FilmSet, calibration_of: object) -> float:
    """The largest change of a probability when the weights go from float32 to float16."""
    network = network_of(recipe)
    answers = []
    for weights in (outcome.weights, halve(outcome.weights)):
        load_state(network, weights)
        answers.append(calibration_of(logits_of(network, films, recipe.preprocessing)))  # type: ignore[operator]
    return float(np.abs(answers[0] - answers[1]).max())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m firstread.models.training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train from a recipe, cross-validate by patient, make a bundle")
    train.add_argument("--recipe", default="scratch", help="a recipe that comes with the product, or a .toml file")
    train.add_argument("--nih-images", type=Path, required=True, help="folder with NIH's .png files")
    train.add_argument("--nih-labels", type=Path, required=True, help="NIH's Data_Entry table")
    train.add_argument("--out", type=Path, required=True, help="folder to work in; run again to go on after a stop")
    train.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default 5)")
    train.add_argument(
        "--hold-out", action="store_true", help="hold one fold out and train once: quicker, judged by less"
    )
    train.add_argument("--seed", type=int, help="another seed than the recipe's")
    train.add_argument("--threads", type=int, default=2, help="processor threads (default 2; 1 on a busy machine)")
    train.add_argument("--note", action="append", default=[], help="a sentence for the card's known failures")
    train.add_argument("--name", default="reference", help="name of the bundle")
    train.add_argument("--version", default="1.0.0", help="version of the bundle")
    return parser


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
