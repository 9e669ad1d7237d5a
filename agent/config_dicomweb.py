"""What a site can set of the DICOMweb services: who may use them and how much they take."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from firstread.agent.config_sections import Section


class DicomwebSettings(Section):
    """DICOMweb at /dicom-web of the [web] address: open where only this machine can reach it, else to those named."""

    enabled: bool = Field(True, description="Take films and answer queries over HTTP (STOW-RS, QIDO-RS, WADO-RS).")
    token: SecretStr | None = Field(
        None, description="Bearer token that lets a sender or viewer in; better in a file: token_file."
    )
    oidc_issuer: str | None = Field(
        None, description="OpenID provider whose access tokens (JWT) let in; its keys are found by discovery."
    )
    oidc_audience: str | None = Field(None, description="Audience (aud) that such a token must name.")
    trust_client_certificates: bool = Field(
        False, description="Let in whoever showed a certificate that [web] tls_client_ca_file vouches for."
    )
    max_instance_mb: int = Field(4095, ge=1, le=4095, description="Larger instances are refused (413).")
    max_stores: int = Field(8, ge=1, description="Store requests at the same time; more are told to wait (503).")

    @property
    def needs_token(self) -> bool:
        """True when callers are asked for a token or a certificate, also on this machine."""
        return self.token is not None or self.oidc_issuer is not None or self.trust_client_certificates

    @model_validator(mode="after")
    def _sound(self) -> DicomwebSettings:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("oidc_issuer and oidc_audience go together: without it any token of the provider would do")
        if self.oidc_issuer is not None and not self.oidc_issuer.startswith(("https://", "http://")):
            raise ValueError("oidc_issuer is the provider's address, beginning with https://")
        if self.token is not None and len(self.token.get_secret_value()) < 16:
            raise ValueError("the token is shorter than 16 characters: anybody could guess it")
        return self
