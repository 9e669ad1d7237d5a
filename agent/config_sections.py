"""What a site can set: one frozen pydantic model per section of the settings file, each field with one line of why.

The descriptions are what a user reads: the file that ``firstread init`` writes and docs/settings.md come from them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    model_validator,
)

from firstread.models.findings import PATHOLOGIES
from firstread.models.prediction import Priority


class Section(BaseModel):
    """A table of the settings file: unknown keys are errors, values never change after start."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _ae_title(value: str) -> str:
    title = value.strip(" ")
    if not title or len(title) > 16:
        raise ValueError("an AE title has 1 to 16 characters")
    if not all(" " <= character <= "~" and character != "\\" for character in title):
        raise ValueError("an AE title has only ASCII characters and no backslash")
    return title


def _host(value: str) -> str:
    if not value or re.search(r"\s|/", value):
        raise ValueError("give a host name or an address, without spaces, scheme or port")
    return value


def _raised_priority(value: object) -> Priority | Literal["none"] | None:
    name = value.strip().upper() if isinstance(value, str) else value
    if name == "NONE":
        return "none"
    if name is None or isinstance(name, Priority):
        return name
    if name in ("STAT", "URGENT"):
        return Priority[str(name)]
    raise ValueError("a finding's priority is one of STAT, URGENT, none")


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Network = Annotated[str, AfterValidator(_network)]
RaisedPriority = Annotated[Priority | Literal["none"] | None, PlainValidator(_raised_priority)]
Seconds = Annotated[float, Field(gt=0)]


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and addresses that only this machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Served(Section):
    """TLS of an address that we listen on."""

    tls_certificate_file: Path | None = Field(
        None, description="Our certificate with its chain (PEM); when set, the port speaks TLS 1.2 and 1.3 alone."
    )
    tls_key_file: Path | None = Field(None, description="Key of our certificate (PEM, without passphrase).")
    tls_client_ca_file: Path | None = Field(
        None, description="Whose certificates callers must show (mutual TLS); unset: none is asked for."
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file and tls_key_file")
        return self

    @property
    def tls(self) -> bool:
        """True when the port speaks TLS."""
        return self.tls_certificate_file is not None


class DicomSettings(_Served):
    """Where and from whom films are received (C-STORE)."""

    ae_title: AETitle = Field("FIRSTREAD", description="Our AE title, as the PACS is told it.")
    host: Host = Field("0.0.0.0", description="Address to listen on; every interface, since the PACS is elsewhere.")  # noqa: S104
    port: Port = Field(11112, description="Port to listen on; 11112 is registered for DICOM and needs no root.")
    check_called_ae: bool = Field(
        True, description="Refuse a sender that calls us by another name: a wrong route shows."
    )
    allowed_calling_ae: tuple[AETitle, ...] = Field((), description="AE titles that may send; empty: any.")
    allowed_addresses: tuple[Network, ...] = Field((), description="Addresses or networks that may send; empty: any.")
    maximum_associations: int = Field(40, ge=1, description="Associations at once; more are refused for the moment.")
    maximum_per_calling_ae: int = Field(
        16, ge=1, description="Associations at once of one sender, so that a migration leaves room for the rest."
    )
    maximum_pdu_length: int = Field(
        131072, ge=4096, le=2**20, description="Largest PDU we ask for: larger reads cost less."
    )
    acse_timeout_s: Seconds = Field(30, description="Wait for an association to be asked for or ended.")
    dimse_timeout_s: Seconds = Field(
        900, description="A whole film must have come after this: slow lines, 40 MB films."
    )
    network_idle_timeout_s: Seconds = Field(300, description="An association on which nothing is said ends after this.")
    pdu_deadline_s: Seconds = Field(60, description="A whole PDU must have come after this: a trickle holds no place.")


class StudySettings(Section):
    """When a study is complete and which studies are analysed."""

    quiet_period_s: Seconds = Field(10, description="A study is summed up when no image came for so long.")
    max_open_s: Seconds = Field(300, description="A study that never goes quiet is summed up after so long anyway.")
    max_age_days: int | None = Field(
        None,
        ge=0,
        description="Older studies (StudyDate) are kept but not analysed: priors and migrations; unset: no limit.",
    )
    minimum_age_years: float = Field(
        18,
        ge=0,
        description="Younger are not analysed: children's chests differ; under 18 are 4.8 % of NIH's films.",
    )
    eligibility_file: Path | None = Field(
        None, description="TOML with the site's own spellings for body parts and views, added to those that are known."
    )


class StorageSettings(Section):
    """Where received films and results are kept."""

    path: Path = Field(Path("firstread-data"), description="Folder of this agent; relative to the settings file.")
    reserve_mb: int = Field(
        2048, ge=0, description="Below so much free disk a film is refused (A700), so the PACS sends it again."
    )
    keep_days: int | None = Field(
        30, ge=1, description="Films of finished studies are deleted after so long; unset: never."
    )
    max_disk_percent: int | None = Field(
        None, ge=1, le=99, description="With more of the disk in use, finished studies' films go, oldest first."
    )


class DatabaseSettings(Section):
    """Where states are kept."""

    url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL: postgresql+psycopg://user@host/firstread; unset: SQLite inside [storage] path.",
    )


class AnalysisSettings(Section):
    """The model and how it is run."""

    bundle: str = Field("reference", description="Name of a bundle that is shipped, or the path of a bundle's folder.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a CUDA device where there is one.")
    batch_size: int = Field(8, ge=1, le=256, description="Most images in one pass through the network.")
    batch_wait_ms: int = Field(50, ge=0, description="Wait so long for a batch to fill; a lone film should not wait.")
    decode_workers: int = Field(2, ge=1, description="Films decoded at the same time.")
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0: one for each core.")
    max_attempts: int = Field(
        3, ge=1, description="What fails so often is not analysed, with the reason 'processing failed'."
    )
    max_waiting: int = Field(
        20_000, ge=1, description="With so many films waiting new associations are refused until it is fewer."
    )
    film_timeout_s: Seconds = Field(120, description="One film may take so long before its attempt counts as failed.")


def label_of(name: str) -> str:
    """The label that ``name`` means whatever its case, spaces or underscores; ValueError when there is none."""
    plain = re.sub(r"[\s_-]+", "_", name.strip()).lower()
    for label in PATHOLOGIES:
        if label.lower() == plain:
            return label
    raise ValueError(f"{name!r} is not a finding; the findings are {', '.join(PATHOLOGIES)}")


def _labels(value: object) -> object:
    return {label_of(str(name)): rule for name, rule in value.items()} if isinstance(value, Mapping) else value


class FindingRule(Section):
    """What one finding does to the priority."""

    threshold: float | None = Field(
        None, ge=0, le=1, description="Probability from which it counts; unset: the bundle's operating point."
    )
    priority: RaisedPriority = Field(None, description="STAT, URGENT or none; unset: the table of defaults.")
    use_experimental: bool | None = Field(
        None, description="Let this finding raise though the bundle calls it experimental."
    )


FindingRules = Annotated[Mapping[str, FindingRule], BeforeValidator(_labels)]


class TriageOverride(Section):
    """Other rules for films of one station, sender or institution; every selector that is given must match."""

    station: str = Field("", description="StationName (0008,1010).")
    calling_ae: str = Field("", description="AE title that sent the film.")
    institution: str = Field("", description="InstitutionName (0008,0080).")
    findings: FindingRules = Field({}, description="As [triage.findings]; what is unset stays as it is there.")

    @model_validator(mode="after")
    def _selects(self) -> TriageOverride:
        if not (self.station or self.calling_ae or self.institution):
            raise ValueError("name the station, calling_ae or institution that it is for")
        return self


DEFAULT_PRIORITIES: Mapping[str, Priority | None] = MappingProxyType(
    {
        # Minutes count: a tension pneumothorax kills while it waits.
        "Pneumothorax": Priority.STAT,
        # Hours count: fluid, infection or failure that is treated today.
        "Consolidation": Priority.URGENT,
        "Edema": Priority.URGENT,
        "Effusion": Priority.URGENT,
        "Pneumonia": Priority.URGENT,
        # Days count, but it is the finding that is most costly to leave at the end of a long list.
        "Mass": Priority.URGENT,
        # Chronic, frequent or too unspecific: raising a fifth of the list raises nothing.
        "Atelectasis": None,
        "Cardiomegaly": None,
        "Emphysema": None,
        "Fibrosis": None,
        "Hernia": None,
        "Infiltration": None,
        "Nodule": None,
        "Pleural_Thickening": None,
    }
)
"""What each finding asks for where the site says nothing; None raises nothing."""


class TriageSettings(Section):
    """Which findings raise a study, and how far."""

    use_experimental: bool = Field(False, description="Let findings raise that the bundle calls experimental.")
    findings: FindingRules = Field({}, description="A table for each finding: [triage.findings.Pneumothorax].")
    overrides: tuple[TriageOverride, ...] = Field((), description="Other rules for one station, sender or institution.")

    def priority_of(self, label: str) -> Priority | None:
        """The priority that ``label`` asks for at this site, overrides left aside; None raises nothing."""
        rule = self.findings.get(label)
        if rule is None or rule.priority is None:
            return DEFAULT_PRIORITIES[label]
        return None if rule.priority == "none" else rule.priority


class SiteSettings(Section):
    """Who we are in the messages."""

    name: str = Field("", description="Name of the hospital, shown on the page and sent as MSH-4.")
    assigning_authority: str = Field("", description="Issuer of patient identifiers (PID-3.4) where a film names none.")
    language: str = Field("en", pattern=r"^en(-[A-Z]{2})?$", description="Reports are in English; en-GB or the like.")
    use_test_processing_id: bool = Field(
        False, description="Send messages as tests (MSH-11 = T): for a trial with the RIS."
    )


AccessionSource = Literal["AccessionNumber", "RequestAttributesSequence"]


class SenderSettings(Section):
    """What is known of one sender that its films do not say."""

    calling_ae: AETitle = Field(description="AE title of the sender.")
    assigning_authority: str = Field("", description="Issuer of the patient identifiers that it sends.")
    accession_from: Annotated[tuple[AccessionSource, ...], BeforeValidator(_one_or_more)] = Field(
        ("AccessionNumber", "RequestAttributesSequence"),
        min_length=1,
        description="Where its accession number stands, tried in order.",
    )


class SubscriberSettings(Section):
    """A workstation that may subscribe to work items over DICOM; events go to it as N-EVENT-REPORT."""

    ae_title: AETitle = Field(description="AE title of the workstation.")
    host: Host = Field(description="Its name or address.")
    port: Port = Field(description="Its port for event reports.")
    tls: bool = Field(False, description="Encrypt the connection (TLS).")
    tls_ca_file: Path | None = Field(None, description="Certificates to trust; unset: the system's.")
    tls_certificate_file: Path | None = Field(None, description="Our certificate, where the workstation asks for one.")
    tls_key_file: Path | None = Field(None, description="Key of our certificate.")

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if not self.tls and (self.tls_ca_file or self.tls_certificate_file or self.tls_key_file):
            raise ValueError("tls_... files are given but tls is false")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        return self


class ReportSettings(Section):
    """How our objects stand in the study."""

    sr_series_number: int = Field(9901, ge=1, le=2**31 - 1, description="High, so that it stands after the films.")
    sr_series_description: str = Field(
        "Firstread AI report, not a diagnosis", min_length=1, max_length=64, description="Shown by viewers."
    )
    heatmap_series_number: int = Field(9902, ge=1, le=2**31 - 1, description="High, so that it stands after the films.")
    heatmap_series_description: str = Field(
        "Firstread AI heat map, not for diagnosis", min_length=1, max_length=64, description="Shown by viewers."
    )

    @model_validator(mode="after")
    def _apart(self) -> ReportSettings:
        if self.sr_series_number == self.heatmap_series_number:
            raise ValueError("sr_series_number and heatmap_series_number must differ")
        return self


class WebUser(Section):
    """One more login of the page."""

    name: str = Field(min_length=1, max_length=64, description="Name for the login.")
    role: Literal["reader", "admin"] = Field(
        "reader", description="reader: sees everything, changes nothing; admin: also takes off, sends again, releases."
    )
    password_hash: SecretStr = Field(description="What `firstread password` prints.")

    @model_validator(mode="after")
    def _hashed(self) -> Self:
        _require_hash(self.password_hash)
        return self


def _require_hash(value: SecretStr) -> None:
    from firstread.agent.password import is_hash

    if not is_hash(value.get_secret_value()):
        raise ValueError("password_hash is not a hash that `firstread password` wrote (it begins with $argon2id$)")


class WebSettings(_Served):
    """The page and the operating endpoints (HTTP)."""

    host: Host = Field(
        "127.0.0.1", description="Address to listen on; any other than this machine's own needs a login."
    )
    port: Port = Field(8080, description="Port to listen on.")
    username: str = Field("firstread", min_length=1, description="Name for the login.")
    password: SecretStr | None = Field(None, description="Password for the login; better in a file: password_file.")
    password_hash: SecretStr | None = Field(None, description="Instead of a password, its hash.")
    viewer_url: str | None = Field(
        None,
        description="Address of a viewer that an opened study links to; {study} stands for its Study Instance UID.",
    )
    viewer_folder: Path | None = Field(
        None, description="Folder of the viewer that deploy/fetch_viewer.py fetched; served at /viewer, linked to."
    )
    users: tuple[WebUser, ...] = Field((), description="More logins, readers or admins; username is an admin.")

    @property
    def needs_login(self) -> bool:
        """True when a login is set: then every page with patient data asks for it."""
        return self.password is not None or self.password_hash is not None or bool(self.users)

    def is_admin(self, username: str) -> bool:
        """True when this login may change things; without any login everybody on this machine may."""
        if not self.needs_login:
            return True
        named = next((user for user in self.users if user.name == username), None)
        if named is not None:
            return named.role == "admin"
        return username == self.username and (self.password is not None or self.password_hash is not None)

    def knows(self, username: str) -> bool:
        """True when a login of this name exists."""
        own = self.password is not None or self.password_hash is not None
        return (own and username == self.username) or any(user.name == username for user in self.users)

    def accepts(self, username: str, password: str) -> bool:
        """True when this is the login that is set; compares in constant time."""
        from firstread.agent.password import password_matches, same_text

        named = next((user for user in self.users if user.name == username), None)
        if named is not None:
            return password_matches(password, named.password_hash.get_secret_value())
        if self.users and not self.knows(username):
            # As slow as for a name that exists: nobody learns the names by the clock.
            password_matches(password, self.users[0].password_hash.get_secret_value())
            return False
        known = same_text(username, self.username)
        if self.password_hash is not None:
            return password_matches(password, self.password_hash.get_secret_value()) and known
        return self.password is not None and same_text(password, self.password.get_secret_value()) and known

    @model_validator(mode="after")
    def _viewer(self) -> Self:
        if self.viewer_url is not None and not re.match(r"(https?://|/)\S*\{study\}", self.viewer_url):
            raise ValueError(
                f"viewer_url = {self.viewer_url!r} must begin with https://, http:// or / and hold {{study}}"
            )
        return self

    @model_validator(mode="after")
    def _login(self) -> WebSettings:
        if self.password is not None and self.password_hash is not None:
            raise ValueError("give password or password_hash, not both")
        if self.password is not None and not self.password.get_secret_value():
            raise ValueError("the password is empty")
        if self.password_hash is not None:
            _require_hash(self.password_hash)
        names = [user.name for user in self.users] + ([self.username] if self.password or self.password_hash else [])
        if len(set(names)) != len(names):
            raise ValueError("two logins have the same name: give each its own")
        if not is_loopback(self.host) and not self.needs_login:
            raise ValueError(
                f"other machines can reach host = {self.host!r}: set username and password_file, or host = '127.0.0.1'"
            )
        return self


class LongestWait(Section):
    """Minutes after which a study rises whatever its result."""

    STAT: float = Field(30, gt=0, description="Nothing urgent waits longer.")
    URGENT: float = Field(120, gt=0, description="Within the hours that count.")
    ROUTINE: float = Field(480, gt=0, description="Within the working day, so that routine studies do not starve.")


class WorklistSettings(_Served):
    """The built-in reading list: it reads HL7 as any RIS would."""

    enabled: bool = Field(True, description="Keep a reading list and show it on the page.")
    mllp_host: Host = Field("127.0.0.1", description="Address to listen on for orders and results.")
    mllp_port: Port = Field(2575, description="Port to listen on; 2575 is registered for HL7.")
    mllp_tls_host: Host = Field("0.0.0.0", description="Address to listen on with TLS; every interface.")  # noqa: S104
    mllp_tls_port: Port | None = Field(
        None, description="A second port that speaks TLS, for senders on other machines; needs tls_certificate_file."
    )
    longest_wait_min: LongestWait = Field(LongestWait(), description="Minutes, for each priority.")

    @model_validator(mode="after")
    def _tls_port(self) -> Self:
        if (self.mllp_tls_port is None) != (self.tls_certificate_file is None):
            raise ValueError("mllp_tls_port and tls_certificate_file go together")
        return self


class AuditSettings(Section):
    """Where DICOM audit messages go (PS3.15 A.5, as syslog); to nowhere unless a file or a host is named."""

    file: Path | None = Field(None, description="Append records to this file, one on a line.")
    host: Host | None = Field(None, description="Audit repository that takes syslog over TLS or TCP.")
    port: Port = Field(6514, description="Its port; 6514 is registered for syslog over TLS.")
    tls: bool = Field(True, description="Encrypt the connection; the messages name patients by their identifiers.")
    tls_ca_file: Path | None = Field(None, description="Certificates to trust; unset: the system's.")
    tls_certificate_file: Path | None = Field(None, description="Our certificate, where the repository asks for one.")
    tls_key_file: Path | None = Field(None, description="Key of our certificate.")

    @property
    def wanted(self) -> bool:
        """True when messages are written."""
        return self.file is not None or self.host is not None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.file is not None and self.host is not None:
            raise ValueError("give file or host, not both")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        return self


Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


class AlarmSettings(Section):
    """From when on something is an alarm."""

    silent_after_h: float = Field(
        4, ge=0, description="No study for so many hours of working time is an alarm; 0: silence is none."
    )
    working_days: tuple[Day, ...] = Field(("Mon", "Tue", "Wed", "Thu", "Fri"), description="Days on which films come.")
    working_from: time = Field(time(8), description="Beginning of working time, in this machine's zone.")
    working_to: time = Field(time(18), description="Its end; the same as its beginning: round the clock.")
    expected_senders: tuple[AETitle, ...] = Field(
        (), description="Calling AE titles of which each must send; empty: all of them count together."
    )
    waiting_after_min: float = Field(10, gt=0, description="A film that waits longer to be analysed is an alarm.")


class NoticeSettings(Section):
    """Alarms as e-mail and to a webhook; to nowhere unless one is named. They name no patient."""

    least_severity: Literal["warning", "critical"] = Field("warning", description="critical: warnings are not sent.")
    repeat_h: float = Field(24, gt=0, description="What still stands after so long is told again.")
    email_to: tuple[str, ...] = Field((), description="Addresses that get an e-mail.")
    email_from: str = Field("", description="Sender's address; empty: firstread@ this machine's name.")
    smtp_host: Host | None = Field(None, description="Mail server that takes our e-mail.")
    smtp_port: Port = Field(587, description="Its port; 587 is registered for submission, 465 for TLS at once.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="tls: from the first byte; none: in the clear, for a server on this machine."
    )
    smtp_user: str = Field("", description="Login at the mail server, where it asks for one.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Its password.")
    webhook_url: str | None = Field(None, description="Gets JSON by POST: a chat room, an incident system.")
    webhook_token: SecretStr = Field(SecretStr(""), description="Sent as a bearer token, where it asks for one.")
    tls_ca_file: Path | None = Field(None, description="Certificates to trust; unset: the system's.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.email_to) != (self.smtp_host is not None):
            raise ValueError("email_to and smtp_host go together")
        for address in (*self.email_to, *([self.email_from] if self.email_from else [])):
            if not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", address):
                raise ValueError(f"{address!r} is no e-mail address")
        if self.webhook_url is not None and not re.match(r"https?://[^/\s]+", self.webhook_url):
            raise ValueError(f"webhook_url = {self.webhook_url!r} must begin with https:// (or http://) and a host")
        if self.smtp_user and self.smtp_security == "none" and not is_loopback(self.smtp_host or ""):
            raise ValueError('smtp_user would be sent in the clear: set smtp_security = "starttls" or "tls"')
        return self


def plain(value: Any) -> Any:
    """A settings value as JSON and TOML know it: priorities by name, paths as text, secrets masked."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    if isinstance(value, Priority):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value
