"""The summing up: a study that is quiet becomes a result, its frozen bytes and its deliveries, in one transaction."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog
from sqlalchemy import Connection

from firstread.agent import clock
from firstread.agent.config import Settings
from firstread.agent.crashpoints import reached
from firstread.agent.identify import patient_of
from firstread.agent.models_at_hand import bundle_folder
from firstread.agent.objects import ResultObjects
from firstread.agent.policy import limits_of, policy_for
from firstread.agent.store import events, results, studies, trials, watch
from firstread.agent.store import images as images_store
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.store.lookout import Lookout
from firstread.agent.store.studies import ImageRecord, OpenStudy
from firstread.agent.triage import FindingPolicy, ImageFact, assess, looks_the_same
from firstread.models.bundle import Bundle, BundleError, load_bundle
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Assessment, ImageOutcome, ModelIdentity, Reason

log = structlog.get_logger()

ACTOR = "studies"
AT_ONCE = 16
LOOK_S = 1.0
"""So often studies are looked for even if nobody seems to have written."""
RETRY_S = 30.0
RETRY_DISK_S = 3.0
"""After what disk or database did: it is often over in a moment."""


class SummingUp:
    """Ends studies. ``objects`` builds what goes out."""

    def __init__(self, settings: Settings, store: Store, objects: ResultObjects) -> None:
        self._settings = settings
        self._store = store
        self._objects = objects
        self._bundles: dict[str, Bundle] = {}
        self._failed: dict[int, float] = {}
        self._one_at_a_time = threading.Lock()
        self._lookout = Lookout(store, LOOK_S)

    def run_once(self) -> int:
        """Ends every study that is ready; answers how many. One that fails is tried again later, others go on."""
        if not self._one_at_a_time.acquire(blocking=False):
            return 0
        try:
            if not self._lookout.worthwhile():
                return 0
            now = clock.now()
            try:
                with self._store.read() as connection:
                    if not studies.any_receiving(connection):
                        self._lookout.found_nothing()
                        return 0
                    ready = studies.ready_to_sum_up(
                        connection,
                        quiet_period_s=self._settings.study.quiet_period_s,
                        max_open_s=self._settings.study.max_open_s,
                        limit=AT_ONCE,
                        skip=[key for key, until in self._failed.items() if until > now.boot_s],
                        now=now,
                    )
            except StoreBusy:
                return 0
            return sum(self._end(study) for study in ready)
        finally:
            self._one_at_a_time.release()

    def _end(self, study: OpenStudy) -> bool:
        try:
            ended = self.sum_up(study)
        except StoreBusy as error:
            log.warning("database busy", error=str(error))
            return False
        except Exception as error:
            log.exception("a study could not be summed up", study=study.identity.study_instance_uid)
            of_the_moment = isinstance(error, StoreError | OSError)
            self._failed[study.id] = clock.boot_seconds() + (RETRY_DISK_S if of_the_moment else RETRY_S)
            # Where the database itself is the trouble no alarm can be kept, and other studies must not wait for it.
            with contextlib.suppress(StoreError), self._store.write() as connection:
                watch.raise_alarm(
                    connection,
                    f"summing-up/{study.id}",
                    severity="critical",
                    text=f"study {study.identity.study_instance_uid} has no result: {type(error).__name__}: {error}",
                    remedy="it is tried again by itself; look at the log, then `firstread replay` when it is mended",
                    actor=ACTOR,
                    now=clock.now(),
                )
            return False
        self._failed.pop(study.id, None)
        return ended

    def sum_up(self, study: OpenStudy) -> bool:
        """receiving -> analysed | not_analysed, with all that goes out. False when the study changed meanwhile."""
        now = clock.now()
        if self._analyse_stale(study, now):
            return False
        assessment = self.judge(study, now)
        if study.trial_run_id is not None:
            return self._keep_trial(study, assessment)
        last = study.earlier[-1] if study.earlier else None
        repeated = last is not None and looks_the_same(last, assessment) and study.last_identity == study.identity
        artifacts = [] if repeated else self._objects.build(study, assessment, now)
        reached("result-built")
        with self._store.write() as connection:
            done = results.commit(
                connection,
                study,
                assessment,
                artifacts,
                sent=not repeated,
                on_hold=[one.name for one in self._settings.all_destinations if one.hold],
                actor=ACTOR,
                now=clock.now(),
            )
            if done and repeated:
                events.record(
                    connection, now, "nothing new to send", ACTOR, study_id=study.id, revision=assessment.revision
                )
            if done:
                watch.clear_alarm(connection, f"summing-up/{study.id}", actor=ACTOR, now=now)
                _mark_conflict(connection, study, assessment, now)
            reached("result-recorded")
        reached("result-committed")
        if not done:
            self._objects.discard(artifacts)
            return False
        log.info(
            "summed up",
            study=study.identity.study_instance_uid,
            accession=study.identity.accession_number,
            revision=assessment.revision,
            priority=assessment.priority.name,
            reason=assessment.reason.code.value if assessment.reason else "",
            sent=not repeated,
        )
        return True

    def _keep_trial(self, study: OpenStudy, assessment: Assessment) -> bool:
        """What a trial came to is kept for its run: no object, message, delivery or priority is made of it."""
        with self._store.write() as connection:
            now = clock.now()
            done = trials.commit(connection, study, assessment, ACTOR, now)
            if done:
                watch.clear_alarm(connection, f"summing-up/{study.id}", actor=ACTOR, now=now)
        if done:
            log.info("summed up as a trial", study=study.identity.study_instance_uid, run=study.trial_run_id)
        return done

    def judge(self, study: OpenStudy, now: clock.Moment) -> Assessment:
        """The assessment that this study has now, by the policy in force; writes nothing."""
        images = [_fact(image) for image in study.images]
        policy: Mapping[str, FindingPolicy] = {}
        limits: tuple[str, ...] = ()
        if any(image.prediction is not None for image in images):
            try:
                bundle = self._bundle(study.bundle)
                policy = policy_for(self._settings, bundle, study.identity, study.calling_ae_title)
                limits = limits_of(bundle)
            except BundleError as error:
                # Without operating points nobody may speak of findings; a study ends with a reason all the same.
                log.error("no operating points", study=study.identity.study_instance_uid, error=str(error))
                images = [_without_prediction(image, f"the model's operating points: {error}") for image in images]
        unfinished = any(image.state in studies.UNFINISHED for image in study.images)
        return assess(
            study_instance_uid=study.identity.study_instance_uid,
            revision=study.revision,
            created_at=now.at,
            images=images,
            policy=policy,
            ordered=study.ordered_priority,
            earlier=study.earlier,
            unfinished_s=self._settings.study.max_open_s if unfinished else None,
            note=study.cause if study.cause.startswith("replayed") else "",
            limits=limits,
        )

    def _analyse_stale(self, study: OpenStudy, now: clock.Moment) -> bool:
        """Images that another model read than the newest one are read again: one result speaks with one voice."""
        read = [image for image in study.images if image.prediction is not None]
        stale = [
            image.id for image in read if image.prediction and image.path and image.prediction.model != _voice(read)
        ]
        if not stale:
            return False
        with self._store.write() as connection:
            return bool(images_store.analyse_again(connection, study.id, stale, actor=ACTOR, now=now))

    def _bundle(self, name: str | None) -> Bundle:
        wanted = name or self._settings.analysis.bundle
        if wanted not in self._bundles:
            self._bundles[wanted] = load_bundle(bundle_folder(wanted))
        return self._bundles[wanted]


def _mark_conflict(connection: Connection, study: OpenStudy, assessment: Assessment, now: clock.Moment) -> None:
    """Two patients under one study are an alarm until the study was corrected."""
    key = f"conflict/{study.id}"
    if assessment.reason is None or assessment.reason.code is not ReasonCode.CONFLICTING_PATIENTS:
        watch.clear_alarm(connection, key, actor=ACTOR, now=now)
        return
    watch.raise_alarm(
        connection,
        key,
        severity="critical",
        text=f"study {study.identity.study_instance_uid} holds films of several patients and was not analysed",
        remedy="correct the study in the archive and send it again",
        actor=ACTOR,
        now=now,
    )


def _fact(image: ImageRecord) -> ImageFact:
    return ImageFact(
        outcome=ImageOutcome(image.sop_instance_uid, image.sop_class_uid, image.series_instance_uid, image.reason),
        patient=patient_of(image.patient_key),
        prediction=image.prediction,
    )


def _voice(read: Sequence[ImageRecord]) -> ModelIdentity | None:
    """The model that read the newest image."""
    newest = read[-1].prediction
    return newest.model if newest is not None else None


def _without_prediction(image: ImageFact, why: str) -> ImageFact:
    if image.prediction is None:
        return image
    reason = Reason(ReasonCode.PROCESSING_FAILED, why)
    return replace(image, outcome=replace(image.outcome, reason=reason), prediction=None)
