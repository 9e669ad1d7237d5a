"""Storing over HTTP: delivered is what the answer names, everything else is told apart, and identities stay."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.status import OutcomeKind
from firstread.integration.dicomweb.client import DicomwebClient, WebService, retry_after_s
from firstread.integration.dicomweb.native_xml import to_xml
from firstread.integration.dicomweb.store_client import LONGEST_WAIT_S, StoreAnswer, probe, store
from firstread.integration.dicomweb.tokens import ClientCredentials, GivenToken, Tokens
from tests.peers import free_port
from tests.scripted_http import Play, ScriptedHttp, answer, document, raw, trickle

SR = "1.2.840.10008.5.1.4.1.1.88.33"
UID = "1.2.3.4"
CONTENT = meta_header(SR, UID, "1.2.840.10008.1.2.1") + b"data set"


def item(uid: str = UID, **reasons: int) -> dict[str, Any]:
    """One item of a response's sequence."""
    tags = {"failure": "00081197", "warning": "00081196"}
    named = {tags[name]: {"vr": "US", "Value": [value]} for name, value in reasons.items()}
    return {"00081150": {"vr": "UI", "Value": [SR]}, "00081155": {"vr": "UI", "Value": [uid]}, **named}


def sequence(tag: str, *items: Mapping[str, Any]) -> dict[str, Any]:
    return {tag: {"vr": "SQ", "Value": list(items)}}


STORED = sequence("00081199", item())


def client(peer: ScriptedHttp | str, tokens: Tokens | None = None, answer_timeout_s: float = 30) -> DicomwebClient:
    url = peer if isinstance(peer, str) else peer.url
    return DicomwebClient(WebService("archive", url, 5, answer_timeout_s, None, tokens))


def stored(*plays: Play, tokens: Tokens | None = None, answer_timeout_s: float = 30) -> StoreAnswer:
    with ScriptedHttp(*plays) as peer:
        return store(client(peer, tokens, answer_timeout_s), CONTENT)


def test_what_the_answer_names_as_stored_is_delivered():
    with ScriptedHttp(document(200, STORED)) as peer:
        assert store(client(peer), CONTENT) == StoreAnswer(OutcomeKind.DELIVERED, "200", "stored")
    (asked,) = peer.asked
    assert (asked.method, asked.target) == ("POST", "/studies")
    assert CONTENT in asked.body and 'type="application/dicom"' in asked.headers["content-type"]


def test_an_answer_in_xml_is_read_too():
    said = stored(answer(200, to_xml(STORED), "application/dicom+xml"))
    assert said.kind is OutcomeKind.DELIVERED


def test_a_warning_is_stored_and_kept_in_words():
    said = stored(document(202, sequence("00081199", item(warning=0xB000))))
    assert (said.kind, said.status) == (OutcomeKind.DELIVERED, "202/B000") and "coercion" in said.words


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (0xA700, OutcomeKind.RETRY),
        (0x0110, OutcomeKind.RETRY),
        (0xA900, OutcomeKind.REJECTED),
        (0xC000, OutcomeKind.REJECTED),
        (0x0122, OutcomeKind.REJECTED),
        (0x0000, OutcomeKind.REJECTED),
        (0xB000, OutcomeKind.REJECTED),
    ],
)
@pytest.mark.parametrize("status", [200, 202, 409])
def test_a_failure_counts_as_its_reason_says_whatever_the_status(status, reason, kind):
    said = stored(document(status, sequence("00081198", item(failure=reason))))
    assert (said.kind, said.status) == (kind, f"{status}/{reason:04X}")


def test_what_is_named_as_stored_and_as_failed_is_not_delivered():
    said = stored(document(202, STORED | sequence("00081198", item(failure=0xA700))))
    assert said.kind is OutcomeKind.RETRY


def test_a_failure_without_a_name_is_that_of_the_one_instance():
    said = stored(document(409, sequence("0008119A", {"00081197": {"vr": "US", "Value": [0xC000]}})))
    assert (said.kind, said.status) == (OutcomeKind.REJECTED, "409/C000")


@pytest.mark.parametrize(
    "play",
    [
        document(200, {}),
        answer(200),
        document(200, sequence("00081199", item("9.9.9"))),
        document(200, {"00081199": {"vr": "SQ", "Value": "x"}}),
        document(200, sequence("00081199", {"00081155": {"vr": "UI", "Value": []}})),
        answer(200, "[]", "application/dicom+json"),
    ],
)
def test_success_that_does_not_name_the_instance_is_no_delivery(play):
    said = stored(play)
    assert said.kind is OutcomeKind.REJECTED and "does not count as stored" in said.words


@pytest.mark.parametrize(
    "play",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", hang_up=True),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", hang_up=True),
        raw(b"", hang_up=True),
        raw(b"no HTTP at all\r\n\r\n", hang_up=True),
        answer(200, '{"00081199": {"vr": "SQ", "Val', "application/dicom+json"),
        answer(200, "<html>proxy</html>", "text/html"),
        answer(200, "<html>", "application/xml"),
        answer(200, b"[" * 100_000, "application/dicom+json"),
        answer(200, b" " * (5 << 20), "application/dicom+json"),
        answer(500, "database"),
        answer(503),
        answer(429),
        answer(403),
    ],
    ids=lambda _: "",
)
def test_half_answers_and_outages_are_tried_again(play):
    assert stored(play).kind is OutcomeKind.RETRY


@pytest.mark.parametrize("status", [400, 404, 406, 409, 413, 415, 307])
def test_a_no_is_a_refusal_with_what_was_said(status):
    said = stored(answer(status, "not \x1bfor us"))
    assert (said.kind, said.status) == (OutcomeKind.REJECTED, str(status))
    assert "not for us" in said.words


def test_nobody_there_is_an_outage():
    said = store(client(f"http://127.0.0.1:{free_port()}"), CONTENT)
    assert said.kind is OutcomeKind.RETRY and "archive" in said.words


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_trickles_ends_in_time(start):
    def play(connection, asked):
        connection.sendall(start)
        trickle(b"HTTP/1.1 " + b" " * 9000, 0.1)(connection, asked)

    began = time.monotonic()
    with ScriptedHttp(play) as peer:
        said = store(DicomwebClient(WebService("archive", peer.url, 0.5, 1.0)), CONTENT)
    assert said.kind is OutcomeKind.RETRY and "in time" in said.words and time.monotonic() - began < 20


def test_retry_after_is_kept_as_seconds_and_never_for_longer_than_makes_sense():
    assert stored(answer(503, Retry_After="120")).wait_s == 120
    assert stored(answer(503, Retry_After="99999999999999999999")).wait_s == LONGEST_WAIT_S
    assert stored(answer(503, Retry_After="soon")).wait_s is None
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert retry_after_s("Sun, 01 Mar 2026 12:01:00 GMT", now) == 60
    assert retry_after_s("Sun, 01 Mar 2026 11:00:00 GMT", now) == 0


def test_an_expired_token_is_renewed_once_and_the_same_instance_goes_again():
    tokens = [answer(200, f'{{"access_token": "t{n}", "token_type": "bearer", "expires_in": 3600}}') for n in (1, 2)]
    with ScriptedHttp(*tokens) as provider, ScriptedHttp(answer(401), document(200, STORED)) as peer:
        way = client(peer, ClientCredentials(f"{provider.url}/token", "us", "secret", "store"))
        assert store(way, CONTENT).kind is OutcomeKind.DELIVERED
        peer.plays.append(document(200, STORED))
        assert store(way, CONTENT).kind is OutcomeKind.DELIVERED
    assert [one.headers["authorization"] for one in peer.asked] == ["Bearer t1", "Bearer t2", "Bearer t2"]
    bodies = {one.body.split(b"\r\n")[3] for one in peer.asked}
    assert bodies == {CONTENT}
    assert b"grant_type=client_credentials" in provider.asked[0].body and b"secret" not in provider.asked[0].body
    assert provider.asked[0].headers["authorization"].startswith("Basic ")


def test_a_token_near_its_end_is_renewed_before_it_is_shown():
    tokens = [answer(200, f'{{"access_token": "t{n}", "token_type": "Bearer", "expires_in": 0}}') for n in (1, 2)]
    with ScriptedHttp(*tokens) as provider, ScriptedHttp(otherwise=document(200, STORED)) as peer:
        way = client(peer, ClientCredentials(f"{provider.url}/token", "us", "secret"))
        store(way, CONTENT)
        store(way, CONTENT)
    assert [one.headers["authorization"] for one in peer.asked] == ["Bearer t1", "Bearer t2"]


def test_a_token_that_stays_refused_is_asked_for_once_and_then_waited_with():
    token = answer(200, '{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}')
    with ScriptedHttp(otherwise=token) as provider, ScriptedHttp(otherwise=answer(401)) as peer:
        said = store(client(peer, ClientCredentials(f"{provider.url}/token", "us", "secret")), CONTENT)
    assert (said.kind, said.status) == (OutcomeKind.RETRY, "401")
    assert len(peer.asked) == 2 and len(provider.asked) == 2


@pytest.mark.parametrize(
    "play",
    [
        answer(401, '{"error": "invalid_client"}'),
        answer(200, "no"),
        answer(200, '{"access_token": "a\\nb", "token_type": "bearer"}'),
        answer(200, '{"access_token": "mac", "token_type": "mac"}'),
        raw(b"", hang_up=True),
    ],
    ids=lambda _: "",
)
def test_without_a_token_nothing_is_sent(play):
    with ScriptedHttp(play) as provider, ScriptedHttp() as peer:
        said = store(client(peer, ClientCredentials(f"{provider.url}/token", "us", "hush")), CONTENT)
    assert said.kind is OutcomeKind.RETRY and "no token" in said.words and "hush" not in said.words
    assert not peer.asked


def test_a_token_in_a_file_is_read_anew_when_it_is_refused(tmp_path):
    file = tmp_path / "token"
    file.write_text("old\n")

    def renew(to, asked):
        file.write_text("new\n")
        answer(401)(to, asked)

    with ScriptedHttp(renew, document(200, STORED), answer(401)) as peer:
        way = client(peer, GivenToken(file))
        assert store(way, CONTENT).kind is OutcomeKind.DELIVERED
        assert store(way, CONTENT).status == "401", "the file holds no other one: it is not shown twice"
        file.unlink()
        assert "cannot be read" in store(way, CONTENT).words
    assert [one.headers["authorization"] for one in peer.asked] == ["Bearer old", "Bearer new", "Bearer new"]


def test_a_redirect_is_not_followed_with_token_and_film():
    with ScriptedHttp() as elsewhere, ScriptedHttp(answer(308, Location=f"{elsewhere.url}/studies")) as peer:
        assert store(client(peer, GivenToken("t")), CONTENT).kind is OutcomeKind.REJECTED
    assert not elsewhere.asked


@pytest.mark.parametrize(
    ("play", "ok"),
    [(answer(400), True), (answer(200), True), (answer(401), False), (answer(404), False), (answer(503), False)],
    ids=["400", "200", "401", "404", "503"],
)
def test_a_service_is_asked_whether_it_lets_us_store_without_storing(play, ok):
    with ScriptedHttp(play) as peer:
        assert probe(client(peer))[0] is ok
    assert b"DICM" not in peer.asked[0].body
