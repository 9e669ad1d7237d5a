"""DICOM over TLS (PS3.15 B), and what we use of pynetdicom's inside."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from firstread.integration.dicom import reactor
from firstread.integration.dicom.part10 import meta_header
from firstread.integration.dicom.send import DicomPeer, Sender, echo
from tests.integration.dicom_wire import CR, EXPLICIT, Film, data_set_of, receiving


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch) -> None:
    monkeypatch.setattr(reactor, "_LINGER_S", 0.2)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [openssl, "req", "-x509", *kind, "-keyout", key, "-out", made, *subject], check=True, capture_output=True
    )
    return key, made


@pytest.fixture
def server_context(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


@pytest.fixture
def client_context(certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[1]))


def test_films_go_over_tls_and_arrive_bit_for_bit(tmp_path: Path, server_context, client_context) -> None:
    films = [Film(pixels=bytes(range(256)) * 8000) for _ in range(5)]
    with receiving(tmp_path, tls=server_context) as (receiver, inbox):
        peer = DicomPeer("pacs", *receiver.address, "FIRSTREAD", tls=client_context)
        assert echo(peer).ok
        with Sender(peer) as sender:
            for film in films:
                assert sender.store(meta_header(CR, film.sop_instance_uid, EXPLICIT) + film.data_set()).delivered
    assert [data_set_of(kept.path) for kept in inbox.instances] == [film.data_set() for film in films]


def test_unknown_certificate_and_plain_text_are_refused_with_a_sentence(tmp_path: Path, server_context) -> None:
    with receiving(tmp_path, tls=server_context, acse_timeout_s=1.0) as (receiver, inbox):
        distrustful = DicomPeer("pacs", *receiver.address, "FIRSTREAD", tls=ssl.create_default_context())
        answer = echo(distrustful)
        assert not answer.ok
        assert "check certificates on both sides" in answer.detail
        assert not echo(DicomPeer("pacs", *receiver.address, "FIRSTREAD", acse_timeout_s=2.0)).ok
        assert inbox.events == []


def test_dawdling_handshake_holds_up_nobody(tmp_path: Path, server_context, client_context) -> None:
    with receiving(tmp_path, tls=server_context) as (receiver, _), socket.create_connection(receiver.address):
        began = time.monotonic()
        assert echo(DicomPeer("pacs", *receiver.address, "FIRSTREAD", tls=client_context)).ok
        assert time.monotonic() - began < 3


def test_pynetdicom_still_has_the_inside_that_we_build_on() -> None:
    """reactor, streaming and acceptor replace parts of pynetdicom: another major version wants them read again."""
    assert pynetdicom.__version__.startswith("3.0.")
    association = Association(ApplicationEntity("TEST"), "requestor")
    for name in ("_accepted_cx", "_reactor_checkpoint", "_is_paused", "_kill", "_dul_ready", "_started_dul"):
        assert hasattr(association, name), name
    for name in ("_idle_timer", "_recv_pdu", "_kill_thread", "event_queue", "to_provider_queue", "to_user_queue"):
        assert hasattr(association.dul, name), name
    for name in ("_process_recv_primitive", "_is_transport_event", "_read_pdu_data", "_decode_pdu", "_send"):
        assert callable(getattr(association.dul, name)), name
    assert evt._INTERVENTION_EVENTS
