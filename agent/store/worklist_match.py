"""Which entry of the reading list a message or a film means, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, union

from firstread.agent.store.tables import entry, entry_accession
from firstread.models.prediction import StudyIdentity

KEY_LENGTH = 256
"""Longer keys than any standard allows are compared by their beginning."""


@dataclass(frozen=True)
class Match:
    """What a message names a study by; empty fields match nothing."""

    study_instance_uid: str = ""
    accession_numbers: tuple[str, ...] = ()
    placer_order_number: str = ""
    filler_order_number: str = ""
    patient_id: str = ""


def match_of(identity: StudyIdentity) -> Match:
    """What a study is known by."""
    return Match(
        study_instance_uid=identity.study_instance_uid,
        accession_numbers=accessions(identity),
        placer_order_number=identity.placer_order_number,
        filler_order_number=identity.filler_order_number,
        patient_id=identity.patient_id,
    )


def find_entries(connection: Connection, match: Match) -> list[Row[Any]]:
    """Entries that ``match`` names: by study, else by accession or order numbers; oldest first."""
    if match.study_instance_uid:
        rows = connection.execute(select(entry).where(entry.c.study_instance_uid == match.study_instance_uid)).all()
        if rows:
            return list(rows)
    ways: list[Select[Any]] = []
    if match.accession_numbers:
        numbers = [number[:KEY_LENGTH] for number in match.accession_numbers]
        ways.append(select(entry.c.id).where(entry.c.accession_number.in_(numbers)))
        ways.append(select(entry_accession.c.entry_id).where(entry_accession.c.accession_number.in_(numbers)))
    if match.placer_order_number:
        ways.append(select(entry.c.id).where(entry.c.placer_order_number == match.placer_order_number[:KEY_LENGTH]))
    if match.filler_order_number:
        ways.append(select(entry.c.id).where(entry.c.filler_order_number == match.filler_order_number[:KEY_LENGTH]))
    if not ways:
        return []
    # Each way by its own index; one condition with OR would look through the whole list for every film.
    rows = connection.execute(select(entry).where(entry.c.id.in_(union(*ways))).order_by(entry.c.id)).all()
    return [row for row in rows if _named(match, row)]


def patients_agree(match: Match, row: Row[Any]) -> bool:
    """False only when both name a patient and the identifiers differ."""
    other = str(row.identity.get("patient_id", "")).strip()
    return not (match.patient_id.strip() and other and match.patient_id.strip() != other)


def merge_identity(first: StudyIdentity, second: StudyIdentity) -> StudyIdentity:
    """``first`` with its empty fields filled from ``second``."""
    empty = ("", (), None)
    filled = {
        item.name: getattr(second, item.name)
        for item in fields(StudyIdentity)
        if getattr(first, item.name) in empty and getattr(second, item.name) not in empty
    }
    return replace(first, **filled)


def accessions(identity: StudyIdentity) -> tuple[str, ...]:
    """Every accession number that a study has, the first one first."""
    return tuple(dict.fromkeys(number for number in (identity.accession_number, *identity.accession_numbers) if number))


def key_columns(identity: StudyIdentity, match: Match) -> dict[str, str]:
    """The columns that an entry is found by."""
    numbers = accessions(identity) or match.accession_numbers
    return {
        "accession_number": numbers[0][:KEY_LENGTH] if numbers else "",
        "placer_order_number": (identity.placer_order_number or match.placer_order_number)[:KEY_LENGTH],
        "filler_order_number": (identity.filler_order_number or match.filler_order_number)[:KEY_LENGTH],
    }


def keep_accessions(connection: Connection, entry_id: int, identity: StudyIdentity) -> None:
    """Writes down every accession number of an entry that has several, so that each finds it."""
    connection.execute(delete(entry_accession).where(entry_accession.c.entry_id == entry_id))
    numbers = dict.fromkeys(number[:KEY_LENGTH] for number in accessions(identity))
    if len(numbers) > 1:
        rows = [{"entry_id": entry_id, "accession_number": number} for number in numbers]
        connection.execute(insert(entry_accession), rows)


def _named(match: Match, row: Row[Any]) -> bool:
    numbers = {row.accession_number, *row.identity.get("accession_numbers", ())} - {""}
    if any(number in numbers or number[:KEY_LENGTH] in numbers for number in match.accession_numbers):
        return True
    if match.study_instance_uid and row.study_instance_uid and match.study_instance_uid != row.study_instance_uid:
        return False
    return bool(
        (match.placer_order_number and match.placer_order_number[:KEY_LENGTH] == row.placer_order_number)
        or (match.filler_order_number and match.filler_order_number[:KEY_LENGTH] == row.filler_order_number)
    )
