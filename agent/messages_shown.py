"""Frozen results as text for people: a message with a segment a line, a report as a tree."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Row

from firstread.agent import clock
from firstread.agent.config import Hl7Destination, Settings
from firstread.agent.store import results, studies
from firstread.agent.store.codec import assessment_from_json
from firstread.agent.store.engine import Store


def oru(settings: Settings, store: Store, row: Row[Any], to: str, *, build: bool) -> str:
    """The message of a study's newest result, a segment a line. LookupError says why there is none."""
    targets = [
        one
        for one in settings.all_destinations
        if isinstance(one, Hl7Destination) and (not to or one.name.lower() == to.lower())
    ]
    if not targets:
        raise LookupError(f"no HL7 destination{f' {to!r}' if to else ''}: the settings name none that gets messages")
    with store.read() as connection:
        newest = results.newest(connection, row.id)
        sent = results.newest_sent(connection, row.id)
        frozen = {
            one.identity: bytes(one.message)
            for one in (results.artifacts_of(connection, sent.id) if sent is not None else [])
            if one.message is not None
        }
        study = studies.load(connection, row)
    if newest is None:
        raise LookupError("the study has no result yet: it is being received or analysed")
    from firstread.agent.objects import ResultObjects
    from firstread.agent.store.site import site_uid

    objects = ResultObjects(settings, store, site_uid(store))
    assessment = assessment_from_json(newest.assessment if build or sent is None else sent.assessment)
    built = objects.message(study, assessment, targets[0], {}, clock.now())
    content = built.message if build else frozen.get(built.identity)
    if content is None:
        raise LookupError(f"no message was frozen for {targets[0].name}: --dry-run builds it as it would be now")
    shown = content.decode("utf-8", "replace").replace("\r", "\n").rstrip("\n")
    if not build:
        return shown
    from firstread.integration.hl7.check import check_message

    problems = check_message(content)
    return f"{shown}\n\nchecked against HL7 v2.5.1: {'; '.join(problems) or 'no problems'}"


def sr(settings: Settings, store: Store, row: Row[Any], *, dump: bool) -> str:
    """Where the newest report lies, or its content as a tree. LookupError says why there is none."""
    with store.read() as connection:
        newest = results.newest_artifact(connection, row.id, "sr")
    if newest is None:
        raise LookupError("the study has no report yet: it is being received or analysed")
    path = settings.spool / newest.path
    if not dump:
        return str(path)
    from firstread.integration.dicom.report.text import report_text

    return report_text(path)
