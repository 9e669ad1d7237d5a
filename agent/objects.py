"""What goes out for a result: the report, the heat map and a message for each HL7 destination, frozen as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog
from PIL import Image

import firstread
from firstread.agent import clock, evidence
from firstread.agent.config import Hl7Destination, Settings
from firstread.agent.config_wire import hl7_mapping
from firstread.agent.holdings import holding_of_part10
from firstread.agent.spool import RESULTS, new_place, write_durably
from firstread.agent.store import results, watch
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.results import Artifact
from firstread.agent.store.studies import ImageRecord, OpenStudy
from firstread.integration.dicom.identity import HEATMAP, SR, control_id, derive_uid, series_uid
from firstread.integration.dicom.report import Encoded, Predecessor, ReportSettings, build_heat_map, build_report
from firstread.integration.hl7.result import build_oru
from firstread.models.findings import PATHOLOGIES
from firstread.models.prediction import Assessment, FindingResult

log = structlog.get_logger()

ACTOR = "studies"

MAP_SIDE = 256
"""Longest side in pixels at which evidence is laid over the film: activation maps have 7 to 16 pixels a side, and the
heat map enlarges what it gets smoothly; at the preview's size it cost twice as much."""

Built = TypeVar("Built")


class ResultObjects:
    """Builds and freezes. One object that cannot be built is an alarm, and the others go out."""

    def __init__(self, settings: Settings, store: Store, site_uid: str) -> None:
        self._settings = settings
        self._store = store
        self._site_uid = site_uid
        report = settings.report
        self._report_settings = ReportSettings(
            device_uid=site_uid,
            software_versions=firstread.__version__,
            sr_series_number=report.sr_series_number,
            sr_series_description=report.sr_series_description,
            heatmap_series_number=report.heatmap_series_number,
            heatmap_series_description=report.heatmap_series_description,
            language=settings.site.language,
            station_ae_title=settings.dicom.ae_title,
        )

    def build(self, study: OpenStudy, assessment: Assessment, now: clock.Moment) -> list[Artifact]:
        """Every artifact of a result. DICOM objects lie durably in the spool when this returns."""
        built: list[Artifact] = []
        uids: dict[str, str] = {}
        sr = self._guarded(study, "report", lambda: self.report(study, assessment, now))
        if sr is not None:
            built.append(self._freeze(SR, sr, self._wanting(SR)))
            uids[SR] = sr.sop_instance_uid
        if assessment.analysed and self._wanting(HEATMAP):
            heat_map = self._guarded(study, "heat map", lambda: self.heat_map(study, assessment, now))
            if heat_map is not None:
                built.append(self._freeze(HEATMAP, heat_map, self._wanting(HEATMAP)))
                uids[HEATMAP] = heat_map.sop_instance_uid
        for destination in self._settings.all_destinations:
            if isinstance(destination, Hl7Destination) and "oru" in destination.sends:
                make = partial(self.message, study, assessment, destination, uids, now)
                message = self._guarded(study, f"message for {destination.name}", make)
                if message is not None:
                    built.append(message)
        return built

    def report(self, study: OpenStudy, assessment: Assessment, now: clock.Moment) -> Encoded:
        """The Structured Report of a revision, correcting the newest one that went out before."""
        study_uid = study.identity.study_instance_uid
        with self._store.read() as connection:
            before = results.newest_artifact(connection, study.id, SR)
        predecessor = None
        if before is not None and before.series_instance_uid is not None:
            predecessor = Predecessor(study_uid, before.series_instance_uid, before.identity)
        return build_report(
            assessment,
            self._sources(study),
            (
                derive_uid(self._site_uid, study_uid, assessment.revision, SR),
                series_uid(self._site_uid, study_uid, SR),
            ),
            self._report_settings,
            predecessor=predecessor,
            content_datetime=now.at.astimezone(),
        )

    def heat_map(self, study: OpenStudy, assessment: Assessment, now: clock.Moment) -> Encoded | None:
        """The film with the evidence for the finding that matters most; None when no image was analysed."""
        finding = leading_finding(assessment)
        image = next(
            (one for one in study.images if finding and one.sop_instance_uid == finding.sop_instance_uid), None
        )
        if finding is None or image is None or image.saliency is None or image.preview_path is None:
            return None
        preview = self._preview(image)
        seen = evidence.thaw(image.saliency)
        study_uid = study.identity.study_instance_uid
        return build_heat_map(
            assessment,
            finding.label,
            self._settings.spool / image.path,
            preview,
            seen.over_film(finding.label, map_size(preview.shape[0], preview.shape[1])),
            seen.box(finding.label) if finding.present and seen.shows(finding.label) else None,
            (
                derive_uid(self._site_uid, study_uid, assessment.revision, HEATMAP),
                series_uid(self._site_uid, study_uid, HEATMAP),
            ),
            self._report_settings,
            content_datetime=now.at.astimezone(),
        )

    def message(
        self,
        study: OpenStudy,
        assessment: Assessment,
        destination: Hl7Destination,
        report_uids: dict[str, str],
        now: clock.Moment,
    ) -> Artifact:
        """The ORU for one destination."""
        key = control_id(self._site_uid, study.identity.study_instance_uid, assessment.revision, destination.name)
        content = build_oru(
            assessment,
            study.identity,
            hl7_mapping(self._settings, destination),
            control_id=key,
            message_datetime=now.at.astimezone(),
            report_uids=report_uids,
        )
        return Artifact(
            kind="oru",
            identity=key,
            destinations=(destination.name,),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            message=content,
        )

    def discard(self, artifacts: Sequence[Artifact]) -> None:
        """Removes files of a result that was not committed."""
        for one in artifacts:
            if one.path is not None:
                (self._settings.spool / one.path).unlink(missing_ok=True)

    def _freeze(self, kind: str, encoded: Encoded, destinations: tuple[str, ...]) -> Artifact:
        place = new_place(RESULTS, ".dcm")
        write_durably(self._settings.spool, place, encoded.part10)
        for note in encoded.notes:
            log.info("source value mended", object=kind, note=note)
        return Artifact(
            kind=kind,
            identity=encoded.sop_instance_uid,
            destinations=destinations,
            sha256=hashlib.sha256(encoded.part10).hexdigest(),
            size_bytes=len(encoded.part10),
            path=str(place),
            sop_class_uid=encoded.sop_class_uid,
            series_instance_uid=encoded.series_instance_uid,
            holding=holding_of_part10(encoded.part10),
        )

    def _guarded(self, study: OpenStudy, what: str, build: Callable[[], Built]) -> Built | None:
        try:
            return build()
        except StoreError:
            raise  # of the moment: the study is tried again as a whole, and nothing goes out without this object
        except Exception as error:
            log.exception("an object could not be built", study=study.identity.study_instance_uid, object=what)
            with self._store.write() as connection:
                watch.raise_alarm(
                    connection,
                    f"object/{study.id}/{what}",
                    severity="critical",
                    text=f"the {what} of study {study.identity.study_instance_uid} could not be built: {error}",
                    remedy="the other results went out; `firstread replay --from analyse` makes it again",
                    actor=ACTOR,
                    now=clock.now(),
                )
            return None

    def _wanting(self, kind: str) -> tuple[str, ...]:
        return tuple(one.name for one in self._settings.all_destinations if kind in one.sends)

    def _sources(self, study: OpenStudy) -> list[Path]:
        return [self._settings.spool / path for path in study.source_paths]

    def _preview(self, image: ImageRecord) -> np.ndarray:
        if image.preview_path is None:
            raise ValueError("the image has no preview")
        with Image.open(self._settings.spool / image.preview_path) as picture:
            return np.asarray(picture.convert("L"))


def map_size(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the map over a preview of that size: its proportions, longest side MAP_SIDE at most."""
    shrink = min(1.0, MAP_SIDE / max(rows, columns))
    return max(1, round(rows * shrink)), max(1, round(columns * shrink))


def leading_finding(assessment: Assessment) -> FindingResult | None:
    """The finding a heat map is for: what raised the study, else what is present, else the nearest to its threshold."""
    scored = [one for one in assessment.findings if one.label in PATHOLOGIES and one.probability is not None]
    if not scored:
        return None

    def weight(finding: FindingResult) -> tuple[int, bool, bool, float]:
        nearness = (finding.probability or 0.0) / (finding.threshold or 1.0)
        return finding.raises or 0, finding.present, not finding.experimental, nearness

    return max(scored, key=weight)
