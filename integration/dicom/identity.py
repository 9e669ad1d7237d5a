"""The identifiers of what we write, derived and never drawn: a retry is the same object, a return is recognised.

Identifiers are version 5 UUIDs under the root 2.25 (PS3.5 B.2, ITU-T X.667), computed from the site's own UID, the
study, the revision and the kind of object. Nothing is stored to recognise our own results: the guard against loops
computes them again.

A kind has one series per study, the same for every revision. Then a viewer shows a corrected report beside the one
it corrects (the Instance Number is the revision), and the guard needs to know no revision: whatever comes back in
one of our series is ours, also what an earlier state of the database sent.
"""

from __future__ import annotations

import base64
import hashlib
import uuid

from firstread.models.findings import LABELS

NAMESPACE = uuid.UUID("3c0f6a0e-5d0b-5f6e-9a35-0d6b6cb8f1a2")
"""Ours alone; a change of it would make every earlier result a stranger."""

SR = "sr"
HEATMAP = "heatmap"
KINDS: tuple[str, ...] = (SR, HEATMAP)
"""The kinds of DICOM objects we write, each with its own series. ``heatmap/Mass`` is of the kind ``heatmap``."""

CONTROL_ID_LENGTH = 20
"""MSH-10 is ST of at most 20 characters (HL7 v2.5.1 2.14.9.10)."""

_REVISIONS_RECOGNISED = 32
_UUID_ROOT = "2.25."


def derive_uid(site_uid: str, study_instance_uid: str, revision: int | None, kind: str) -> str:
    """A UID of at most 44 characters, always the same for the same site, study, revision and kind.

    ``revision`` is None for what belongs to the study whatever its revision (a series, a tracked finding).
    """
    number = "" if revision is None else str(revision)
    name = "\0".join((site_uid, study_instance_uid, number, kind))
    return _UUID_ROOT + str(uuid.uuid5(NAMESPACE, name).int)


def series_uid(site_uid: str, study_instance_uid: str, kind: str) -> str:
    """Series Instance UID for a kind of object in a study, the same for all revisions."""
    return derive_uid(site_uid, study_instance_uid, None, "series/" + kind.partition("/")[0])


def tracking_uid(site_uid: str, study_instance_uid: str, label: str) -> str:
    """Tracking Unique Identifier of a finding: one thing through all revisions of a study (TID 1500, DCM 112040)."""
    return derive_uid(site_uid, study_instance_uid, None, "tracking/" + label)


def is_ours(site_uid: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
    """True for an instance that this site made: by its series, or by its own UID where a PACS changed the series.

    The instance is looked for among the first 32 revisions. A study whose UID was changed on the way is not
    recognised here; our instances also carry the site's Device UID (0018,1002).
    """
    if any(series_instance_uid == series_uid(site_uid, study_instance_uid, kind) for kind in KINDS):
        return True
    if not sop_instance_uid.startswith(_UUID_ROOT):
        return False
    kinds = (*KINDS, *(f"{HEATMAP}/{label}" for label in LABELS))
    return any(
        sop_instance_uid == derive_uid(site_uid, study_instance_uid, revision, kind)
        for revision in range(_REVISIONS_RECOGNISED)
        for kind in kinds
    )


def control_id(site_uid: str, study_instance_uid: str, revision: int, destination: str) -> str:
    """MSH-10 of the message for a revision and a destination: 20 characters of A-Z and 2-7, 100 bits of a SHA-256."""
    name = "\0".join((site_uid, study_instance_uid, str(revision), destination))
    return base64.b32encode(hashlib.sha256(name.encode()).digest())[:CONTROL_ID_LENGTH].decode()
