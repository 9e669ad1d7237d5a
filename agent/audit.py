"""The audit trail that goes to the site's repository: kept in the database with what it tells of, sent from there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import Connection, delete, func, insert, select

from firstread.agent import clock
from firstread.agent.config import AuditSettings, Settings
from firstread.agent.store import watch
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.tables import audit_message
from firstread.agent.tls import TlsFilesError, client_context
from firstread.integration.audit.message import (
    APPLICATION,
    DESTINATION,
    LAUNCHER,
    SOURCE,
    AuditEvent,
    EventKind,
    EventType,
    Outcome,
    Participant,
    StudyObject,
    write_message,
)
from firstread.integration.audit.syslog import AuditFile, AuditStream, AuditUnreachable, syslog_record

log = structlog.get_logger()

ALARM = "audit"
AT_ONCE = 100
RETRY_S = (1.0, 60.0)


class Audit:
    """Writes messages into the caller's transaction, so that they stand or fall with what they tell of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ours = settings.dicom.ae_title

    @property
    def wanted(self) -> bool:
        """False where the site has named neither file nor repository: then nothing is written."""
        return self._settings.audit.wanted

    def application(self, connection: Connection, *, started: bool) -> None:
        """The agent starts or stops (A.5.3.1)."""
        who = [
            Participant(f"pid {os.getpid()}", False, APPLICATION, alternative_id=f"AETITLES={self._ours}"),
            Participant(f"uid {os.getuid()}", True, LAUNCHER),
        ]
        kind = EventType.APPLICATION_START if started else EventType.APPLICATION_STOP
        self._tell(connection, EventKind.APPLICATION, who, type=kind)

    def received(self, connection: Connection, sender: str, address: str, study: StudyObject) -> None:
        """A film is stored (A.5.3.7)."""
        who = [
            Participant(sender, True, SOURCE, address, f"AETITLES={sender}"),
            Participant(self._ours, False, DESTINATION, alternative_id=f"AETITLES={self._ours}"),
        ]
        self._tell(connection, EventKind.INSTANCES_TRANSFERRED_IN, who, studies=[study])

    def sending(self, connection: Connection, receiver: str, address: str, study: StudyObject, *, ended: bool) -> None:
        """One of our objects is about to be sent (A.5.3.3), or was stored by the receiver (A.5.3.7)."""
        who = [
            Participant(self._ours, True, SOURCE, alternative_id=f"AETITLES={self._ours}"),
            Participant(receiver, False, DESTINATION, address),
        ]
        kind = EventKind.INSTANCES_TRANSFERRED_OUT if ended else EventKind.BEGIN_TRANSFERRING
        self._tell(connection, kind, who, studies=[study])

    def looked_at(self, connection: Connection, user: str, address: str, study: StudyObject) -> None:
        """Somebody opened a study on the page (A.5.3.6)."""
        who = [Participant(user or "page", True, None, address)]
        self._tell(connection, EventKind.INSTANCES_ACCESSED, who, studies=[study])

    def listed(self, connection: Connection, user: str, address: str, query: str = "reading list") -> None:
        """Somebody opened the reading list, or a node asked what is held (A.5.3.10)."""
        who = [
            Participant(user or "page", True, SOURCE, address),
            Participant(self._ours, False, DESTINATION, alternative_id=f"AETITLES={self._ours}"),
        ]
        self._tell(connection, EventKind.QUERY, who, details={"query": query})

    def login(self, connection: Connection, user: str, address: str, *, succeeded: bool, out: bool = False) -> None:
        """Somebody logged in or out, or failed to (A.5.3.12)."""
        outcome = Outcome.SUCCESS if succeeded else Outcome.MINOR_FAILURE
        kind = EventType.LOGOUT if out else EventType.LOGIN
        who = [Participant(user, True, None, address)]
        words = "" if succeeded else "name or password is wrong"
        self._tell(connection, EventKind.USER_AUTHENTICATION, who, type=kind, outcome=outcome, outcome_text=words)

    def stranger(self, connection: Connection, caller: str, address: str, why: str) -> None:
        """An association was refused to somebody whom the settings do not know (A.5.3.11)."""
        who = [
            Participant(self._ours, False, alternative_id=f"AETITLES={self._ours}"),
            Participant(caller or "unknown", True, None, address),
        ]
        self._tell(
            connection,
            EventKind.SECURITY_ALERT,
            who,
            type=EventType.NODE_AUTHENTICATION,
            outcome=Outcome.MINOR_FAILURE,
            outcome_text="association refused",
            details={"Alert Description": why},
        )

    def _tell(
        self,
        connection: Connection,
        kind: EventKind,
        participants: list[Participant],
        *,
        type: EventType | None = None,  # as the standard names it
        outcome: Outcome = Outcome.SUCCESS,
        outcome_text: str = "",
        studies: list[StudyObject] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        if not self.wanted:
            return
        now = clock.now().at
        event = AuditEvent(kind, now, participants, type, outcome, outcome_text, studies or (), details or {})
        site = self._settings.site.name
        content = write_message(event, f"FIRSTREAD@{socket.gethostname()}", site)
        connection.execute(insert(audit_message).values(at=now, content=content))


class Repository(Protocol):
    """Where records go."""

    def send(self, record: bytes) -> None:
        """Raises AuditUnreachable."""
        ...

    def settle(self) -> None:
        """Returns when what was sent is there. Raises AuditUnreachable."""
        ...

    def close(self) -> None:
        """Ends what is open."""
        ...


def repository(audit: AuditSettings) -> Repository:
    """The file or the connection that the settings name. Raises AuditUnreachable for TLS files that cannot be used."""
    if audit.file is not None:
        return AuditFile(Path(audit.file))
    assert audit.host is not None
    context = None
    try:
        if audit.tls:
            context = client_context("[audit]", audit.tls_ca_file, audit.tls_certificate_file, audit.tls_key_file)
    except TlsFilesError as error:
        raise AuditUnreachable(str(error)) from error
    return AuditStream(audit.host, audit.port, context)


class AuditSender:
    """Hands messages over in their order; each leaves the database only when the repository has it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._audit = settings.audit
        self._store = store
        self._open: Repository | None = None

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        wait_s = RETRY_S[0]
        while not stop.wait(wait_s):
            try:
                while self.send_some():
                    pass
                wait_s = RETRY_S[0]
            except AuditUnreachable as error:
                wait_s = min(wait_s * 2, RETRY_S[1])
                self._unreachable(str(error))
            except StoreError as error:
                log.warning("audit messages wait", error=str(error))
        if self._open is not None:
            self._open.close()

    def send_some(self) -> bool:
        """Sends what is oldest; True while there may be more. Raises AuditUnreachable, StoreError."""
        with self._store.read() as connection:
            rows = connection.execute(select(audit_message).order_by(audit_message.c.id).limit(AT_ONCE)).all()
        if not rows:
            return False
        if self._open is None:
            self._open = repository(self._audit)
        for row in rows:
            record = syslog_record(
                row.content, row.at, host=socket.gethostname(), application="firstread", process=os.getpid()
            )
            self._open.send(record)
        self._open.settle()
        with self._store.write() as connection:
            connection.execute(delete(audit_message).where(audit_message.c.id.in_([row.id for row in rows])))
            watch.clear_alarm(connection, ALARM, actor="audit", now=clock.now())
        return len(rows) == AT_ONCE

    def _unreachable(self, why: str) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        with self._store.write() as connection:
            waiting = connection.execute(select(func.count()).select_from(audit_message)).scalar_one()
            watch.raise_alarm(
                connection,
                ALARM,
                severity="warning",
                text=f"{waiting} audit messages wait: {why}",
                remedy="see [audit]; messages are kept and sent in their order when the repository takes them",
                actor="audit",
                now=clock.now(),
            )
