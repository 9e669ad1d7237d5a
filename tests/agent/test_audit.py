"""The audit trail to the site's repository: told of in the transaction of what happened, none lost on the way."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from firstread.agent.audit import ALARM, AuditSender
from firstread.agent.certificates import make_certificates
from firstread.agent.config import SettingsError, load_settings
from firstread.agent.deliver import DestinationWorker
from firstread.agent.lines import Outcome, Verdict
from firstread.agent.role_book import RoleBook
from firstread.agent.store import watch
from firstread.agent.store.tables import audit_message
from firstread.agent.web.app import create_app
from firstread.integration.audit.syslog import AuditUnreachable
from firstread.integration.dicom.received import AssociationEvent, AssociationOutcome
from tests.agent.builders import Bench
from tests.integration.audit_schema import checked
from tests.integration.test_audit_messages import Collector, wait


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path / "spool", audit={"file": str(tmp_path / "audit.log")})
    yield made
    made.store.close()


def told(bench: Bench) -> list:
    """Every message that waits, each checked against the standard's schema."""
    with bench.store.read() as connection:
        rows = connection.execute(select(audit_message).order_by(audit_message.c.id)).all()
    return [checked(row.content) for row in rows]


def codes(bench: Bench) -> list[str]:
    return [tree.find("EventIdentification/EventID").get("csd-code") for tree in told(bench)]


def test_a_film_that_is_stored_is_told_of_and_one_that_came_again_is_not(bench: Bench) -> None:
    bench.receive(study="1.2.3", sop="1.2.3.9", PatientID="P<1>")
    bench.receive(study="1.2.3", sop="1.2.3.9", PatientID="P<1>")
    (tree,) = told(bench)
    assert codes(bench) == ["110104"]
    assert tree.find("ActiveParticipant").get("UserID") == "PACS"
    assert {one.get("ParticipantObjectID") for one in tree.findall("ParticipantObjectIdentification")} == {
        "1.2.3", "P<1>",
    }  # fmt: skip


def test_without_a_place_for_them_no_messages_are_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool")
    bench.receive()
    assert told(bench) == []
    bench.store.close()


def test_start_stop_and_strangers_are_told_of(bench: Bench) -> None:
    book = RoleBook(bench.settings)
    book.begin(("receive",))
    bench.intake.note_association(
        AssociationEvent(
            outcome=AssociationOutcome.REJECTED, association_id="a", calling_ae_title="NOBODY",
            called_ae_title="FIRSTREAD", peer_address="10.0.0.9", why="calling AE title is not allowed", result=1,
            source=1, reason=3, films=0, refused=0, duration_s=0.0,
        )
    )  # fmt: skip
    book.end(("receive",))
    book.close()
    assert codes(bench) == ["110100", "110113", "110100"]
    types = [tree.find("EventIdentification/EventTypeCode").get("csd-code") for tree in told(bench)]
    assert types == ["110120", "110126", "110121"]


def test_what_is_sent_to_a_pacs_is_told_of_before_and_after(tmp_path: Path, ward_with_audit) -> None:
    ward = ward_with_audit
    ward.ended_study("1.2.3", Pneumothorax=0.99)
    worker = DestinationWorker(ward.settings, ward.store, ward.settings.destinations[0], "deliver/1")

    class Line:
        def send(self, content: bytes, identity: str) -> Outcome:
            return Outcome(Verdict.DELIVERED, "0000", "")

        def close(self) -> None: ...

    worker._line = Line()
    assert worker.send_next()
    assert codes(ward)[-2:] == ["110102", "110104"]
    sr = told(ward)[-1].find(".//SOPClass").get("UID")
    assert sr.startswith("1.2.840.10008.5.1.4.1.1.88.")


def test_the_page_tells_who_looked_and_who_failed_to_log_in(tmp_path: Path, ward_with_audit) -> None:
    ward = ward_with_audit
    ward.ended_study("1.2.3")
    client = TestClient(
        create_app(ward.settings, ward.store), base_url="http://reading-room.example", follow_redirects=False
    )
    before = len(told(ward))

    def log_in(password: str) -> None:
        token = re.search(r'name="token" value="([0-9a-f]+)"', client.get("/login").text).group(1)
        client.post("/login", data={"token": token, "username": "firstread", "password": password, "next": "/"})

    log_in("wrong")
    log_in("a long enough word")
    client.get("/")
    client.get("/study/1")
    new = told(ward)[before:]
    assert [tree.find("EventIdentification/EventID").get("csd-code") for tree in new] == [
        "110114", "110114", "110112", "110103",
    ]  # fmt: skip
    assert [tree.find("EventIdentification").get("EventOutcomeIndicator") for tree in new] == ["4", "0", "0", "0"]
    assert new[-1].find("ActiveParticipant").get("UserID") == "firstread"


def test_messages_leave_the_database_when_the_file_has_them(bench: Bench, tmp_path: Path) -> None:
    for number in range(3):
        bench.receive(sop=f"1.2.3.{number}")
    assert AuditSender(bench.settings, bench.store).send_some() is False
    assert len((tmp_path / "audit.log").read_bytes().splitlines()) == 3 and told(bench) == []


def test_while_the_repository_is_away_messages_wait_in_their_order_and_an_alarm_stands(
    tmp_path: Path,
) -> None:
    certs = tmp_path / "certs"
    make_certificates(certs, ("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "server.pem", certs / "server.key")
    collector = Collector(context)
    audit = {"host": "127.0.0.1", "port": collector.port, "tls_ca_file": str(certs / "authority.pem")}
    bench = Bench(tmp_path / "spool", audit=audit)
    away = bench.settings.model_copy(update={"audit": bench.settings.audit.model_copy(update={"port": 1})})
    for number in range(3):
        bench.receive(sop=f"1.2.3.{number}")
    sender = AuditSender(away, bench.store)
    with pytest.raises(AuditUnreachable):
        sender.send_some()
    sender._unreachable("nobody there")
    with bench.store.read() as connection:
        assert "3 audit messages wait" in next(one.text for one in watch.alarms(connection) if one.key == ALARM)
        assert connection.execute(select(func.count()).select_from(audit_message)).scalar_one() == 3
    waiting = [tree.find(".//SOPClass") is not None for tree in told(bench)]
    AuditSender(bench.settings, bench.store).send_some()
    wait(lambda: len(collector.records) == 3)
    assert all(waiting) and told(bench) == []
    for one in collector.records:
        checked(one.partition(b"\xef\xbb\xbf")[2])
    with bench.store.read() as connection:
        assert not [one for one in watch.alarms(connection) if one.key == ALARM]
    bench.store.close()
    collector.close()


def test_a_file_and_a_host_are_not_both_taken(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[audit]\nfile = "a.log"\nhost = "h"\n')
    with pytest.raises(SettingsError, match="file or host"):
        load_settings(tmp_path / "a.toml", {})


@pytest.fixture
def ward_with_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tests.agent.ward import Ward
    from tests.models.tiny import make_tiny_bundle

    sections = {
        "audit": {"file": str(tmp_path / "audit.log")},
        "web": {"host": "0.0.0.0", "password": "a long enough word"},
        "worklist": {"enabled": True},
    }
    ward = Ward(tmp_path / "ward", make_tiny_bundle(tmp_path / "tiny"), monkeypatch, **sections)
    yield ward
    ward.store.close()
