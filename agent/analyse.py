"""The analyser: claims waiting images, has them read, batches them through the model, writes back what it said."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import structlog

from firstread.agent import clock, evidence
from firstread.agent.config import Settings
from firstread.agent.crashpoints import reached
from firstread.agent.decoders import Decoders, Ended
from firstread.agent.film import FilmOrder, ReadFilm, read_film
from firstread.agent.identify import parse_date
from firstread.agent.models_at_hand import LoadedModel, ModelsAtHand
from firstread.agent.spool import PREVIEWS, new_place
from firstread.agent.store import images
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.store.images import ImageClaim
from firstread.agent.store.lookout import Lookout
from firstread.models.engine import DeviceLost, OutOfMemory
from firstread.models.findings import NO_FINDING, ReasonCode
from firstread.models.prediction import Prediction, Reason, StudyIdentity
from firstread.models.preprocess import Placement
from firstread.models.saliency import localise

log = structlog.get_logger()

POLL_S = 0.05
LOOK_S = 1.0
"""So often waiting images are looked for even if nobody seems to have written."""


@dataclass
class _Film:
    claim: ImageClaim
    model: LoadedModel
    preview_path: str
    read: ReadFilm | None = None
    ready_at: float = 0.0


@dataclass
class Figures:
    """What the analyser has done since it started, for its heartbeat."""

    films: int = 0
    batches: int = 0
    last_batch: int = 0
    engine: str = ""
    in_flight: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)


class Analyser:
    """Runs until told to stop. One instance a process; several processes share the work by leases."""

    def __init__(self, settings: Settings, store: Store, models: ModelsAtHand, owner: str) -> None:
        self._settings = settings
        self._store = store
        self._models = models
        self._owner = owner
        self._batch_size = settings.analysis.batch_size
        self._held: dict[int, ImageClaim] = {}
        self._films: dict[int, _Film] = {}
        self._ready: deque[_Film] = deque()
        self._lease_s = settings.analysis.film_timeout_s * 2 + 120
        self._lookout = Lookout(store, LOOK_S)
        self.figures = Figures()

    def run(self, stop: threading.Event, beat: Callable[[], None] = lambda: None) -> None:
        """Claims and analyses until ``stop``; what is claimed and not begun is given back."""
        decoders = self._decoders()
        try:
            while not stop.is_set():
                beat()
                if not self._models.fit_to_report():
                    stop.wait(1.0)
                    continue
                try:
                    self.step(decoders)
                except StoreError as error:
                    log.error("the database cannot be written; the films under way wait for it", error=str(error))
                    decoders.close()
                    self._begin_anew(stop)
                    decoders = self._decoders()
        finally:
            with contextlib.suppress(StoreError):
                self._give_back()
            decoders.close()

    def _decoders(self) -> Decoders[FilmOrder, ReadFilm]:
        settings = self._settings.analysis
        return Decoders(read_film, count=settings.decode_workers, timeout_s=settings.film_timeout_s)

    def _begin_anew(self, stop: threading.Event) -> None:
        """Gives every claim back as soon as the database takes it: no film is at fault."""
        self._films.clear()
        self._ready.clear()
        while not stop.wait(1.0):
            try:
                self._give_back()
                return
            except StoreError:
                continue

    def step(self, decoders: Decoders[FilmOrder, ReadFilm]) -> None:
        """One turn: claim what there is room for, collect what was read, run a batch when it is time."""
        # A film that has failed before goes through alone: what it breaks, it breaks for itself.
        alone = any(film.claim.attempts > 1 for film in self._films.values())
        room = 0 if alone else 2 * self._batch_size - len(self._films)
        claimed = self._claim(room, decoders) if room > 0 else 0
        ended = decoders.collect(0.0 if claimed else self._patience_s())
        while ended is not None:
            self._was_read(ended)
            ended = decoders.collect(0)
        if self._ready and self._is_time(decoders):
            self._run_batch()
        self.figures.in_flight = len(self._films)

    def _patience_s(self) -> float:
        """How long to wait for the next film that was read: until the batch must not wait any more."""
        if not self._ready:
            return POLL_S
        left_s = self._ready[0].ready_at + self._settings.analysis.batch_wait_ms / 1000 - time.monotonic()
        return min(POLL_S, max(0.0, left_s))

    def _is_time(self, decoders: Decoders[FilmOrder, ReadFilm]) -> bool:
        if len(self._ready) >= self._batch_size or decoders.in_flight == 0:
            return True
        return time.monotonic() - self._ready[0].ready_at >= self._settings.analysis.batch_wait_ms / 1000

    def _claim(self, room: int, decoders: Decoders[FilmOrder, ReadFilm]) -> int:
        if not self._lookout.worthwhile():
            return 0
        try:
            with self._store.read() as connection:
                waiting = images.any_waiting(connection)
            if not waiting:
                self._lookout.found_nothing()
                return 0
            with self._store.write() as connection:
                claims = images.claim(
                    connection,
                    owner=self._owner,
                    lease_s=self._lease_s,
                    limit=room,
                    busy=bool(self._films),
                    now=clock.now(),
                )
        except StoreBusy as error:
            log.warning("database busy", error=str(error))
            return 0
        self._held |= {claim.id: claim for claim in claims}
        if claims:
            reached("image-claimed")
        for claim in claims:
            self._begin(claim, decoders)
        return len(claims)

    def _begin(self, claim: ImageClaim, decoders: Decoders[FilmOrder, ReadFilm]) -> None:
        limit = None if claim.trial else self._settings.study.max_age_days
        reason = prior_study(claim.identity, claim.received_at, limit)
        if reason is not None:
            with self._store.write() as connection:
                images.end_not_analysed(
                    connection, claim, reason, preview_path=None, actor=self._owner, now=clock.now()
                )
            del self._held[claim.id]
            return
        try:
            model = self._models.named(claim.bundle)
        except StoreError:
            raise
        except Exception as error:
            self._fail(claim, f"the model {claim.bundle or 'in force'} cannot be used: {error}")
            return
        film = _Film(claim, model, str(new_place(PREVIEWS, ".pgm")))
        self._films[claim.id] = film
        decoders.submit(
            claim.id,
            FilmOrder(
                path=str(self._settings.spool / claim.path),
                preview_target=str(self._settings.spool / film.preview_path),
                preprocessing=model.bundle.preprocessing,
                minimum_age_years=self._settings.study.minimum_age_years,
                spellings=spellings_file(self._settings),
            ),
        )

    def _was_read(self, ended: Ended[ReadFilm]) -> None:
        film = self._films[ended.key]
        read = ended.answer
        if read is None:
            del self._films[ended.key]
            self._fail(film.claim, ended.failure)
        elif read.reason is not None:
            del self._films[ended.key]
            with self._store.write() as connection:
                images.end_not_analysed(
                    connection,
                    film.claim,
                    read.reason,
                    preview_path=film.preview_path if read.preview else None,
                    notes=read.notes,
                    gate=read.gate,
                    actor=self._owner,
                    now=clock.now(),
                )
            del self._held[film.claim.id]
            log.info("image not analysed", sop_instance=film.claim.sop_instance_uid, reason=read.reason.code.value)
        else:
            film.read, film.ready_at = read, time.monotonic()
            self._ready.append(film)

    def _run_batch(self) -> None:
        model = self._ready[0].model
        batch = [film for film in self._ready if film.model is model][: self._batch_size]
        for film in batch:
            self._ready.remove(film)
        squares = np.stack(
            [film.read.square for film in batch if film.read is not None and film.read.square is not None]
        )
        try:
            known = [film.read.known if film.read is not None else None for film in batch]
            output = model.engine.run(squares, known)
        except (DeviceLost, OutOfMemory) as error:
            self._device_failed(batch, error)
            return
        except Exception as error:
            log.exception("the model failed on a batch", films=len(batch))
            for film in batch:
                del self._films[film.claim.id]
                self._fail(film.claim, f"the model failed: {type(error).__name__}: {error}")
            self._models.failed(model, error)
            return
        reached("image-predicted")
        now = clock.now()
        with self._store.write() as connection:
            for index, film in enumerate(batch):
                del self._films[film.claim.id]
                maps = None if output.saliency is None else output.saliency[index]
                images.end_analysed(
                    connection,
                    film.claim,
                    _prediction(film, output.probabilities[index], maps),
                    preview_path=film.preview_path,
                    notes=film.read.notes if film.read is not None else (),
                    gate=film.read.gate if film.read is not None else None,
                    saliency=None if maps is None else evidence.freeze(model.bundle.labels, maps, _placement(film)),
                    actor=self._owner,
                    now=now,
                )
        self._forget(batch)
        reached("image-ended")
        figures = self.figures
        figures.films += len(batch)
        figures.batches += 1
        figures.last_batch = len(batch)
        figures.engine = model.engine.name
        figures.batch_sizes[len(batch)] = figures.batch_sizes.get(len(batch), 0) + 1
        log.info("batch analysed", films=len(batch), engine=model.engine.name)

    def _device_failed(self, batch: list[_Film], error: Exception) -> None:
        log.error("the device failed", error=str(error))
        with self._store.write() as connection:
            for film in batch:
                del self._films[film.claim.id]
                images.give_back(connection, film.claim, why=str(error), actor=self._owner, now=clock.now())
        self._forget(batch)
        self._models.forget()

    def _forget(self, batch: list[_Film]) -> None:
        for film in batch:
            del self._held[film.claim.id]

    def _fail(self, claim: ImageClaim, error: str) -> None:
        log.warning("attempt failed", sop_instance=claim.sop_instance_uid, attempt=claim.attempts, error=error)
        with self._store.write() as connection:
            images.fail_attempt(
                connection,
                claim,
                error,
                max_attempts=self._settings.analysis.max_attempts,
                actor=self._owner,
                now=clock.now(),
            )
        del self._held[claim.id]

    def _give_back(self) -> None:
        if not self._held:
            return
        with self._store.write() as connection:
            for claim in self._held.values():
                images.give_back(connection, claim, why="the analyser stops", actor=self._owner, now=clock.now())
        self._held.clear()


def spellings_file(settings: Settings) -> str | None:
    """The site's own eligibility table, as a path for the decoders."""
    return str(settings.study.eligibility_file) if settings.study.eligibility_file else None


def prior_study(identity: StudyIdentity, received_at: datetime, max_age_days: int | None) -> Reason | None:
    """The reason "prior study" when StudyDate lies beyond the site's limit; an unreadable date is no prior."""
    if max_age_days is None:
        return None
    day = parse_date(identity.study_date)
    if day is None:
        return None
    age = (received_at.date() - day).days
    if age <= max_age_days:
        return None
    return Reason(ReasonCode.PRIOR_STUDY, f"{age} days old, the limit of this site is {max_age_days}")


def _placement(film: _Film) -> Placement:
    if film.read is None or film.read.placement is None:
        raise ValueError("a film without its geometry cannot have been analysed")
    return film.read.placement


def _prediction(film: _Film, probabilities: np.ndarray, saliency: np.ndarray | None) -> Prediction:
    """``saliency``: None where the network has no maps; then nothing says where a finding lies."""
    bundle, placement = film.model.bundle, _placement(film)
    orientation = film.read.orientation if film.read is not None else None
    if orientation is None:
        raise ValueError("a film without its orientation cannot have been analysed")
    boxes = (
        {}
        if saliency is None
        else {
            label: orientation.to_film(localise(saliency[index], placement))
            for index, label in enumerate(bundle.labels)
            if label != NO_FINDING and saliency[index].any()
        }
    )
    return Prediction(
        sop_instance_uid=film.claim.sop_instance_uid,
        probabilities={label: float(value) for label, value in zip(bundle.labels, probabilities, strict=True)},
        boxes=boxes,
        model=bundle.identity,
        notes=film.read.put_right if film.read is not None else (),
    )
