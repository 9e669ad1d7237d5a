"""TLS for what we listen on and for what we call: BCP 195 contexts, renewed certificates, and when one runs out."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger()

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
"""For TLS 1.2: forward secrecy and authenticated encryption alone (RFC 9325 4.2; DICOM PS3.15 B.12). TLS 1.3 has no
others."""


SOON_DAYS, VERY_SOON_DAYS = 30, 7
"""Before a certificate ends somebody is told, and then told loudly."""


class TlsFilesError(Exception):
    """Certificate, key or trusted certificates cannot be used; the message names setting and file."""


@dataclass(frozen=True)
class TlsFiles:
    """``section``: whose they are, for messages. ``client_ca``: who may call, None: anybody (no client certificate)."""

    section: str
    certificate: Path
    key: Path
    client_ca: Path | None = None


class ServerTls:
    """The context of a listener. A renewed certificate is taken up by :meth:`renew`, for connections that come then."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsFilesError."""
        self.files = files
        self.context = server_context(files)
        self._seen = self._state()

    def renew(self) -> None:
        """Takes up files that changed; what cannot be used is logged and the certificate in force stays."""
        state = self._state()
        if state == self._seen:
            return
        try:
            # A half-copied pair must not spoil the context in force: it is tried on another one first.
            server_context(self.files)
            self.context.load_cert_chain(self.files.certificate, self.files.key)
            if self.files.client_ca is not None:
                self.context.load_verify_locations(self.files.client_ca)
        except (TlsFilesError, OSError) as error:
            log.error("renewed TLS files cannot be used; those before stay in force", why=str(error))
            return
        self._seen = state
        log.info("renewed TLS files are in force", section=self.files.section)

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return state_of((self.files.certificate, self.files.key, self.files.client_ca))


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 as a server; with ``client_ca`` a caller must show a certificate from there.

    Raises TlsFilesError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load_pair(context, files.section, files.certificate, files.key)
    if files.client_ca is not None:
        _load_trusted(context, files.section, "tls_client_ca_file", files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    section: str, ca: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext:  # fmt: skip
    """TLS 1.2 and 1.3 as a client: the server's certificate and name are checked, ours is shown where there is one.

    Raises TlsFilesError.
    """
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    if ca is not None:
        _load_trusted(context, section, "tls_ca_file", ca)
    if certificate is not None and key is not None:
        _load_pair(context, section, certificate, key)
    return context


def runs_out(certificate: Path) -> datetime:
    """When the first certificate of a PEM file ends. Raises TlsFilesError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"{certificate} is no PEM certificate that can be read: {error}") from error


def days_left(certificate: Path, now: datetime | None = None) -> float:
    """Days until the certificate ends, negative when it has. Raises TlsFilesError."""
    return (runs_out(certificate) - (now or datetime.now(UTC))).total_seconds() / 86400


def _load_pair(context: ssl.SSLContext, section: str, certificate: Path, key: Path) -> None:
    for name, path in (("tls_certificate_file", certificate), ("tls_key_file", key)):
        _readable(section, name, path)
    try:
        # A key that asks for a passphrase would wait at a terminal that nobody sees.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise TlsFilesError(
            f"{section} tls_certificate_file = {str(certificate)!r} and tls_key_file do not fit or are no PEM files"
            f" ({error}): give the certificate (with its chain) and its key without passphrase"
        ) from error


def _load_trusted(context: ssl.SSLContext, section: str, name: str, path: Path) -> None:
    _readable(section, name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsFilesError(f"{section} {name} = {str(path)!r} holds no PEM certificates ({error})") from error


def _readable(section: str, name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsFilesError(f"{section} {name} = {str(path)!r} cannot be read: {error.strerror}") from error


def state_of(paths: tuple[Path | None, ...]) -> tuple[tuple[int, int] | None, ...]:
    """Changes when a file was written anew or replaced."""
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
