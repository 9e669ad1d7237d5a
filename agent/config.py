"""The one settings object: a TOML file and the environment, validated at start."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from firstread.agent.config_destinations import (
    Destination,
    DicomDestination,
    DicomwebDestination,
    Hl7Destination,
    PeerSettings,
    RetrySettings,
)
from firstread.agent.config_dicomweb import DicomwebSettings
from firstread.agent.config_environment import merge_environment
from firstread.agent.config_sections import (
    DEFAULT_PRIORITIES,
    AlarmSettings,
    AnalysisSettings,
    AuditSettings,
    DatabaseSettings,
    DicomSettings,
    FindingRule,
    LongestWait,
    NoticeSettings,
    ReportSettings,
    Section,
    SenderSettings,
    SiteSettings,
    StorageSettings,
    StudySettings,
    SubscriberSettings,
    TriageOverride,
    TriageSettings,
    WebSettings,
    WorklistSettings,
    is_loopback,
    plain,
)
from firstread.agent.config_sentences import sentences_for
from firstread.agent.config_webservice import FILES_OF_A_SERVICE, ArchiveSettings

__all__ = [
    "DEFAULT_PRIORITIES",
    "AnalysisSettings",
    "AuditSettings",
    "DatabaseSettings",
    "Destination",
    "DicomDestination",
    "DicomSettings",
    "DicomwebDestination",
    "FindingRule",
    "Hl7Destination",
    "LongestWait",
    "PeerSettings",
    "ReportSettings",
    "RetrySettings",
    "SenderSettings",
    "Settings",
    "SettingsError",
    "SiteSettings",
    "StorageSettings",
    "StudySettings",
    "SubscriberSettings",
    "TriageOverride",
    "TriageSettings",
    "WebSettings",
    "WorklistSettings",
    "find_settings_file",
    "is_loopback",
    "load_settings",
]

WORKLIST_DESTINATION = "worklist"
"""Name of the destination that stands for the built-in reading list."""


class SettingsError(Exception):
    """The settings cannot be used: ``sentences`` says what is wrong and what to do, one for each problem."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class Settings(Section):
    """Everything a site sets. ``Settings()`` is a working agent on this machine without destinations."""

    dicom: DicomSettings = DicomSettings()
    study: StudySettings = StudySettings()
    storage: StorageSettings = StorageSettings()
    database: DatabaseSettings = DatabaseSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    triage: TriageSettings = TriageSettings()
    site: SiteSettings = SiteSettings()
    senders: tuple[SenderSettings, ...] = ()
    subscribers: tuple[SubscriberSettings, ...] = ()
    report: ReportSettings = ReportSettings()
    web: WebSettings = WebSettings()
    dicomweb: DicomwebSettings = DicomwebSettings()
    worklist: WorklistSettings = WorklistSettings()
    archive: ArchiveSettings = ArchiveSettings()
    audit: AuditSettings = AuditSettings()
    alarms: AlarmSettings = AlarmSettings()
    notices: NoticeSettings = NoticeSettings()
    destinations: tuple[Annotated[Destination, Field(discriminator="type")], ...] = ()
    peers: tuple[PeerSettings, ...] = ()

    @model_validator(mode="after")
    def _names_and_ports(self) -> Settings:
        counts = Counter(destination.name.lower() for destination in self.destinations)
        for name, count in counts.items():
            if count > 1:
                raise ValueError(f"{count} [[destinations]] are named {name!r}: give each its own name")
        if self.worklist.enabled and WORKLIST_DESTINATION in counts:
            raise ValueError(
                "a [[destinations]] is named 'worklist', the built-in list: rename it or set [worklist] enabled = false"
            )
        senders = Counter(sender.calling_ae for sender in self.senders)
        for calling_ae, count in senders.items():
            if count > 1:
                raise ValueError(f"{count} [[senders]] have the calling_ae {calling_ae!r}: keep one")
        peers = Counter(peer.ae_title for peer in self.peers)
        for ae_title, count in peers.items():
            if count > 1:
                raise ValueError(f"{count} [[peers]] have the ae_title {ae_title!r}: keep one")
        subscribers = Counter(subscriber.ae_title for subscriber in self.subscribers)
        for ae_title, count in subscribers.items():
            if count > 1:
                raise ValueError(f"{count} [[subscribers]] have the ae_title {ae_title!r}: keep one")
        ports = {"[dicom] port": self.dicom.port, "[web] port": self.web.port}
        if self.worklist.enabled:
            ports["[worklist] mllp_port"] = self.worklist.mllp_port
            if self.worklist.mllp_tls_port is not None:
                ports["[worklist] mllp_tls_port"] = self.worklist.mllp_tls_port
        for port, count in Counter(ports.values()).items():
            if count > 1:
                names = " and ".join(name for name, value in ports.items() if value == port)
                raise ValueError(f"{names} are both {port}: give each its own port")
        if self.study.max_open_s < self.study.quiet_period_s:
            raise ValueError("[study] max_open_s must not be less than quiet_period_s")
        return self

    @cached_property
    def spool(self) -> Path:
        """Absolute folder of this agent: films, results and, by default, the database."""
        return Path(os.path.abspath(self.storage.path.expanduser()))

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL in force: ``[database] url``, else SQLite inside the spool."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.spool / 'firstread.sqlite3'}"

    @property
    def all_destinations(self) -> tuple[Destination, ...]:
        """The site's destinations and, with ``[worklist] enabled``, the built-in list as one more."""
        if not self.worklist.enabled:
            return self.destinations
        host = self.worklist.mllp_host
        builtin = Hl7Destination(
            name=WORKLIST_DESTINATION,
            type="hl7",
            host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104
            port=self.worklist.mllp_port,
            # On this machine an outage is a restart: it is over in seconds.
            retry=RetrySettings(first_s=1, max_s=15),
        )
        return (*self.destinations, builtin)

    def destination(self, name: str) -> Destination | None:
        """The destination of that name (any case), None when there is none."""
        return next((each for each in self.all_destinations if each.name.lower() == name.lower()), None)

    def sender(self, calling_ae: str) -> SenderSettings | None:
        """What the site says of this sender, None when nothing."""
        return next((each for each in self.senders if each.calling_ae == calling_ae), None)

    def peer(self, ae_title: str) -> PeerSettings | DicomDestination | None:
        """The DICOM node of this AE title: one of the peers, else the destination that has it, else None."""
        known: list[PeerSettings | DicomDestination] = [*self.peers]
        known += [one for one in self.destinations if isinstance(one, DicomDestination)]
        return next((each for each in known if each.ae_title == ae_title), None)

    def masked(self) -> dict[str, Any]:
        """Everything in force as JSON knows it, secrets as ``********``."""
        shown: dict[str, Any] = plain(self)
        shown["storage"]["path"] = str(self.spool)
        shown["database"]["url"] = re.sub(r"://([^:/@]*):[^@]*@", r"://\1:********@", self.database_url)
        return shown


def find_settings_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read when none was named: $FIRSTREAD_CONFIG, ./firstread.toml or /etc/firstread/firstread.toml."""
    if environ.get("FIRSTREAD_CONFIG"):
        return Path(environ["FIRSTREAD_CONFIG"])
    candidates = (Path("firstread.toml"), Path("/etc/firstread/firstread.toml"))
    return next((path for path in candidates if path.is_file()), None)


def load_settings(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings of the file (None: defaults) with ``FIRSTREAD_SECTION__KEY`` of the environment on top.

    Relative paths in the file count from its folder, those of the environment from the working folder.
    Raises SettingsError with a sentence for each problem.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(path)
        _absolute(tree, path.absolute().parent)
    problems = merge_environment(tree, environ, _known_keys())
    problems += _read_secrets(tree)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(problems + sentences_for(error, Settings, tree)) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _known_keys() -> dict[str, frozenset[str]]:
    """The keys of each section that is one table."""
    return {
        name: frozenset(type(field.default).model_fields)
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, Section)
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError([f"{path} does not exist: write one with 'firstread init {path}'"]) from None
    except OSError as error:
        raise SettingsError([f"{path} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path} is not UTF-8 text: save it as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path} is not valid TOML: {error}"]) from None


SECRETS = (
    ("database", "url"),
    ("web", "password"),
    ("web", "password_hash"),
    ("dicomweb", "token"),
    ("notices", "smtp_password"),
    ("notices", "webhook_token"),
)
"""Keys whose value may stand in a file of its own, named by the key with ``_file`` behind it."""


def _absolute(tree: dict[str, Any], folder: Path) -> None:
    def settle(table: Any, key: str) -> None:
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
            table[key] = str(folder / Path(table[key]).expanduser())

    settle(tree.get("storage"), "path")
    settle(tree.get("study"), "eligibility_file")
    for section, key in SECRETS:
        settle(tree.get(section), f"{key}_file")
    for section in ("dicom", "web", "worklist"):
        for key in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
            settle(tree.get(section), key)
    for key in ("file", "tls_ca_file", "tls_certificate_file", "tls_key_file"):
        settle(tree.get("audit"), key)
    settle(tree.get("notices"), "tls_ca_file")
    for key in FILES_OF_A_SERVICE:
        settle(tree.get("archive"), key)
    for name in ("destinations", "peers", "subscribers"):
        tables = tree.get(name)
        for table in tables if isinstance(tables, list) else ():
            for key in FILES_OF_A_SERVICE:
                settle(table, key)
    analysis = tree.get("analysis")
    if isinstance(analysis, dict) and isinstance(analysis.get("bundle"), str) and "/" in analysis["bundle"]:
        settle(analysis, "bundle")


def _read_secrets(tree: dict[str, Any]) -> list[str]:
    problems = []
    for section, key in SECRETS:
        table = tree.get(section)
        if not isinstance(table, dict) or f"{key}_file" not in table:
            continue
        name = table.pop(f"{key}_file")
        if key in table:
            problems.append(f"[{section}] has both {key} and {key}_file: keep one")
        try:
            table[key] = Path(str(name)).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            problems.append(f"[{section}] {key}_file = {str(name)!r} cannot be read: {why}")
            table[key] = "unreadable"
    return problems
