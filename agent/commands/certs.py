"""``certs``: certificates for trying TLS before the hospital's own are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail


def certs(
    out: Annotated[Path, typer.Option(help="Folder for authority, server and client (PEM).")] = Path("certs"),
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that callers use; may be given more than once.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long they are good for.")] = 90,
) -> None:
    """Make a test authority with a server's and a client's certificate. Not for patients' data."""
    from firstread.agent.certificates import CertificatesError, make_certificates

    try:
        written = make_certificates(out, tuple(host or ["localhost", "127.0.0.1"]), days)
    except CertificatesError as error:
        fail(str(error))
    for path in written:
        typer.echo(str(path))
    typer.echo(
        f'Settings: tls_certificate_file = "{out}/server.pem", tls_key_file = "{out}/server.key"; callers trust '
        f"\"{out}/authority.pem\". Test certificates only: take the hospital's own for patients' data."
    )
