"""``fetch``: studies come back from the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firstread.agent.commands.common import FAILED, ConfigOption, fail, opened, say

if TYPE_CHECKING:
    from sqlalchemy.engine import Row

    from firstread.agent.config import Settings
    from firstread.agent.fetch import Archive
    from firstread.agent.store.engine import Store


def fetch(
    study: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Study Instance UIDs, or accession numbers.")],
    config: ConfigOption = None,
) -> None:
    """Brings studies back from the archive that [archive] names; what was never here is then received like any film."""
    from firstread.agent.fetch import FetchFailed

    failed = False
    with opened(config) as (settings, store):
        archive = archive_of(settings, store)
        try:
            for name in study:
                uid = _uid_of(store, name)
                try:
                    found = archive.fetch(uid)
                except FetchFailed as error:
                    failed = True
                    say(f"{uid}: {error}", err=True)
                    continue
                say(f"{uid}: {found.stored} films lie here")
                failed = failed or bool(found.refused)
                for line in found.refused:
                    say(f"  not taken: {line}", err=True)
        finally:
            archive.close()
    if failed:
        raise typer.Exit(FAILED)


def archive_of(settings: Settings, store: Store) -> Archive:
    """The archive; the command ends with a sentence when none is named or its certificates cannot be read."""
    from firstread.agent.fetch import Archive, FetchFailed
    from firstread.agent.tls import TlsFilesError

    try:
        return Archive(settings, store)
    except (FetchFailed, TlsFilesError) as error:
        fail(str(error))


def _uid_of(store: Store, name: str) -> str:
    from firstread.agent.store import studies
    from firstread.agent.store.studies import StudyFilter
    from firstread.integration.dicom.identity_check import is_uid

    with store.read() as connection:
        if studies.find(connection, name) is not None:
            return name
        found = studies.selected(connection, StudyFilter(accession_number=name), 2)
    if len(found) == 1:
        return str(found[0].study_instance_uid)
    if not is_uid(name):
        fail(f"{name} is no Study Instance UID, and no accession number of one study here")
    return name


def fetch_purged(settings: Settings, store: Store, rows: Sequence[Row[Any]]) -> None:
    """Brings back what was deleted of these studies when its days were over; says of which it did not come."""
    from firstread.agent.fetch import FetchFailed
    from firstread.agent.store import studies

    with store.read() as connection:
        purged = [row for row in rows if any(not image.path for image in studies.images_of(connection, row.id))]
    if not purged:
        return
    archive = archive_of(settings, store)
    try:
        for row in purged:
            try:
                archive.fetch(row.study_instance_uid)
            except FetchFailed as error:
                say(f"{row.study_instance_uid}: {error}", err=True)
    finally:
        archive.close()
