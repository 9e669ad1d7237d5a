"""TLS of what we listen on and call: who is believed, what is refused, how a renewed certificate is taken up."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from firstread.agent.care import Care
from firstread.agent.certificates import CertificatesError, make_certificates
from firstread.agent.cli import app
from firstread.agent.config import SettingsError, load_settings
from firstread.agent.config_check import Level, check
from firstread.agent.config_wire import certificates, served_tls
from firstread.agent.store import migrate, watch
from firstread.agent.store.engine import Store
from firstread.agent.tls import ServerTls, TlsFiles, TlsFilesError, client_context, days_left, server_context
from firstread.agent.web.app import serve
from firstread.integration.hl7.acknowledge import acknowledge
from firstread.integration.hl7.mllp import probe
from firstread.integration.hl7.mllp_server import MllpServer


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder, ("localhost", "127.0.0.1"))
    return folder


def files(folder: Path, *, mutual: bool = False) -> TlsFiles:
    return TlsFiles(
        "[dicom]", folder / "server.pem", folder / "server.key", folder / "authority.pem" if mutual else None
    )


@contextmanager
def served(context: ssl.SSLContext):
    with MllpServer("127.0.0.1", 0, lambda message, peer: acknowledge(message), tls=context) as server:
        yield server.address


def shown_by(address: tuple[str, int], context: ssl.SSLContext) -> tuple[str, bytes]:
    """The TLS version that was agreed, and the server's certificate."""
    with socket.create_connection(address, 5) as plain, context.wrap_socket(plain, server_hostname="localhost") as one:
        certificate = one.getpeercert(binary_form=True)
        assert certificate is not None
        return str(one.version()), certificate


def test_a_client_that_trusts_the_authority_is_served_with_tls_1_3_or_1_2(made: Path) -> None:
    trusting = client_context("x", made / "authority.pem", None, None)
    with served(server_context(files(made))) as address:
        assert shown_by(address, trusting)[0] == "TLSv1.3"
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        assert shown_by(address, trusting)[0] == "TLSv1.2"


def test_older_versions_and_weak_ciphers_are_refused(made: Path) -> None:
    with served(server_context(files(made))) as address:
        old = client_context("x", made / "authority.pem", None, None)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            shown_by(address, old)
        weak = client_context("x", made / "authority.pem", None, None)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE+AES+SHA:!AESGCM")  # CBC
        with pytest.raises(ssl.SSLError):
            shown_by(address, weak)


def test_a_server_of_another_name_or_authority_is_not_believed(made: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", ("elsewhere.example",))
    trusting = client_context("x", tmp_path / "other" / "authority.pem", None, None)
    with served(server_context(files(tmp_path / "other"))) as address:
        wrong_name = probe("127.0.0.1", address[1], tls=trusting)
        assert not wrong_name.reachable and "certificate" in wrong_name.text.lower()
    with served(server_context(files(made))) as address:
        assert not probe("127.0.0.1", address[1], tls=trusting).reachable


def test_where_callers_must_show_a_certificate_others_are_turned_away(made: Path) -> None:
    with served(server_context(files(made, mutual=True))) as address:
        known = client_context("x", made / "authority.pem", made / "client.pem", made / "client.key")
        assert probe(*address, tls=known).reachable and answered(address, known)
        stranger = client_context("x", made / "authority.pem", None, None)
        assert not answered(address, stranger)


def answered(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """Whether the server goes on after the handshake. In TLS 1.3 a client learns only then that it was turned away."""
    try:
        with (
            socket.create_connection(address, 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as one,
        ):
            one.settimeout(1)
            return one.recv(1) != b""
    except TimeoutError:
        return True
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_renewed_certificate_is_taken_up_without_a_restart(made: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path, ("localhost", "127.0.0.1"))
    tls = ServerTls(files(tmp_path))
    trusting = client_context("x", tmp_path / "authority.pem", None, None)
    with served(tls.context) as address:
        before = shown_by(address, trusting)[1]
        tls.renew()
        assert shown_by(address, trusting)[1] == before
        make_certificates(tmp_path, ("localhost", "127.0.0.1"))
        tls.renew()
        after = shown_by(address, trusting)[1]
    assert after != before


def test_a_half_copied_renewal_leaves_the_certificate_in_force(tmp_path: Path) -> None:
    make_certificates(tmp_path, ("localhost", "127.0.0.1"))
    tls = ServerTls(files(tmp_path))
    trusting = client_context("x", tmp_path / "authority.pem", None, None)
    with served(tls.context) as address:
        before = shown_by(address, trusting)[1]
        whole = (tmp_path / "server.pem").read_bytes()
        (tmp_path / "server.pem").write_bytes(whole[: len(whole) // 2])
        tls.renew()
        assert shown_by(address, trusting)[1] == before


def test_files_that_cannot_be_used_are_named_with_their_setting(made: Path, tmp_path: Path) -> None:
    with pytest.raises(TlsFilesError, match=r"\[dicom\] tls_certificate_file = .*No such file"):
        server_context(TlsFiles("[dicom]", tmp_path / "none.pem", made / "server.key"))
    with pytest.raises(TlsFilesError, match="do not fit"):
        server_context(TlsFiles("[dicom]", made / "server.pem", made / "client.key"))
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(TlsFilesError, match="tls_client_ca_file"):
        server_context(TlsFiles("[dicom]", made / "server.pem", made / "server.key", tmp_path / "empty.pem"))


def test_the_test_authority_keeps_its_keys_to_their_owner_and_signs_again(made: Path, tmp_path: Path) -> None:
    written = make_certificates(tmp_path / "a", ("pacs.example",), days=10)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in written}
    assert {modes[name] for name in ("authority.key", "server.key", "client.key")} == {0o600}
    authority = (tmp_path / "a" / "authority.pem").read_bytes()
    make_certificates(tmp_path / "a", ("pacs.example",), days=10)
    assert (tmp_path / "a" / "authority.pem").read_bytes() == authority
    assert 9 < days_left(tmp_path / "a" / "server.pem") < 10.1
    with pytest.raises(CertificatesError, match="at least one host"):
        make_certificates(tmp_path / "b", ())


def test_certs_prints_what_it_made_and_what_to_set(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["certs", "--out", str(tmp_path / "c"), "--host", "10.1.2.3"])
    assert answer.exit_code == 0, answer.output
    assert "server.pem" in answer.output and "tls_certificate_file" in answer.output
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(app, ["certs", "--out", str(tmp_path / "file" / "below")])
    assert refused.exit_code == 1 and "cannot be made" in refused.output


def settings_with(folder: Path, text: str):
    (folder / "site.toml").write_text(f'[storage]\npath = "{folder / "data"}"\nreserve_mb = 0\n{text}')
    return load_settings(folder / "site.toml", {})


def test_settings_name_pairs_and_find_them_beside_the_file(made: Path, tmp_path: Path) -> None:
    os.symlink(made, tmp_path / "certs")
    pair = 'tls_certificate_file = "certs/server.pem"\ntls_key_file = "certs/server.key"\n'
    settings = settings_with(tmp_path, f"[dicom]\n{pair}[worklist]\nmllp_tls_port = 2576\n{pair}")
    assert served_tls(settings)["dicom"].certificate == tmp_path / "certs" / "server.pem"
    assert set(certificates(settings)) == {"[dicom]", "[worklist]"}
    for text in (
        '[dicom]\ntls_certificate_file = "a.pem"\n',
        '[web]\ntls_client_ca_file = "a.pem"\n',
        f"[worklist]\n{pair}",
        "[worklist]\nmllp_tls_port = 2576\n",
    ):
        with pytest.raises(SettingsError, match=r"go together|needs tls_certificate_file"):
            settings_with(tmp_path, text)


def test_a_certificate_that_ends_soon_is_an_alarm_until_it_is_renewed(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", ("localhost",), days=3)
    pair = 'tls_certificate_file = "certs/server.pem"\ntls_key_file = "certs/server.key"\n'
    settings = settings_with(tmp_path, f"[dicom]\n{pair}")
    settings.spool.mkdir()
    store = Store(settings.database_url)
    migrate.upgrade(store)
    care = Care(settings, store)

    def alarms() -> dict[str, str]:
        with store.read() as connection:
            return {one.key: one.severity for one in watch.alarms(connection) if one.key.startswith("certificate")}

    care.watch()
    assert alarms() == {"certificate/[dicom]": "critical"}
    said = {line.subject: line for line in check(settings)}
    assert said["[dicom] certificate"].level is Level.NOTE
    (tmp_path / "certs" / "server.pem").write_text("no certificate")
    care.watch()
    assert alarms() == {"certificate/[dicom]": "critical"}
    assert {line.subject: line for line in check(settings)}["[dicom] certificate"].level is Level.PROBLEM
    make_certificates(tmp_path / "certs", ("localhost",), days=90)
    care.watch()
    assert alarms() == {}
    store.close()


def test_a_certificate_that_ended_is_called_so(tmp_path: Path) -> None:
    make_certificates(tmp_path, ("localhost",), days=1)
    assert days_left(tmp_path / "server.pem", datetime.now(UTC) + timedelta(days=3)) < -1


def test_the_page_is_served_over_https_with_secure_cookies(made: Path, tmp_path: Path) -> None:
    settings = settings_with(
        tmp_path,
        f'[web]\ntls_certificate_file = "{made}/server.pem"\ntls_key_file = "{made}/server.key"\n'
        'password = "long enough to guess"\n',
    )
    settings.spool.mkdir()
    store = Store(settings.database_url)
    migrate.upgrade(store)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    stop = threading.Event()
    context = server_context(served_tls(settings)["web"])
    serving = threading.Thread(target=serve, args=(settings, store, stop, listening, context))
    serving.start()
    try:
        verify = ssl.create_default_context(cafile=str(made / "authority.pem"))
        deadline = time.monotonic() + 20
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=verify) as browser:
            while True:
                try:
                    page = browser.get("/login")
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert page.status_code == 200
            assert "Secure" in page.headers["set-cookie"] and "HttpOnly" in page.headers["set-cookie"]
            metrics = browser.get("/metrics").text
        assert 'firstread_certificate_days_left{setting="[web]"}' in metrics
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/login", timeout=5)
    finally:
        stop.set()
        serving.join(20)
        store.close()
    assert not serving.is_alive()
