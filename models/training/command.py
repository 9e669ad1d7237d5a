"""One command's worth of training: from a recipe and a folder of films to a bundle, and on again after a stop."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError, FilmSet
from firstread.models.training.course import run_course
from firstread.models.training.entries import learnable
from firstread.models.training.films import nih_test_films, real_films
from firstread.models.training.lock import alone
from firstread.models.training.optim import precision_of
from firstread.models.training.plan import Plan, planned
from firstread.models.training.progress import Say, to_stderr
from firstread.models.training.ranks import Ranks, join
from firstread.models.training.recipe import Recipe, load_recipe
from firstread.models.training.start import first_weights
from firstread.models.training.steps import Setup
from firstread.models.training.to_bundle import bundle_of

BUNDLE, CACHE = "bundle", "cache"


@dataclass(frozen=True)
class Order:
    """What is asked of a training. ``labels`` and ``images`` may be missing for a recipe on phantoms alone.

    ``recipe``: a name or a .toml file; ``changes``: ``key=value``. ``split``: ``hash`` or ``official`` (NIH's own test
    list judges). ``folds``, ``hold_out``: see ``plan.planned``. ``weights``: first weights instead of the recipe's.
    ``threads``: processor threads of the network; ``workers``: processes that make batches, chosen by the machine when
    None. ``out``: folder to work in; the bundle lies in ``out/bundle`` in the end.
    """

    recipe: str
    out: Path
    labels: Path | None = None
    images: Path | None = None
    boxes: Path | None = None
    changes: Sequence[str] = ()
    split: str = "hash"
    folds: int = 5
    hold_out: bool = False
    weights: Path | None = None
    threads: int | None = None
    workers: int | None = None
    device: str = "auto"
    name: str | None = None
    version: str = "1.0.0"
    notes: Sequence[str] = ()
    profile: bool = False


def train_to_bundle(order: Order, say: Say = to_stderr) -> Bundle | None:
    """Train as ordered and write the bundle; a second call with the same order goes on where the first was stopped.

    Returns None in every process of several but the first.

    Raises:
        DataError: recipe, films, weights or disk do not allow it; says what to do.
        BundleError: the bundle did not pass the product's own verification.
    """
    recipe = load_recipe(order.recipe, order.changes)
    ranks = join(order.device)
    with_room(order.out)
    lock = alone(order.out / ".lock", f"{order.out} is in use by another training", "give another --out")
    try:
        with lock if ranks.leads else nullcontext():
            return _trained(order, recipe, ranks, say)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{order.out}: the disk is full: make room and run the same command again") from error
        raise


def _trained(order: Order, recipe: Recipe, ranks: Ranks, say: Say) -> Bundle | None:
    if (order.out / BUNDLE).exists():
        raise DataError(
            f"{order.out / BUNDLE} is there already: the training has ended; remove that folder to make the bundle "
            "anew from its weights, or give another --out"
        )
    setup = prepared(ranks, order.threads, order.workers, say, order.profile)
    real = read_films(order, recipe, ranks, setup.say)
    plan = plan_of(order, recipe, real)
    first = first_of(recipe, order.weights, ranks)
    outcome = run_course(recipe, real, plan, order.out, first, setup)
    ranks.leave()  # not after an error: the others may be waiting in vain, and torchrun ends them
    if not ranks.leads:
        return None
    for one in outcome.added:
        say(str(one))
    return bundle_of(
        recipe,
        outcome,
        order.out / BUNDLE,
        name=order.name or recipe.name,
        version=order.version,
        notes=order.notes,
        trained_on=_machine(recipe, ranks),
    )


def prepared(ranks: Ranks, threads: int | None, workers: int | None, say: Say, profile: bool) -> Setup:
    """Threads and worker processes for this machine: on a GPU every core makes batches, on the processor a thread does
    it beside the network."""
    cores = max(1, len(os.sched_getaffinity(0)) // ranks.world)
    torch.set_num_threads(threads or cores)
    if workers is None:
        workers = min(max(cores - 1, 1), 16) if ranks.device.type == "cuda" else 0
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    return Setup(ranks=ranks, workers=workers, say=say if ranks.leads else _silent, profile=profile)


def read_films(order: Order, recipe: Recipe, ranks: Ranks, say: Say) -> FilmSet | None:
    """The real films; one process reads them first and leaves them in the cache for the others."""
    if order.labels is None or order.images is None:
        if any(stage.films == "all" for stage in recipe.stages):
            raise DataError(f"recipe {recipe.name} learns from real films: give --labels and --images")
        return None
    for turn in (True, False):
        if ranks.leads == turn:
            films = real_films(
                order.labels,
                order.images,
                recipe.store_side,
                boxes=order.boxes,
                cache=order.out / CACHE,
                workers=order.threads,
                say=say,
            )
        ranks.wait()
    learnable(recipe, films.films)
    return films


def plan_of(order: Order, recipe: Recipe, real: FilmSet | None) -> Plan:
    """Who learns and who judges."""
    if real is None:
        return Plan((), "Phantoms alone: no real film was learned from or judged.")
    if order.split not in ("hash", "official"):
        raise DataError(f"split {order.split!r} is unknown: use hash or official")
    test = None
    if order.split == "official":
        assert order.labels is not None
        assert order.images is not None
        test = nih_test_films(real.films, order.labels, order.images)
    return planned(real.films, recipe.validation, folds=order.folds, hold_out=order.hold_out, test=test)


def first_of(recipe: Recipe, given: Path | None, ranks: Ranks) -> dict[str, torch.Tensor] | None:
    """The first weights; one process fetches them for all."""
    found = None
    for turn in (True, False):
        if ranks.leads == turn:
            found = first_weights(recipe, given)
        ranks.wait()
    return found


def with_room(out: Path) -> None:
    """The folder to work in.

    Raises:
        DataError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".room-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}): give another --out") from error


def _machine(recipe: Recipe, ranks: Ranks) -> str:
    """Where a training ran, for those who want to repeat it."""
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "processor"
    precision = str(precision_of(recipe, ranks.device)).removeprefix("torch.")
    return f"{device}, {precision}, {ranks.world} process{'es' if ranks.world > 1 else ''}"


def _silent(_: str) -> None:
    pass
