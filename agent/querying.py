"""C-FIND, C-MOVE and C-GET over what the agent holds, for the DICOM nodes that the settings name (PS3.4 C)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Settings
from firstread.agent.config_wire import dicom_peer
from firstread.agent.decompress import decompress
from firstread.agent.holdings import Holdings
from firstread.agent.spool import INCOMING
from firstread.agent.store import events, holdings, studies
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.holdings import HeldObject
from firstread.agent.store.holdings_search import BadQuery, Level, Query, can_match, search
from firstread.agent.tls import TlsFilesError
from firstread.integration.audit.message import StudyObject
from firstread.integration.dicom.query import (
    BadIdentifier,
    CannotCount,
    QueryFailure,
    QueryLevel,
    QueryRequest,
    QueryService,
    Retrievable,
    TooMany,
)
from firstread.integration.dicom.send import DicomPeer
from firstread.integration.dicom.services import Caller

log = structlog.get_logger()

ACTOR = "query"
MOST_MATCHES = 20_000
MOST_OBJECTS = 20_000
PAGE = 500
_LEVELS = {QueryLevel.STUDY: Level.STUDY, QueryLevel.SERIES: Level.SERIES, QueryLevel.IMAGE: Level.INSTANCE}
_RETURNED = (
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "RetrieveAETitle",
    "InstanceAvailability",
)
"""Keys that are answered and not matched."""


@dataclass(frozen=True)
class QueryDesk:
    """What the receiver's associations ask about what is held."""

    settings: Settings
    store: Store

    def serves(self, calling_ae_title: str) -> bool:
        """Whether a node may ask: a query gives patients' names away, so that it must be named in the settings."""
        return self.settings.peer(calling_ae_title) is not None

    def knows(self, keyword: str, level: QueryLevel) -> bool:
        """Whether a key is matched or returned on a level."""
        return keyword in _RETURNED or can_match(keyword, _LEVELS[level])

    def find(self, caller: Caller, request: QueryRequest) -> Iterator[Mapping[str, object]]:
        """Matches, page by page; what is asked for and not known matches everything (PS3.4 C.2.2.1.3)."""
        level = _LEVELS[request.level]
        match = {keyword: value for keyword, value in request.match.items() if can_match(keyword, level)}
        told = 0
        if self.settings.audit.wanted:
            with self.store.write() as connection:
                words = f"C-FIND on {request.level} level by {', '.join(match) or 'nothing'}"
                Audit(self.settings).listed(connection, caller.calling_ae_title, caller.peer_address, words)
        while True:
            try:
                with self.store.read() as connection:
                    page = search(connection, Query(level, match), limit=PAGE, offset=told)
            except BadQuery as error:
                raise BadIdentifier(str(error)) from error
            except StoreError as error:
                raise QueryFailure("the database is busy, ask again") from error
            yield from page
            told += len(page)
            if len(page) < PAGE:
                log.info("queried", calling_ae=caller.calling_ae_title, level=str(request.level), matches=told)
                return
            if told >= MOST_MATCHES:
                raise TooMany(f"more than {MOST_MATCHES} matches: narrow the query")

    def retrieve(self, caller: Caller, request: QueryRequest, receiver: str) -> list[Retrievable]:
        """What is to be sent, and its mark in the trail of each study."""
        try:
            with self.store.read() as connection:
                held = []
                for uids in _paths(request):
                    after = 0
                    while page := holdings.objects(connection, *uids, after=after):
                        held += [one for _, one in page]
                        after = page[-1][0]
                        if len(held) > MOST_OBJECTS:
                            raise TooMany(f"more than {MOST_OBJECTS} objects: retrieve fewer at once")
            self._note(caller, held, receiver)
        except StoreError as error:
            raise CannotCount("the database is busy, ask again") from error
        bytes_of = Holdings(self.settings, self.store, "")
        log.info("retrieved", calling_ae=caller.calling_ae_title, receiver=receiver, objects=len(held))
        return [
            Retrievable(one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid, bytes_of.path(one))
            for one in held
        ]

    def peer(self, ae_title: str) -> DicomPeer | None:
        """Where a C-MOVE may send to."""
        known = self.settings.peer(ae_title)
        try:
            return None if known is None else dicom_peer(self.settings, known)
        except TlsFilesError as error:
            raise QueryFailure(str(error)) from error

    def decompress(self, path: Path, transfer_syntax: str) -> Path:
        """A native copy; its reader deletes it."""
        return decompress(path, transfer_syntax, self.settings.spool / INCOMING)

    def _note(self, caller: Caller, held: list[HeldObject], receiver: str) -> None:
        of_studies: dict[str, dict[str, int]] = {}
        for one in held:
            counts = of_studies.setdefault(one.study_instance_uid, {})
            counts[one.sop_class_uid] = counts.get(one.sop_class_uid, 0) + 1
        known = self.settings.peer(receiver)
        with self.store.write() as connection:
            for uid, counts in of_studies.items():
                row = studies.find(connection, uid)
                events.record(
                    connection, clock.now(), "retrieved", ACTOR, study_id=None if row is None else row.id,
                    calling_ae_title=caller.calling_ae_title, receiver=receiver, objects=sum(counts.values()),
                )  # fmt: skip
                if self.settings.audit.wanted:
                    told = StudyObject(
                        uid, counts, "" if row is None else row.patient_id, "" if row is None else row.accession_number
                    )
                    host = caller.peer_address if known is None else known.host
                    Audit(self.settings).sending(connection, receiver, host, told, ended=False)


def query_service(settings: Settings, store: Store) -> QueryService:
    """Query and retrieve as the receiver serves them."""
    desk = QueryDesk(settings, store)
    return QueryService(desk.serves, desk.knows, desk.find, desk.retrieve, desk.peer, desk.decompress)


def _paths(request: QueryRequest) -> list[tuple[str, ...]]:
    """Study, series and instance UID of all that a retrieval names, as far down as it names them."""
    if request.level is QueryLevel.STUDY:
        return [(uid,) for uid in request.uids]
    study = request.match["StudyInstanceUID"]
    if request.level is QueryLevel.SERIES:
        return [(study, uid) for uid in request.uids]
    return [(study, request.match["SeriesInstanceUID"], uid) for uid in request.uids]
