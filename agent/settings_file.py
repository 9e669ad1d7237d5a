"""The settings as text for people: the file of ``firstread init``, what is in force, the page docs/settings.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from firstread.agent.config import (
    DEFAULT_PRIORITIES,
    DicomDestination,
    DicomwebDestination,
    Hl7Destination,
    PeerSettings,
    Settings,
    TriageSettings,
)
from firstread.agent.config_sections import (
    FindingRule,
    SenderSettings,
    SubscriberSettings,
    TriageOverride,
    WebSettings,
    WebUser,
    plain,
)
from firstread.agent.config_sentences import models_in
from firstread.models.prediction import Priority

_HEAD = """\
# Settings of Firstread. A line that begins with "#" and a space explains; a line that begins with "#" and no space
# shows the default: take the "#" away to change it. Every key can also come from the environment, which wins:
# FIRSTREAD_DICOM__AE_TITLE=FIRSTREAD is [dicom] ae_title. Check the file with: firstread config check
"""

_CHOSEN: Mapping[tuple[str, str], Any] = {
    ("dicom", "ae_title"): "FIRSTREAD",
    ("dicom", "port"): 11112,
    # A new site is often fed its archive first: without a limit a migration would raise last year's studies.
    ("study", "max_age_days"): 7,
    ("storage", "path"): "firstread-data",
}
"""What ``firstread init`` writes as set, because a site should look at it."""

_EXAMPLES: Mapping[tuple[str, str], str] = {
    ("web", "viewer_url"): '"https://viewer.example.org/viewer?StudyInstanceUIDs={study}"',
    ("web", "viewer_folder"): '"/var/lib/firstread-viewer"',
    ("archive", "host"): '"archive.example.org"',
    ("archive", "port"): "104",
    ("archive", "ae_title"): '"ARCHIVE"',
    ("archive", "calling_ae_title"): '"FIRSTREAD"',
    ("archive", "tls_ca_file"): '"/etc/firstread/ca.pem"',
    ("archive", "tls_certificate_file"): '"/etc/firstread/client.pem"',
    ("archive", "tls_key_file"): '"/etc/firstread/client.key"',
    ("archive", "token"): '"..."',
    ("archive", "token_file"): '"/etc/firstread/archive.token"',
    ("archive", "oauth2_token_url"): '"https://login.example.org/token"',
    ("archive", "oauth2_client_id"): '"firstread"',
    ("archive", "oauth2_client_secret"): '"..."',
    ("archive", "oauth2_client_secret_file"): '"/etc/firstread/archive.secret"',
    ("notices", "smtp_host"): '"mail.example.org"',
    ("notices", "webhook_url"): '"https://alerts.example.org/firstread"',
    ("notices", "tls_ca_file"): '"/etc/firstread/ca.pem"',
    ("dicom", "tls_certificate_file"): '"/etc/firstread/server.pem"',
    ("dicom", "tls_key_file"): '"/etc/firstread/server.key"',
    ("dicom", "tls_client_ca_file"): '"/etc/firstread/callers.pem"',
    ("web", "tls_certificate_file"): '"/etc/firstread/server.pem"',
    ("web", "tls_key_file"): '"/etc/firstread/server.key"',
    ("web", "tls_client_ca_file"): '"/etc/firstread/callers.pem"',
    ("worklist", "tls_certificate_file"): '"/etc/firstread/server.pem"',
    ("worklist", "tls_key_file"): '"/etc/firstread/server.key"',
    ("worklist", "tls_client_ca_file"): '"/etc/firstread/callers.pem"',
    ("worklist", "mllp_tls_port"): "2576",
    ("dicom", "maximum_per_calling_ae"): "8",
    ("study", "eligibility_file"): '"spellings.toml"',
    ("storage", "max_disk_percent"): "80",
    ("audit", "file"): '"/var/log/firstread/audit.log"',
    ("audit", "host"): '"audit.example.org"',
    ("audit", "tls_ca_file"): '"/etc/firstread/authority.pem"',
    ("audit", "tls_certificate_file"): '"/etc/firstread/client.pem"',
    ("audit", "tls_key_file"): '"/etc/firstread/client.key"',
    ("database", "url"): 'url_file = "/etc/firstread/database-url"',
    ("dicomweb", "token"): 'token_file = "/etc/firstread/dicomweb-token"',
    ("dicomweb", "oidc_issuer"): '"https://id.example.org/realms/hospital"',
    ("dicomweb", "oidc_audience"): '"firstread"',
    ("web", "password"): 'password_file = "/etc/firstread/web-password"',
    ("web", "password_hash"): 'password_hash = "$argon2id$..."',
}
"""Keys without a default, as a site would write them (a whole line where the key differs)."""


def toml_value(value: Any) -> str:
    """A settings value as TOML writes it; empty for None, which TOML does not know."""
    shown = plain(value)
    if shown is None:
        return ""
    if isinstance(shown, float) and shown.is_integer():
        return str(int(shown))
    if isinstance(shown, list):
        return "[" + ", ".join(toml_value(item) for item in shown) + "]"
    if isinstance(shown, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in shown.items() if item is not None) + "}"
    return json.dumps(shown, ensure_ascii=False)


def _scalars(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    return ((name, field) for name, field in model.model_fields.items() if not models_in(field.annotation))


def _subsections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Keys that are one table of their own, such as ``retry``."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield name, type(field.default)


def _lines(section: str, model: type[BaseModel]) -> Iterator[str]:
    for key, field in _scalars(model):
        yield f"# {field.description}"
        if (section, key) in _CHOSEN:
            yield f"{key} = {toml_value(_CHOSEN[section, key])}"
        elif field.default is None:
            example = _EXAMPLES[section, key]
            yield "# Not set; for example: " + (example if " = " in example else f"{key} = {example}")
        else:
            yield f"#{key} = {toml_value(field.default)}"


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    yield from ("", f"# {_first_line(model)}", f"[{name}]", *_lines(name, model))
    for key, inner in _subsections(model):
        yield from ("", f"# {_first_line(inner)}", f"[{name}.{key}]", *_lines(f"{name}.{key}", inner))


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _example(title: str, table: str, model: type[BaseModel], given: Mapping[str, Any]) -> Iterator[str]:
    """A commented table of a list: what must be given first, then every default."""
    yield from ("", f"# {title}", f"#[[{table}]]")
    yield from (f"#{key} = {toml_value(value)}" for key, value in given.items())
    for key, field in _scalars(model):
        if key not in given and field.default is not None:
            yield f"# {field.description}"
            yield f"#{key} = {toml_value(field.default)}"
    for key, inner in _subsections(model):
        yield f"# {_first_line(inner)}"
        yield f"#{key} = {toml_value(inner())}"


def _triage_findings() -> Iterator[str]:
    yield from ("", "# What each finding asks for; a threshold that is not set is the model's own operating point.")
    for label, priority in DEFAULT_PRIORITIES.items():
        yield f"#[triage.findings.{label}]"
        yield f'#priority = "{priority.name if isinstance(priority, Priority) else "none"}"'
    yield "# Other rules for the films of one station, sender (calling_ae) or institution:"
    yield from ("#[[triage.overrides]]", '#station = "ICU-PORTABLE"')
    yield '#findings = {Pneumothorax = {threshold = 0.7}, Effusion = {priority = "none"}}'


def render_template() -> str:
    """A commented settings file: it loads as it is, and every commented default is the default in force."""
    lines: list[str] = [_HEAD.rstrip()]
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            lines += _section(name, type(field.default))
            if isinstance(field.default, TriageSettings):
                lines += _triage_findings()
            if isinstance(field.default, WebSettings):
                lines += ["# More logins (users), readers or admins; for example:", "# [[web.users]]"]
                lines += ['# name = "reading-room"', '# role = "reader"', '# password_hash = "$argon2id$..."']
    lines += _example(
        "What one sender's films do not say.",
        "senders",
        SenderSettings,
        {"calling_ae": "CT_GATEWAY", "assigning_authority": "HOSPITAL"},
    )
    lines += _example(
        "A workstation that subscribes to work items over DICOM.",
        "subscribers",
        SubscriberSettings,
        {"ae_title": "READING_1", "host": "reading-1.example.org", "port": 11113},
    )
    pacs = {"name": "PACS", "type": "dicom", "host": "pacs.example.org", "port": 104, "ae_title": "PACS"}
    lines += _example(
        "A PACS that gets report and heat map into the same study.", "destinations", DicomDestination, pacs
    )
    archive = {"name": "ARCHIVE", "type": "dicomweb", "url": "https://archive.example.org/dicom-web"}
    lines += _example("The same over HTTP, by STOW-RS.", "destinations", DicomwebDestination, archive)
    ris = {"name": "RIS", "type": "hl7", "host": "ris.example.org", "port": 2575}
    lines += _example("A RIS or worklist that reads the priority.", "destinations", Hl7Destination, ris)
    peer = {"ae_title": "WORKSTATION", "host": "reading1.example.org", "port": 104}
    lines += _example(
        "A node that asks us and is answered elsewhere (C-MOVE, storage commitment).", "peers", PeerSettings, peer
    )
    return "\n".join(lines) + "\n"


def render_in_force(settings: Settings) -> str:
    """Everything in force as TOML, secrets masked, keys without a value left out."""
    lines: list[str] = []
    for section, values in settings.masked().items():
        for table in values if isinstance(values, list) else [values]:
            lines += ["", f"[[{section}]]" if isinstance(values, list) else f"[{section}]"]
            lines += [f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines[1:]) + "\n"


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "whole number"),
    (float, "number"),
    (str, "text"),
    (Path, "path"),
)


def _kind(annotation: Any) -> str:
    """What a value looks like, in words."""
    if get_origin(annotation) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(annotation))
    arguments = [each for each in get_args(annotation) if each is not type(None) and each is not Ellipsis]
    if get_origin(annotation) in (tuple, list):
        return f"list of {_kind(arguments[0])}"
    if get_origin(annotation) is dict:
        return "table"
    for kind, words in _KINDS:
        if isinstance(annotation, type) and issubclass(annotation, kind) and annotation is not Priority:
            return words
    inner = [_kind(each) for each in arguments if isinstance(each, type) or get_origin(each)]
    return inner[0] if inner else "text"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | value | default | why |"
    yield "|---|---|---|---|"
    for key, field in _scalars(model):
        if field.is_required():
            default = "must be given"
        else:
            default = f"`{toml_value(field.default)}`" if field.default is not None else "not set"
        words = "STAT, URGENT or none" if model is FindingRule and key == "priority" else _kind(field.annotation)
        yield f"| `{key}` | {words} | {default} | {field.description} |".replace("SecretStr", "text")
    yield ""


def render_reference() -> str:
    """docs/settings.md: every key of every section, from the models that are in force."""
    lines = [
        "# Settings",
        "",
        "This page is written from the settings models: `python -m firstread.agent.settings_file > docs/settings.md`.",
        "",
        "One TOML file (`firstread init` writes one) and the environment, which wins: `FIRSTREAD_DICOM__AE_TITLE` is",
        "`[dicom] ae_title`. In lists of tables a position or a name follows: `FIRSTREAD_DESTINATIONS__PACS__HOST`. An",
        "empty variable counts as not given. Lists are written as in TOML. `[web] password`, `[web] password_hash`,",
        "`[database] url`, `[notices] smtp_password` and `[notices] webhook_token` may stand in files of their own:",
        '`password_file = "..."`. Relative paths in the file count from its folder. A key that does not exist is an',
        "error that names the nearest one.",
        "",
    ]
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            model = type(field.default)
            lines += [f"## [{name}]", "", _first_line(model), "", *_rows(model)]
            for key, inner in _subsections(model):
                lines += [f"### [{name}.{key}]", "", _first_line(inner), "", *_rows(inner)]
    lines += ["## [triage.findings.LABEL]", "", _first_line(FindingRule), "", *_rows(FindingRule)]
    lines += ["| finding | priority where the site says nothing |", "|---|---|"]
    lines += [
        f"| {label} | {priority.name if priority else 'none'} |" for label, priority in DEFAULT_PRIORITIES.items()
    ]
    lines += ["", "## [[triage.overrides]]", "", _first_line(TriageOverride), "", *_rows(TriageOverride)]
    lines += ["## [[web.users]]", "", _first_line(WebUser), "", *_rows(WebUser)]
    lines += ["## [[senders]]", "", _first_line(SenderSettings), "", *_rows(SenderSettings)]
    lines += ["## [[subscribers]]", "", _first_line(SubscriberSettings), "", *_rows(SubscriberSettings)]
    for kind in (DicomDestination, DicomwebDestination, Hl7Destination):
        tag = get_args(kind.model_fields["type"].annotation)[0]
        lines += [f'## [[destinations]] of type "{tag}"', "", _first_line(kind), "", *_rows(kind)]
    lines += ["## [[peers]]", "", _first_line(PeerSettings), "", *_rows(PeerSettings)]
    for key, inner in dict((*_subsections(DicomDestination), *_subsections(Hl7Destination))).items():
        lines += [f"### {key} of a destination", "", _first_line(inner), "", *_rows(inner)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(render_reference(), end="")
