"""Replaying studies: analysed once more (a new revision that says so), or the frozen bytes sent once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Row

from firstread.agent import clock
from firstread.agent.config import Destination, Hl7Destination, Settings
from firstread.agent.store import deliveries, images, results, studies
from firstread.agent.store.codec import assessment_from_json
from firstread.agent.store.engine import Store
from firstread.agent.store.studies import StudyFilter
from firstread.agent.store.tables import StudyState
from firstread.models.prediction import Assessment

ACTOR = "replay"
PURGED = "its films were deleted when their days were over: `firstread fetch` brings them back where [archive] is set"


@dataclass(frozen=True)
class Replayed:
    """What a replay did (or would do) with one study, in words."""

    study_instance_uid: str
    accession_number: str
    done: bool
    words: tuple[str, ...]


def deliver_again(
    settings: Settings, store: Store, rows: Sequence[Row[Any]], to: str | None, *, dry_run: bool
) -> Iterator[Replayed]:
    """Sends the frozen bytes of each study's newest result again, under the same identity."""
    wanted = [one for one in settings.all_destinations if to is None or one.name.lower() == to.lower()]
    for row in rows:
        with store.write() as connection:
            words = list(_deliver_one(settings, store, connection, row, wanted, dry_run))
        done = bool(words)
        yield Replayed(row.study_instance_uid, row.accession_number, done, tuple(words) or ("no result was sent yet",))


def _deliver_one(
    settings: Settings,
    store: Store,
    connection: Connection,
    row: Row[Any],
    wanted: Sequence[Destination],
    dry_run: bool,
) -> Iterator[str]:
    now = clock.now()
    sent = results.newest_sent(connection, row.id)
    if sent is None:
        return
    names = {one.name for one in wanted}
    past = [
        one
        for one in deliveries.listed(connection, study_instance_uid=row.study_instance_uid, limit=1000)
        if one.result_id == sent.id and one.destination in names
    ]
    for one in reversed(past):
        if dry_run:
            yield f"would send {one.kind} {one.identity} of revision {one.revision} to {one.destination} again"
        elif deliveries.send_again(connection, one.id, ACTOR, now):
            yield f"sends {one.kind} {one.identity} of revision {one.revision} to {one.destination} again"
        else:
            yield f"{one.kind} for {one.destination} is being sent already"
    known = {(one.destination, one.kind) for one in past}
    frozen = {one.kind: one.id for one in results.artifacts_of(connection, sent.id) if one.kind != "oru"}
    for destination in wanted:
        for kind in destination.sends:
            if (destination.name, kind) in known:
                continue
            key = frozen.get(kind)
            if key is None and isinstance(destination, Hl7Destination):
                key = None if dry_run else _new_message(settings, store, connection, row, sent, destination)
                if dry_run:
                    yield f"would send {kind} of revision {sent.revision} to {destination.name} for the first time"
            if key is None:
                continue
            if not dry_run:
                results.add_delivery(connection, sent, key, kind, destination.name, ACTOR, now)
            yield f"{'would send' if dry_run else 'sends'} {kind} of revision {sent.revision} to {destination.name}"


def _new_message(
    settings: Settings, store: Store, connection: Connection, row: Row[Any], sent: Row[Any], destination: Hl7Destination
) -> int:
    from firstread.agent.objects import ResultObjects
    from firstread.agent.store.site import site_uid

    study = studies.load(connection, row)
    objects = ResultObjects(settings, store, site_uid(store))
    made = objects.message(study, assessment_from_json(sent.assessment), destination, {}, clock.now())
    return results.add_artifact(connection, sent.id, made)


def analyse_again(
    store: Store, rows: Sequence[Row[Any]], *, bundle: str | None, why: str, dry_run: bool = False
) -> Iterator[Replayed]:
    """Reopens each ended study: its images are analysed once more, and a new revision says that it was replayed."""
    for row in rows:
        words, done = _reopen_one(store, row, bundle, why, dry_run)
        yield Replayed(row.study_instance_uid, row.accession_number, done, (words,))


def _reopen_one(store: Store, row: Row[Any], bundle: str | None, why: str, dry_run: bool) -> tuple[str, bool]:
    if row.state == StudyState.RECEIVING:
        return "is being received or analysed: nothing to replay yet", False
    with store.read() as connection:
        of_study = studies.images_of(connection, row.id)
    if any(not image.path for image in of_study):
        return PURGED, False
    if dry_run:
        return f"would be analysed again as revision {row.revision + 1}", True
    # In the report stands the bundle's name: where it lies on this machine is nobody's business.
    cause = f"replayed with model {Path(bundle).name}" if bundle else "replayed"
    cause = f"{cause}: {why}" if why else cause
    now = clock.now()
    with store.write() as connection:
        if not studies.reopen(connection, row.id, cause, ACTOR, now, bundle=bundle):
            return "is being received or analysed: nothing to replay yet", False
        count = images.analyse_again(connection, row.id, actor=ACTOR, now=now)
    return f"revision {row.revision + 1}: {count} images are analysed again", True


def preview(settings: Settings, store: Store, rows: Sequence[Row[Any]], bundle: str | None) -> Iterator[Replayed]:
    """What analysing again would change, found by doing it here and writing nothing."""
    from firstread.agent.models_at_hand import ModelsAtHand
    from firstread.agent.objects import ResultObjects
    from firstread.agent.rehearse import rehearse
    from firstread.agent.store.site import site_uid
    from firstread.agent.studies import SummingUp

    models = ModelsAtHand(
        bundle or settings.analysis.bundle,
        settings.analysis.device,
        cache=settings.spool / "engines",
        threads=settings.analysis.threads or None,
        raise_alarm=lambda *_: None,
        clear_alarm=lambda _: None,
    )
    summing_up = SummingUp(settings, store, ResultObjects(settings, store, site_uid(store)))
    for row in rows:
        with store.read() as connection:
            study = studies.load(connection, row)
        if any(not image.path for image in study.images):
            yield Replayed(row.study_instance_uid, row.accession_number, False, (PURGED,))
            continue
        again = rehearse(settings, study, models.named(None))
        new = summing_up.judge(replace(again, revision=study.revision + 1, bundle=bundle), clock.now())
        old = study.earlier[-1] if study.earlier else None
        yield Replayed(row.study_instance_uid, row.accession_number, True, tuple(differences(old, new)))


def differences(old: Assessment | None, new: Assessment) -> list[str]:
    """What a reader would see change, a line each; one line when nothing would."""
    if old is None:
        return [f"no result yet; it would be {new.priority.name}: {new.priority_reason or _outcome(new)}"]
    lines = []
    if old.priority != new.priority:
        lines.append(f"priority {old.priority.name} -> {new.priority.name} ({new.priority_reason})")
    if _outcome(old) != _outcome(new):
        lines.append(f"{_outcome(old)} -> {_outcome(new)}")
    if old.model != new.model and old.model and new.model:
        lines.append(f"model {old.model.name} {old.model.version} -> {new.model.name} {new.model.version}")
    before = {one.label: one for one in old.findings}
    for one in new.findings:
        was = before.get(one.label)
        if was is None or was.probability is None or one.probability is None:
            continue
        if was.present != one.present or abs(was.probability - one.probability) >= 0.005:
            crossing = (
                "" if was.present == one.present else f" ({'now' if one.present else 'no longer'} above threshold)"
            )
            lines.append(f"{one.label} {was.probability:.2f} -> {one.probability:.2f}{crossing}")
    return lines or ["nothing a reader would see"]


def _outcome(assessment: Assessment) -> str:
    return "analysed" if assessment.reason is None else f"not analysed: {assessment.reason.text}"


def select(store: Store, wanted: StudyFilter, limit: int) -> list[Row[Any]]:
    """The studies that a replay means, oldest first, so that they go out in their own order."""
    with store.read() as connection:
        return list(reversed(studies.selected(connection, wanted, limit)))
