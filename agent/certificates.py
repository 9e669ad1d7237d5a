"""A test authority: certificates for trying TLS, made on this machine and signed by nobody but itself."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "Firstread test authority - not for patients' data"

AUTHORITY, SERVER, CLIENT = "authority", "server", "client"


class CertificatesError(Exception):
    """Certificates cannot be made; the message says why."""


def make_certificates(folder: Path, hosts: tuple[str, ...], days: int = 90) -> list[Path]:
    """An authority, a server's and a client's certificate with their keys (P-256), as PEM files in ``folder``.

    ``hosts``: names and addresses that the server's certificate is good for. Keys are readable by their owner alone.
    An authority that lies there already signs the new ones, so that what trusts it goes on. Answers the files.

    Raises:
        CertificatesError: the folder cannot be written, or an authority in it cannot be read.
    """
    if not hosts:
        raise CertificatesError("name at least one host that callers will use")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        authority, authority_key = _authority(folder, days)
        written = [folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"]
        for name, usage in ((SERVER, ExtendedKeyUsageOID.SERVER_AUTH), (CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH)):
            key = ec.generate_private_key(ec.SECP256R1())
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            certificate = (
                _begun(f"firstread {name}", authority.subject, key, days)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
                .add_extension(names, critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
                )
                .sign(authority_key, hashes.SHA256())
            )
            written += _write(folder, name, certificate, key)
    except (OSError, ValueError, TypeError) as error:
        raise CertificatesError(f"certificates cannot be made in {folder}: {error}") from error
    return written


def _authority(folder: Path, days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    made, kept = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
    if made.exists() and kept.exists():
        key = serialization.load_pem_private_key(kept.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificatesError(f"{kept} was not made here: give another folder")
        return x509.load_pem_x509_certificate(made.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        _begun(NAME, name, key, days * 4)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder, AUTHORITY, certificate, key)
    return certificate, key


def _begun(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:  # fmt: skip
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> list[Path]:
    paths = [folder / f"{name}.pem", folder / f"{name}.key"]
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    # The key first, each replaced whole: whoever watches the certificate finds its key there.
    for path, content, mode in (
        (paths[1], pem, 0o600),
        (paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        partial.replace(path)
    return paths


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
