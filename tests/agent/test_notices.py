"""Alarms leave the house once each, over real SMTP and HTTP, and a dead mail server holds up nothing else."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr

from firstread.agent import clock, schedule
from firstread.agent import notices as notices_module
from firstread.agent.certificates import make_certificates
from firstread.agent.conditions import CONDITIONS, condition_of
from firstread.agent.notices import Email, Notifier, channels
from firstread.agent.schedule import JOBS
from firstread.agent.store import notices, watch
from tests.agent.builders import Bench, moment
from tests.peers import free_port
from tests.system.agent import wait_for

MINUTE, HOUR = 60.0, 3600.0


class Mailbox:
    """A mail server that keeps what it gets."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.refuses = False

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: list[str]) -> str:
        if address.startswith("gone@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuses:
            return "451 not now"
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content))
        return "250 taken"


class Hook(ThreadingHTTPServer):
    """A webhook that keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.status = 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.tokens.append(self.headers.get("Authorization", ""))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.status < 300:
                    hook.bodies.append(body)
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Office(Bench):
    """An agent whose clock is moved by hand, a mail server, a webhook."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, box: Mailbox, port: int, hook: Hook) -> None:
        self._patch = monkeypatch
        self.at(0)
        self.box, self.hook = box, hook
        super().__init__(
            folder,
            notices={
                "email_to": ["duty@example.org"],
                "smtp_host": "127.0.0.1",
                "smtp_port": port,
                "smtp_security": "none",
                "webhook_url": f"http://127.0.0.1:{hook.server_port}/alerts",
                "webhook_token": "s3cret",
            },
            site={"name": "St Elsewhere"},
        )
        self.notifier = Notifier(self.settings, self.store)

    def notifier_with(self, **values: Any) -> Notifier:
        section = self.settings.notices.model_copy(update=values)
        return Notifier(self.settings.model_copy(update={"notices": section}), self.store)

    def at(self, seconds: float) -> None:
        self._patch.setattr(clock, "now", lambda: moment(seconds))
        self._patch.setattr(clock, "boot_seconds", lambda: 1000.0 + seconds)

    def alarm(self, key: str, severity: str = "critical", text: str = "it hurts", remedy: str = "mend it") -> None:
        with self.store.write() as connection:
            watch.raise_alarm(
                connection, key, severity=severity, text=text, remedy=remedy, actor="t", now=clock.now()
            )  # fmt: skip

    def clear(self, key: str) -> None:
        with self.store.write() as connection:
            watch.clear_alarm(connection, key, actor="t", now=clock.now())

    def standing(self) -> dict[str, watch.Alarm]:
        with self.store.read() as connection:
            return {one.key: one for one in watch.alarms(connection)}


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    box, hook = Mailbox(), Hook()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    made = Office(tmp_path / "spool", monkeypatch, box, controller.port, hook)
    yield made
    made.store.close()
    hook.shutdown()
    hook.server_close()
    controller.stop()


def body(mail: Message) -> str:
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def test_a_critical_alarm_goes_out_at_once_over_both_channels_and_once(office: Office) -> None:
    office.alarm("disk", text="10 MB are free", remedy="free some disk")
    assert office.notifier.tell() == 2
    assert office.notifier.tell() == 0
    (mail,) = office.box.mails
    assert mail["Subject"] == "Firstread St Elsewhere: critical: disk" and mail["To"] == "duty@example.org"
    assert "10 MB are free" in body(mail) and "free some disk" in body(mail)
    (hooked,) = office.hook.bodies
    assert hooked["site"] == "St Elsewhere" and hooked["notices"][0]["what"] == "raised"
    assert office.hook.tokens == ["Bearer s3cret"]


def test_a_warning_is_told_when_it_has_stood_for_a_minute(office: Office) -> None:
    office.alarm("burst", "warning")
    assert office.notifier.tell() == 0
    office.at(61)
    assert office.notifier.tell() == 2


def test_a_recovery_is_told_when_it_has_lasted_and_what_flaps_is_told_once(office: Office) -> None:
    office.alarm("disk")
    office.notifier.tell()
    for minute in range(1, 20, 2):
        office.at(minute * MINUTE)
        office.clear("disk")
        office.notifier.tell()
        office.at((minute + 1) * MINUTE)
        office.alarm("disk")
        office.notifier.tell()
    assert len(office.box.mails) == 1
    office.at(30 * MINUTE)
    office.clear("disk")
    office.at(36 * MINUTE)
    assert office.notifier.tell() == 2
    assert "1 recovered" in office.box.mails[-1]["Subject"] and "RECOVERED" in body(office.box.mails[-1])
    assert office.notifier.tell() == 0
    office.alarm("disk")
    assert office.notifier.tell() == 2, "a new occasion"


def test_what_still_stands_is_told_again_after_a_day(office: Office) -> None:
    office.alarm("disk")
    office.notifier.tell()
    office.at(23 * HOUR)
    assert office.notifier.tell() == 0
    office.at(24 * HOUR)
    assert office.notifier.tell() == 2
    assert "STILL STANDING" in body(office.box.mails[-1])


def test_what_got_worse_is_told_again(office: Office) -> None:
    office.alarm("certificate/[web]", "warning")
    office.at(61)
    office.notifier.tell()
    office.alarm("certificate/[web]", "critical")
    assert office.notifier.tell() == 2


def test_many_alarms_are_one_mail(office: Office) -> None:
    for number in range(50):
        office.alarm(f"delivery/{number}")
    assert office.notifier.tell() == 100
    (mail,) = office.box.mails
    assert "and 47 more" in mail["Subject"]


def test_a_mail_server_that_refuses_is_tried_again_later_and_the_webhook_is_told_at_once(office: Office) -> None:
    office.box.refuses = True
    office.alarm("disk")
    assert office.notifier.tell() == 1 and len(office.hook.bodies) == 1
    waiting = office.standing()["notices/email"]
    assert "451" in waiting.text and "alarms test" in waiting.remedy
    office.box.refuses = False
    office.at(29)
    assert office.notifier.tell() == 0, "not before half a minute"
    office.at(31)
    assert office.notifier.tell() == 1
    assert len(office.box.mails) == 1 and "notices/email" not in office.standing()


def test_nothing_is_lost_when_the_agent_starts_again_in_between(office: Office) -> None:
    office.box.refuses = True
    office.alarm("disk")
    office.notifier.tell()
    office.box.refuses = False
    assert Notifier(office.settings, office.store).tell() == 1, "the mail alone; the webhook was told"
    assert len(office.box.mails) == 1 and len(office.hook.bodies) == 1


def test_one_wrong_address_is_told_of_and_the_others_get_their_mail_once(office: Office) -> None:
    notifier = office.notifier_with(email_to=("duty@example.org", "gone@example.org"))
    office.alarm("disk")
    for minute in range(180):
        office.at(minute * MINUTE)
        notifier.tell()
    assert len(office.box.mails) == 1
    assert "gone@example.org" in office.standing()["notices/email"].text
    assert "notices/email" in json.dumps(office.hook.bodies), "the webhook tells that mail reaches not all"
    office.clear("disk")
    office.at(200 * MINUTE)
    office.notifier.tell()
    assert len(office.box.mails) == 2 and "notices/email" not in office.standing()


def test_an_address_alone_that_is_refused_has_not_got_it(office: Office) -> None:
    office.alarm("disk")
    assert office.notifier_with(email_to=("gone@example.org",)).tell_by_email() == 0
    assert "gone@example.org" in office.standing()["notices/email"].text


def test_a_password_that_mail_cannot_carry_is_named_without_quoting_it(office: Office) -> None:
    notifier = office.notifier_with(smtp_user="u", smtp_password=SecretStr("schl\u00fcssel"))
    office.alarm("disk")
    assert notifier.tell() == 1 and len(office.hook.bodies) == 1
    text = office.standing()["notices/email"].text
    assert "ASCII" in text and "\u00fc" not in text


def test_what_nobody_foresaw_is_an_alarm_with_back_off_too(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(*_: object) -> str:
        tried.append(1)
        raise RuntimeError("DOE^JOHN")

    monkeypatch.setattr(Email, "send", fails)
    office.alarm("disk")
    office.notifier.tell()
    office.notifier.tell()
    assert len(tried) == 1 and len(office.hook.bodies) == 1
    assert "RuntimeError" in office.standing()["notices/email"].text
    assert "DOE" not in office.standing()["notices/email"].text


def test_a_mail_server_that_says_nothing_does_not_hold_up_the_webhook(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(notices_module, "TIMEOUT_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = office.notifier_with(smtp_port=silent.getsockname()[1])
        office.alarm("disk")
        jobs = {job.name: lambda: None for job in JOBS if job.role in ("deliver", "every role")}
        quick = {"notices by e-mail": notifier.tell_by_email, "notices by webhook": notifier.tell_by_webhook}
        monkeypatch.setattr(schedule, "JOBS", [replace(job, every_s=0.1) for job in JOBS])
        running = schedule.Schedule("deliver", {**jobs, **quick})
        began = time.monotonic()
        running.start()
        try:
            wait_for(lambda: office.hook.bodies, "the webhook is told", 10)
            assert time.monotonic() - began < 2.5, "before the mail server's time was over"
        finally:
            running.stop()
    assert "notices/email" in office.standing()


def test_a_webhook_that_answers_an_error_has_not_taken_it(office: Office) -> None:
    office.hook.status = 500
    office.alarm("disk")
    assert office.notifier.tell() == 1
    assert "500" in office.standing()["notices/webhook"].text


def test_a_notice_names_no_patient(office: Office) -> None:
    office.alarm("identity/1.2.3", text="was DOE^JOHN 4711, is ROE^ANN 4712")
    office.alarm("delivery/9", text="PACS rejected: patient DOE^JOHN unknown")
    office.alarm("destination/PACS", text="PACS does not take results: A700 DOE^JOHN is locked")
    office.alarm("object/9/sr", text="the sr could not be built: ValueError: bad name 'DOE^JOHN'")
    office.alarm("summing-up/9", text="study 1.2 has no result: ValueError: 'DOE^JOHN'")
    office.notifier.tell()
    told = body(office.box.mails[0]) + json.dumps(office.hook.bodies)
    assert "DOE" not in told and "4711" not in told
    assert "identity/1.2.3" in told and "a study came under another patient" in told


def test_only_what_is_critical_is_told_when_the_site_wants_it_so(office: Office) -> None:
    settings = office.settings.model_copy(
        update={"notices": office.settings.notices.model_copy(update={"least_severity": "critical"})}
    )
    office.alarm("burst", "warning")
    office.alarm("disk", "critical")
    office.at(2 * MINUTE)
    Notifier(settings, office.store).tell()
    assert "burst" not in body(office.box.mails[0])


def test_mail_goes_by_starttls_with_a_login_and_not_to_a_server_of_another_name(
    tmp_path: Path, office: Office
) -> None:  # fmt: skip
    folder = tmp_path / "ca"
    make_certificates(folder, ("127.0.0.1", "localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    logins: list[tuple[bytes, bytes]] = []

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right")

    box = Mailbox()
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )
    controller.start()
    try:
        values: dict[str, Any] = {
            "email_to": ["duty@example.org"],
            "smtp_host": "127.0.0.1",
            "smtp_port": controller.port,
            "smtp_user": "firstread",
            "smtp_password": "right",
            "tls_ca_file": str(folder / "authority.pem"),
        }
        trusting = type(office.settings.notices).model_validate(values)
        office.alarm("disk")
        with office.store.read() as connection:
            due = notices.due(connection, "email", clock.now().at, critical_only=False, repeat_h=24)
        (channel,) = channels(trusting)
        channel.send(due, "")
        assert len(box.mails) == 1 and logins == [(b"firstread", b"right")]
        wary = type(office.settings.notices).model_validate({**values, "tls_ca_file": None})
        (channel,) = channels(wary)
        with pytest.raises(Exception, match="certificate"):
            channel.send(due, "")
        assert len(box.mails) == 1
    finally:
        controller.stop()


def test_every_alarm_that_the_agent_raises_stands_in_the_one_list_and_in_the_guide() -> None:
    root = Path(__file__).parents[2]
    sources = {path: path.read_text(encoding="utf-8") for path in (root / "agent").rglob("*.py")}
    guide = (root / "docs" / "administrator.md").read_text(encoding="utf-8")
    for kind in CONDITIONS.keys() - {"test"}:
        assert any(f'"{kind}"' in text or f'"{kind}/' in text for path, text in sources.items() if
                   path.name != "conditions.py"), f"nothing raises {kind}"  # fmt: skip
        assert f"| `{kind}" in guide, f"the guide does not say what to do about {kind}"
    del sources[root / "agent" / "store" / "watch.py"]
    for path, text in sources.items():
        for call in text.split("raise_alarm(")[1:]:
            key = call.split("severity=")[0]
            if '"' in key and "connection" in key:
                assert any(f'"{kind}' in key for kind in CONDITIONS), f"{path.name}: {key.strip()}"
        for kind in re.findall(r'_condition\(\s*f?"([a-z-]+)', text):
            assert kind in CONDITIONS, f"{path.name}: {kind}"


def test_a_key_of_a_newer_release_is_taken_for_critical_and_keeps_its_words_inside() -> None:
    assert condition_of("meteor/1").severity == "critical" and condition_of("meteor/1").names_patient
