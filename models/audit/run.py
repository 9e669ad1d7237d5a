"""From a table of labels and a bundle to an audit, as figures and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

from firstread.models.audit.alterations import ALTERATIONS, TOLD
from firstread.models.audit.as_json import as_json
from firstread.models.audit.audit import MOST_FILMS, Audit, audit, check_labels, must_be_judgeable
from firstread.models.audit.judge import BundleJudge
from firstread.models.audit.measured import measure_films, shown
from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError
from firstread.models.engine import open_engine, processor_threads
from firstread.models.evaluation.run import Films, check_columns, read_films
from firstread.models.evaluation.score import score

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]
"""Opens a bar for a stage of the work, by its name."""


def audit_bundle(
    bundle: Bundle,
    wanted: Films,
    now: datetime,
    *,
    labels: Sequence[str] = (),
    by: Sequence[str] = (),
    most_films: int = MOST_FILMS,
    phantoms: int = 10,
    device: str = "auto",
    threads: int | None = None,
    stage: Stage | None = None,
) -> tuple[Audit, dict[str, Any]]:
    """Audit a bundle on labelled films: the audit, and the same as JSON (see ``as_json``).

    Films that cannot be read, and those that the service's gate would refuse, are counted and left out.

    Raises:
        DataError: the films cannot be used. EngineError: the bundle cannot be run here.
    """
    opened = stage or _quietly
    check_labels(labels, bundle.labels)
    films, _ = read_films(wanted)
    check_columns(films, by)
    must_be_judgeable(films, check_labels(labels, bundle.labels))
    with opened("scoring") as tell:
        scores = score(bundle, films, device=device, threads=threads, on_progress=tell)
    with opened("measuring how films were made") as tell:
        measured = measure_films(films, workers=processor_threads(threads), on_progress=tell)
    rows = [
        row
        for row in range(len(films))
        if scores.problems[row] is None and scores.refused[row] is None and measured[row] is not None
    ]
    if not rows:
        refused = next((f"refused: {each.text}" for each in scores.refused if each is not None), "")
        problem = next((each for each in scores.problems if each is not None), refused)
        raise DataError(f"none of the {len(films)} films can be audited: {problem}")
    engine = open_engine(bundle, device, threads=threads)
    with opened("altering and reading again") as tell:
        found = audit(
            [films[row] for row in rows],
            scores.probabilities[rows],
            [each for row in rows if (each := measured[row]) is not None],
            BundleJudge(engine),
            shown,
            labels=labels,
            experimental=bundle.experimental,
            matched_on=sorted({name for row in rows for name in scores.making[row]}),
            by=by,
            most_films=most_films,
            alterations=(*ALTERATIONS, *(TOLD[name] for name in bundle.architecture.metadata if name in TOLD)),
            phantoms=phantoms if bundle.has_maps else 0,
            threads=processor_threads(threads),
            on_progress=tell,
        )
    return found, as_json(found, bundle, scores, wanted.source, now)


def _quietly(_words: str) -> AbstractContextManager[None]:
    return nullcontext()
