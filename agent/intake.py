"""Intake: a received file gets its place in the spool, its rows in one transaction, and only then its Success."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Settings
from firstread.agent.crashpoints import reached
from firstread.agent.holdings import holding_of
from firstread.agent.identify import identify, patient_key, text
from firstread.agent.spool import fsync_folder, new_place
from firstread.agent.store import events, holdings, images, reading_items, studies, trials, watch
from firstread.agent.store import worklist as list_store
from firstread.agent.store.codec import identity_from_json
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.store.overdue import PURGED
from firstread.agent.store.studies import Trial
from firstread.integration.audit.message import StudyObject
from firstread.integration.dicom.identity import is_ours
from firstread.integration.dicom.part10 import OWN_HEADER, NotPart10, data_set_offset
from firstread.integration.dicom.received import AssociationEvent, AssociationOutcome, ReceivedInstance, Refusal
from firstread.integration.dicom.status import SUCCESS, CannotUnderstand, OutOfResources, StoreStatus
from firstread.models.eligibility import is_image_for_us
from firstread.models.prediction import Priority, StudyIdentity

log = structlog.get_logger()

ACTOR = "receive"
PERMANENT = 1
"""Result of an A-ASSOCIATE-RJ (PS3.8 9.3.4): nobody should try again as he is."""


class NotWanted(CannotUnderstand):
    """An object that a run over the archive must not bring: its study was really sent to us. No sender is told so."""


@dataclass(frozen=True)
class Intake:
    """Takes instances in. ``settings`` say where; ``site_uid`` recognises our own results coming back.

    ``trial``: what comes is brought by a run over the archive. It becomes a trial, never a part of a study that was
    really sent to us; what is sent without it makes a trial a study like any other.
    """

    settings: Settings
    store: Store
    site_uid: str
    trial: Trial | None = None

    def take(self, received: ReceivedInstance) -> StoreStatus:
        """Success once file and rows are durable. Raises OutOfResources when they cannot be: the sender tries again."""
        reached("film-synced")
        place = new_place("films", ".dcm")
        target = self.settings.spool / place
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            received.path.rename(target)
            reached("film-renamed")
            fsync_folder(target.parent)
            fsync_folder(target.parent.parent)
            reached("film-placed")
        except OSError as error:
            raise OutOfResources(f"spool: {error.strerror or error}") from error
        try:
            kept = self._record(received, place)
        except BaseException as error:
            self._give_up(received, place)
            if isinstance(error, StoreBusy):
                raise OutOfResources("database busy, send again") from error
            if isinstance(error, StoreError):
                raise OutOfResources(f"database: {error}") from error
            raise
        if not kept:
            target.unlink(missing_ok=True)
        return SUCCESS

    def note_refusal(self, refusal: Refusal) -> None:
        """Keeps a refusal for the trail, the metrics and the page."""
        with self.store.write() as connection:
            events.record(
                connection,
                clock.now(),
                "refused",
                ACTOR,
                status=f"{refusal.status:04X}",
                why=refusal.comment,
                calling_ae_title=refusal.calling_ae_title,
                address=refusal.peer_address,
                association=refusal.association_id,
                sop_instance_uid=refusal.sop_instance_uid,
                study_instance_uid=refusal.study_instance_uid,
            )

    def note_association(self, happened: AssociationEvent) -> None:
        """Keeps rejections and aborts for the trail; what went well is told by its films."""
        if happened.outcome not in (AssociationOutcome.REJECTED, AssociationOutcome.ABORTED):
            return
        with self.store.write() as connection:
            events.record(
                connection,
                clock.now(),
                f"association {happened.outcome.value}",
                ACTOR,
                why=happened.why,
                calling_ae_title=happened.calling_ae_title,
                called_ae_title=happened.called_ae_title,
                address=happened.peer_address,
                association=happened.association_id,
            )
            if happened.result == PERMANENT:
                Audit(self.settings).stranger(
                    connection, happened.calling_ae_title, happened.peer_address, happened.why
                )  # fmt: skip

    def _give_up(self, received: ReceivedInstance, place: Path) -> None:
        """Deletes the file of a film that was not recorded. A commit that failed may have reached the disk all the
        same, so that the file goes only when the database says that it does not know it."""
        try:
            with self.store.read() as connection:
                known = images.newest_version(connection, received.sop_instance_uid)
        except StoreError:
            return
        if known is None or known.path != str(place):
            (self.settings.spool / place).unlink(missing_ok=True)

    def _lies_there(self, known: Row[Any]) -> bool:
        """True when the file of a stored film is there in full (it may be lost, or deleted when its days were over)."""
        if known.path == PURGED:
            return False
        try:
            with (self.settings.spool / known.path).open("rb") as film:
                size = os.fstat(film.fileno()).st_size - data_set_offset(film.read(OWN_HEADER))
        except (OSError, NotPart10):
            return False
        return size == int(known.size_bytes)

    def _record(self, received: ReceivedInstance, place: Path) -> bool:
        for attempt in (1, 2, 3):
            try:
                return self._record_once(received, place)
            except IntegrityError:
                # Another process stored the same instance or study between our look and our write.
                if attempt == 3:
                    raise
        return False

    def _record_once(self, received: ReceivedInstance, place: Path) -> bool:
        now = clock.now()
        sender = self.settings.sender(received.calling_ae_title)
        identity = identify(
            received.header,
            assigning_authority=(sender and sender.assigning_authority) or self.settings.site.assigning_authority,
            accession_from=sender.accession_from if sender else ("AccessionNumber", "RequestAttributesSequence"),
        )
        ours = is_ours(
            self.site_uid, received.study_instance_uid, received.series_instance_uid, received.sop_instance_uid
        ) or self.site_uid == text(received.header, "DeviceUID")  # a PACS may have changed study and series
        stored = images.StoredInstance(
            sop_instance_uid=received.sop_instance_uid,
            series_instance_uid=received.series_instance_uid,
            sop_class_uid=received.sop_class_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            patient_key=patient_key(identity),
            is_image=not ours and is_image_for_us(received.sop_class_uid),
            path=str(place),
            size_bytes=received.size_bytes,
            sha256=received.sha256,
            association={
                "calling_ae_title": received.calling_ae_title,
                "called_ae_title": received.called_ae_title,
                "peer_address": received.peer_address,
                "association_id": received.association_id,
                "message_id": received.message_id,
                "priority": received.priority,
                "move_originator_ae_title": received.move_originator_ae_title,
                "move_originator_message_id": received.move_originator_message_id,
            },
        )
        holding = holding_of(received.header, received.transfer_syntax_uid)
        with self.store.write() as connection:
            known = images.newest_version(connection, received.sop_instance_uid)
            row = studies.find(connection, received.study_instance_uid)
            if self.trial is not None and not ours:
                _only_trials(row, known)
            elif row is not None and row.trial_run_id is not None and not ours:
                self._really_sent(connection, row, identity, received, now, is_image=stored.is_image)
                row = studies.find(connection, received.study_instance_uid)
                known = images.newest_version(connection, received.sop_instance_uid)
            study_id = None if row is None else int(row.id)
            ordered = None if row is None or row.ordered_priority is None else Priority(row.ordered_priority)
            if known is not None and known.sha256 == received.sha256 and not self._lies_there(known):
                images.file_again(connection, known, str(place), ACTOR, now)
                holdings.enter_received(connection, holding, known.id, ours=ours)
                log.error("a film that was missing on the disk came again", study=received.study_instance_uid)
                return True
            if known is not None and known.sha256 == received.sha256:
                events.record(
                    connection, now, "received again", ACTOR, study_id=known.study_id, instance_id=known.id,
                    calling_ae_title=received.calling_ae_title,
                )  # fmt: skip
                return False
            if ours:
                key = images.add(connection, stored, study_id, known, now)
                holdings.enter_received(connection, holding, key, ours=True)
                events.record(connection, now, "own result came back", ACTOR, study_id=study_id, instance_id=key)
                return True
            if row is None:
                ordered = studies.ordered_priority_of(connection, identity) if self.trial is None else None
                calling = received.calling_ae_title
                study_id = studies.create(connection, identity, calling, ordered, now, trial=self.trial)
            elif stored.is_image:
                cause = "a corrected image" if known is not None else "a late image"
                studies.touch(connection, row, identity, received.calling_ae_title, cause, ACTOR, now)
                old = identity_from_json(row.identity)
                other = (old.patient_id, old.patient_name) != (identity.patient_id, identity.patient_name)
                if other and self.trial is None:
                    self._note_identity_change(connection, old, identity, row.id, now)
            if known is not None and known.study_id not in (None, study_id):
                studies.reopen(connection, known.study_id, "an image moved to another study", ACTOR, now)
            if stored.is_image and self.settings.worklist.enabled and self.trial is None:
                list_store.ensure_entry(connection, identity, now.at, new_film=True)
            key = images.add(connection, stored, study_id, known, now)
            holdings.enter_received(connection, holding, key, ours=False, first=known is None)
            events.record(
                connection, now, "received" if known is None else "replaced", ACTOR, study_id=study_id,
                instance_id=key, calling_ae_title=received.calling_ae_title, address=received.peer_address,
                size_bytes=received.size_bytes, sop_class_uid=received.sop_class_uid,
            )  # fmt: skip
            if self.trial is not None:
                pass  # nobody is to read it
            elif stored.is_image and study_id is not None and row is None:
                reading_items.study_came(connection, study_id, identity, ordered, now, self.site_uid)
            elif stored.is_image and study_id is not None and row is not None:
                before = identity_from_json(row.identity)
                reading_items.film_came(connection, study_id, identity, ordered, now, before)
            if self.settings.audit.wanted:
                Audit(self.settings).received(
                    connection, received.calling_ae_title, received.peer_address,
                    StudyObject(
                        received.study_instance_uid, {received.sop_class_uid: 1}, identity.patient_id,
                        identity.accession_number,
                    ),
                )  # fmt: skip
            reached("film-recorded")
        reached("film-committed")
        log.info(
            "received",
            study=received.study_instance_uid,
            accession=identity.accession_number,
            calling_ae=received.calling_ae_title,
            image=stored.is_image,
            size_bytes=received.size_bytes,
        )
        return True

    def _really_sent(
        self,
        connection: Connection,
        row: Row[Any],
        identity: StudyIdentity,
        received: ReceivedInstance,
        now: clock.Moment,
        *,
        is_image: bool,
    ) -> None:
        """A trial is a study from now on: on the reading list, as urgent as it was ordered, analysed by our model."""
        ordered = studies.ordered_priority_of(connection, identity)
        trials.really_sent(connection, row, identity, received.calling_ae_title, ordered, ACTOR, now)
        images.analyse_anew(connection, row.id, actor=ACTOR, now=now)
        if is_image or studies.images_of(connection, row.id):
            if self.settings.worklist.enabled:
                list_store.ensure_entry(connection, identity, now.at, new_film=True)
            reading_items.study_came(connection, row.id, identity, ordered, now, self.site_uid)

    def _note_identity_change(
        self, connection: Connection, old: StudyIdentity, new: StudyIdentity, study_id: int, now: clock.Moment
    ) -> None:
        watch.raise_alarm(
            connection,
            f"identity/{new.study_instance_uid}",
            severity="warning",
            text=(
                f"study {new.study_instance_uid} came under another patient: was {old.patient_id} {old.patient_name}, "
                f"is {new.patient_id} {new.patient_name}"
            ),
            remedy="check that the correction is right; results go out again under the new identity",
            actor=ACTOR,
            now=now,
        )
        events.record(
            connection, now, "identity changed", ACTOR, study_id=study_id,
            was=[old.patient_id, old.patient_name], now_is=[new.patient_id, new.patient_name],
        )  # fmt: skip


def _only_trials(row: Row[Any] | None, known: Row[Any] | None) -> None:
    """Raises NotWanted for what a run must leave alone: studies that were really sent to us, and their films."""
    if row is not None and row.trial_run_id is None:
        raise NotWanted("the study was really sent to us: it is no trial")
    if known is not None and known.study_id != (None if row is None else row.id):
        raise NotWanted("the instance is held as one of another study")
