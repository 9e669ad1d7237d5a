"""Alarms that leave the house: e-mail and webhook, each told once, retried with back-off, and told when it is over."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Protocol

import structlog

from firstread.agent import clock
from firstread.agent.conditions import condition_of
from firstread.agent.config import Settings
from firstread.agent.config_sections import NoticeSettings
from firstread.agent.store import notices, watch
from firstread.agent.store.engine import Store
from firstread.agent.store.notices import Notice, What
from firstread.agent.tls import TlsFilesError, client_context

log = structlog.get_logger()

TIMEOUT_S = 20.0
BACK_OFF_S = (30.0, 3600.0)


class NotSent(Exception):
    """A channel did not take a notice; the message says what it answered."""


class Channel(Protocol):
    """Where notices go."""

    @property
    def name(self) -> str:
        """``email`` or ``webhook``."""
        ...

    def send(self, sent: Sequence[Notice], site: str) -> str:
        """All of them as one message; answers with what to say of those it did not reach. Raises NotSent: nobody."""
        ...


def words(one: Notice) -> dict[str, str]:
    """A notice in words that name no patient."""
    alarm, condition = one.alarm, condition_of(one.alarm.key)
    text = condition.what if condition.names_patient else alarm.text
    remedy = "see `firstread alarms list` or the system page" if condition.names_patient else alarm.remedy
    told = {
        "what": one.what.value,
        "key": alarm.key,
        "severity": alarm.severity,
        "since": alarm.since.isoformat(timespec="seconds"),
        "text": text,
        "remedy": remedy,
    }
    if alarm.cleared_at is not None:
        told["cleared"] = alarm.cleared_at.isoformat(timespec="seconds")
    return told


def subject(sent: Sequence[Notice], site: str) -> str:
    """What it is about, for a small screen."""
    standing = [one for one in sent if one.what is not What.RECOVERED]
    over = len(sent) - len(standing)
    parts = [f"{one.alarm.severity}: {one.alarm.key}" for one in standing[:3]]
    if len(standing) > 3:
        parts.append(f"and {len(standing) - 3} more")
    if over:
        parts.append(f"{over} recovered")
    return f"Firstread{f' {site}' if site else ''}: {', '.join(parts)}"


@dataclass(frozen=True)
class Email:
    """SMTP, with TLS from the first byte, by STARTTLS, or none."""

    settings: NoticeSettings
    name: str = "email"

    def send(self, sent: Sequence[Notice], site: str) -> str:
        """One message to all addresses; answers with those that the server refused. Raises NotSent: none took it."""
        message = EmailMessage()
        message["Subject"] = subject(sent, site)
        message["From"] = self.settings.email_from or f"firstread@{socket.getfqdn()}"
        message["To"] = ", ".join(self.settings.email_to)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n\n".join(_paragraph(words(one)) for one in sent) + "\n")
        try:
            refused = self._deliver(message)
        except (OSError, smtplib.SMTPException, TlsFilesError) as error:
            raise NotSent(f"{self.settings.smtp_host}: {type(error).__name__}: {error}") from error
        # Those who have it must not get it again because another address is wrong.
        return f"{self.settings.smtp_host} refused {', '.join(refused)}" if refused else ""

    def _deliver(self, message: EmailMessage) -> Collection[str]:
        settings = self.settings
        assert settings.smtp_host is not None
        password = settings.smtp_password.get_secret_value()
        if not (settings.smtp_user + password).isascii():
            # smtplib's own error would quote a letter of the password.
            raise NotSent("smtp_user and smtp_password can hold ASCII letters only: use a password without others")
        address = (settings.smtp_host, settings.smtp_port)
        context = None
        if settings.smtp_security != "none":
            context = client_context("[notices]", settings.tls_ca_file, None, None)
        with _connection(address, context, at_once=settings.smtp_security == "tls") as server:
            if context is not None and settings.smtp_security == "starttls":
                server.starttls(context=context)
            if settings.smtp_user:
                server.login(settings.smtp_user, password)
            return server.send_message(message)


def _connection(address: tuple[str, int], context: ssl.SSLContext | None, *, at_once: bool) -> smtplib.SMTP:
    if at_once and context is not None:
        return smtplib.SMTP_SSL(*address, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(*address, timeout=TIMEOUT_S)


@dataclass(frozen=True)
class Webhook:
    """JSON by HTTP POST: ``{"site", "notices": [{"what", "key", "severity", "since", "text", "remedy"}]}``."""

    settings: NoticeSettings
    name: str = "webhook"

    def send(self, sent: Sequence[Notice], site: str) -> str:
        """One POST. Raises NotSent unless the answer is 2xx."""
        import httpx

        assert self.settings.webhook_url is not None
        token = self.settings.webhook_token.get_secret_value()
        body: dict[str, Any] = {"site": site, "notices": [words(one) for one in sent]}
        try:
            context = client_context("[notices]", self.settings.tls_ca_file, None, None)
            answer = httpx.post(
                self.settings.webhook_url,
                json=body,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=TIMEOUT_S,
                verify=context,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TlsFilesError) as error:
            raise NotSent(f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise NotSent(f"the webhook answered {answer.status_code}")
        return ""


def channels(settings: NoticeSettings) -> list[Channel]:
    """Those that are set."""
    found: list[Channel] = []
    if settings.email_to:
        found.append(Email(settings))
    if settings.webhook_url is not None:
        found.append(Webhook(settings))
    return found


class Notifier:
    """Tells what is due over each channel; one that fails is tried again later, and delays no other."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._channels = channels(settings.notices)
        self._wait_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    def tell(self) -> int:
        """One turn of every channel; answers with how many notices went out."""
        return self.tell_by_email() + self.tell_by_webhook()

    def tell_by_email(self) -> int:
        """One turn; a job of its own, so that a mail server that does not answer holds up no webhook."""
        return sum(self._over(channel) for channel in self._channels if isinstance(channel, Email))

    def tell_by_webhook(self) -> int:
        """One turn."""
        return sum(self._over(channel) for channel in self._channels if isinstance(channel, Webhook))

    def _over(self, channel: Channel) -> int:
        if clock.boot_seconds() < self._not_before.get(channel.name, 0.0):
            return 0
        settings, now = self._settings.notices, clock.now()
        with self._store.read() as connection:
            found = notices.due(
                connection,
                channel.name,
                now.at,
                critical_only=settings.least_severity == "critical",
                repeat_h=settings.repeat_h,
            )
        if not found:
            return 0
        key = f"notices/{channel.name}"
        try:
            missed = channel.send(found, self._settings.site.name)
        except Exception as error:
            # Whatever it was: without back-off and an alarm nobody would learn that nobody is told.
            said = str(error) if isinstance(error, NotSent) else type(error).__name__
            wait_s = min(BACK_OFF_S[1], 2 * self._wait_s.get(channel.name, BACK_OFF_S[0] / 2))
            self._wait_s[channel.name] = wait_s
            self._not_before[channel.name] = clock.boot_seconds() + wait_s
            log.warning("notices were not sent", channel=channel.name, again_in_s=wait_s, error=said)
            with self._store.write() as connection:
                watch.raise_alarm(
                    connection,
                    key,
                    severity="warning",
                    text=f"{len(found)} notices of alarms wait: {said}",
                    remedy="see [notices]; `firstread alarms test` tries it now; they are sent when it works",
                    actor="notices",
                    now=now,
                )
            return 0
        self._wait_s.pop(channel.name, None)
        with self._store.write() as connection:
            notices.mark_told(connection, channel.name, found, now.at)
            if missed:
                watch.raise_alarm(
                    connection,
                    key,
                    severity="warning",
                    text=f"notices reach some of their addresses only: {missed}",
                    remedy="mend email_to in [notices]; `firstread alarms test` tries it now",
                    actor="notices",
                    now=now,
                )
            else:
                watch.clear_alarm(connection, key, actor="notices", now=now)
        log.info("notices sent", channel=channel.name, count=len(found))
        return len(found)


def _paragraph(told: dict[str, str]) -> str:
    lines = [f"{told['what'].upper()}  {told['severity']}  {told['key']}", f"since {told['since']}"]
    if "cleared" in told:
        lines[1] += f", cleared {told['cleared']}"
    return "\n".join([*lines, told["text"], *([] if "cleared" in told else [f"What to do: {told['remedy']}"])])
