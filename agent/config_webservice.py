"""What a site sets of a DICOMweb service that we ask: its address, its TLS, and how it lets us in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from firstread.agent.config_sections import AETitle, Host, Port, Seconds, Section

FILES_OF_A_SERVICE = (
    "tls_ca_file",
    "tls_certificate_file",
    "tls_key_file",
    "token_file",
    "oauth2_client_secret_file",
)
"""Keys that are paths; relative ones count from the settings file."""


def http_address(value: str) -> str:
    """An http or https address without name and password. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("give an address that begins with https:// or http://, without ? and #")
    if parts.username or parts.password:
        raise ValueError("name and password do not belong into the address: use token or oauth2_...")
    return value.rstrip("/")


class WebServiceSection(Section):
    """Where a DICOMweb service is, and how we are let in: openly, by a token, or by OAuth2 client credentials."""

    url: str = Field(description="Its base address: what stands before /studies, such as https://pacs/dicom-web.")
    connect_timeout_s: Seconds = Field(10, description="Wait for the connection.")
    answer_timeout_s: Seconds = Field(60, description="For one request with its whole answer, however slowly it comes.")
    tls_ca_file: Path | None = Field(None, description="Certificates to trust; unset: the system's.")
    tls_certificate_file: Path | None = Field(None, description="Our certificate, where the service asks for one.")
    tls_key_file: Path | None = Field(None, description="Key of our certificate.")
    token: SecretStr | None = Field(None, description="Bearer token that lets us in; better in a file.")
    token_file: Path | None = Field(None, description="File with the token; read for each request, so it may change.")
    oauth2_token_url: str | None = Field(
        None, description="Where client credentials are turned into tokens (OAuth2); they are renewed in time."
    )
    oauth2_client_id: str | None = Field(None, description="Our client identifier there.")
    oauth2_client_secret: SecretStr | None = Field(None, description="Our secret there; better in a file.")
    oauth2_client_secret_file: Path | None = Field(None, description="File with the secret.")
    oauth2_scope: str = Field("", description="Scopes to ask for, with spaces between them.")

    @field_validator("url", "oauth2_token_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return value if value is None else http_address(value)

    @property
    def encrypted(self) -> bool:
        """True when the connection is encrypted."""
        return self.url.startswith("https://")

    @model_validator(mode="after")
    def _let_in(self) -> WebServiceSection:
        if self.url and not self.encrypted and (self.tls_ca_file or self.tls_certificate_file):
            raise ValueError("tls_... files are given but url begins with http://")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        for key in ("token", "oauth2_client_secret"):
            if getattr(self, key) is not None and getattr(self, f"{key}_file") is not None:
                raise ValueError(f"both {key} and {key}_file are given: keep one")
        by_token = self.token is not None or self.token_file is not None
        secret = self.oauth2_client_secret is not None or self.oauth2_client_secret_file is not None
        oauth2 = (self.oauth2_token_url is not None, self.oauth2_client_id is not None, secret)
        if any(oauth2) and not all(oauth2):
            raise ValueError("oauth2_token_url, oauth2_client_id and its secret go together")
        if by_token and any(oauth2):
            raise ValueError("both a token and oauth2_... are given: keep one")
        return self


class ArchiveSettings(WebServiceSection):
    """Where films are fetched from: those that were deleted here when their days were over, and studies for trials."""

    type: Literal["dicomweb", "dimse"] = Field(
        "dicomweb", description="dicomweb: QIDO-RS and WADO-RS at url; dimse: C-FIND and C-GET at host and port."
    )
    url: str = Field("", description="Base address of its DICOMweb services; empty: there is none to fetch from.")
    host: Host | None = Field(None, description="With type dimse: host of the archive.")
    port: Port | None = Field(None, description="With type dimse: port of the archive.")
    ae_title: AETitle | None = Field(None, description="With type dimse: AE title of the archive.")
    calling_ae_title: AETitle | None = Field(None, description="Our AE title towards it; unset: [dicom] ae_title.")
    retrieve: Literal["get", "move"] = Field(
        "get", description="With type dimse: C-GET, or C-MOVE to our AE title where the archive knows no C-GET."
    )
    tls: bool = Field(False, description="With type dimse: speak TLS. With dicomweb the url says it.")
    acse_timeout_s: Seconds = Field(30, description="With type dimse: wait for the association to be accepted.")
    dimse_timeout_s: Seconds = Field(60, description="With type dimse: longest silence in the middle of an answer.")
    answer_timeout_s: Seconds = Field(900, description="For one study with all its films, however slowly it comes.")

    @field_validator("url", "oauth2_token_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return http_address(value) if value else value

    @property
    def encrypted(self) -> bool:
        """True when the connection is encrypted."""
        return self.tls or self.url.startswith("https://")

    @property
    def named(self) -> bool:
        """True when there is an archive."""
        return bool(self.url or self.host)

    @model_validator(mode="after")
    def _one_way(self) -> ArchiveSettings:
        place = (self.host, self.port, self.ae_title)
        if self.type == "dicomweb" and (any(place) or self.tls):
            raise ValueError('host, port, ae_title and tls go with type = "dimse"; a DICOMweb archive has its url')
        if self.type == "dimse":
            if self.url or self.token or self.token_file or self.oauth2_token_url:
                raise ValueError('url, token and oauth2_... go with type = "dicomweb"')
            if not all(place):
                raise ValueError('type = "dimse" needs host, port and ae_title')
            if not self.tls and (self.tls_ca_file or self.tls_certificate_file):
                raise ValueError("tls_... files are given but tls is false")
        return self
