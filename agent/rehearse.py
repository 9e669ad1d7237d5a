"""Analysing a study here and now, in this process, without writing anything: for dry runs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from firstread.agent.analyse import prior_study, spellings_file
from firstread.agent.config import Settings
from firstread.agent.film import FilmOrder, read_film
from firstread.agent.models_at_hand import LoadedModel
from firstread.agent.store.studies import ImageRecord, OpenStudy
from firstread.agent.store.tables import ImageState
from firstread.models.prediction import Prediction


def rehearse(settings: Settings, study: OpenStudy, model: LoadedModel) -> OpenStudy:
    """The study as it would stand after its images were analysed by ``model``."""
    with tempfile.TemporaryDirectory() as folder:
        images = tuple(_rehearse(settings, study, image, model, Path(folder)) for image in study.images)
    return replace(study, images=images)


def _rehearse(
    settings: Settings, study: OpenStudy, image: ImageRecord, model: LoadedModel, folder: Path
) -> ImageRecord:
    limit = settings.study.max_age_days if study.trial_run_id is None else None
    prior = prior_study(study.identity, study.received_at, limit)
    if prior is not None:
        return replace(image, state=ImageState.NOT_ANALYSED, reason=prior, prediction=None)
    read = read_film(
        FilmOrder(
            path=str(settings.spool / image.path),
            preview_target=str(folder / "preview.pgm"),
            preprocessing=model.bundle.preprocessing,
            minimum_age_years=settings.study.minimum_age_years,
            spellings=spellings_file(settings),
        )
    )
    if read.square is None:
        return replace(image, state=ImageState.NOT_ANALYSED, reason=read.reason, prediction=None)
    output = model.engine.run(read.square[np.newaxis], [read.known])
    prediction = Prediction(
        sop_instance_uid=image.sop_instance_uid,
        probabilities={
            label: float(value) for label, value in zip(model.bundle.labels, output.probabilities[0], strict=True)
        },
        boxes={},
        model=model.bundle.identity,
        notes=read.put_right,
    )
    return replace(image, state=ImageState.ANALYSED, reason=None, prediction=prediction)
