"""DICOMweb where both sides show a certificate: ours as the server, and ours as the sender of results."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from firstread.agent.certificates import make_certificates
from firstread.agent.config import DicomwebDestination
from firstread.agent.config_wire import served_tls, web_service
from firstread.agent.store import studies
from firstread.agent.tls import server_context
from firstread.agent.web.app import serve
from firstread.integration.dicom.status import OutcomeKind
from firstread.integration.dicomweb.client import DicomwebClient
from firstread.integration.dicomweb.store_client import StoreAnswer, store
from tests.agent.builders import Bench, chest_film
from tests.stow import DICOM_PARTS, body, named, part10


class Archive(Bench):
    """A DICOMweb service that wants to see a certificate of its own authority."""

    def __init__(self, folder: Path, made: Path) -> None:
        files = {name: str(made / f"server.{end}") for name, end in (("certificate", "pem"), ("key", "key"))}
        super().__init__(
            folder,
            web={
                "tls_certificate_file": files["certificate"], "tls_key_file": files["key"],
                "tls_client_ca_file": str(made / "authority.pem"),
            },
        )  # fmt: skip
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
        self._stop = threading.Event()
        context = server_context(served_tls(self.settings)["web"])
        self._serving = threading.Thread(target=serve, args=(self.settings, self.store, self._stop, listening, context))
        self._serving.start()

    def holds(self, film) -> bool:
        with self.store.read() as connection:
            return studies.find(connection, film.StudyInstanceUID) is not None

    def close(self) -> None:
        self._stop.set()
        self._serving.join(20)
        self.store.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder, ("localhost", "127.0.0.1"))
    return folder


@pytest.fixture
def archive(tmp_path: Path, made: Path) -> Iterator[Archive]:
    found = Archive(tmp_path / "spool", made)
    yield found
    found.close()


def sent(archive: Archive, content: bytes, **files: Path) -> StoreAnswer:
    """A result goes out to it as to a destination of the settings."""
    destination = DicomwebDestination(name="archive", type="dicomweb", url=archive.url, **files)
    deadline = time.monotonic() + 20
    while True:
        client = DicomwebClient(web_service(destination))
        try:
            answer = store(client, content)
        finally:
            client.close()
        if "refused" not in answer.words or time.monotonic() > deadline:  # not listening yet
            return answer


def test_who_shows_a_certificate_of_the_authority_stores(archive: Archive, made: Path) -> None:
    film = named(chest_film())
    answer = sent(
        archive, part10(film), tls_ca_file=made / "authority.pem",
        tls_certificate_file=made / "client.pem", tls_key_file=made / "client.key",
    )  # fmt: skip
    assert answer.kind is OutcomeKind.DELIVERED and archive.holds(film)


def test_who_shows_none_or_a_stranger_s_stores_nothing_and_sends_again(
    archive: Archive, made: Path, tmp_path: Path
) -> None:
    film, others = named(chest_film()), tmp_path / "others"
    make_certificates(others, ("localhost", "127.0.0.1"))
    authority = {"tls_ca_file": made / "authority.pem"}
    nobody = sent(archive, part10(film), **authority)
    stranger = sent(
        archive, part10(film), **authority,
        tls_certificate_file=others / "client.pem", tls_key_file=others / "client.key",
    )  # fmt: skip
    assert nobody.kind is stranger.kind is OutcomeKind.RETRY, "an outage until somebody mends the settings"
    assert not archive.holds(film)


def test_a_service_of_another_authority_gets_no_result(archive: Archive, made: Path, tmp_path: Path) -> None:
    film, others = named(chest_film()), tmp_path / "others"
    make_certificates(others, ("localhost", "127.0.0.1"))
    answer = sent(
        archive, part10(film), tls_ca_file=others / "authority.pem",
        tls_certificate_file=made / "client.pem", tls_key_file=made / "client.key",
    )  # fmt: skip
    assert answer.kind is OutcomeKind.RETRY and "CERTIFICATE_VERIFY_FAILED" in answer.words
    assert not archive.holds(film)


def test_a_scanner_that_stores_over_plain_http_is_not_heard(archive: Archive, made: Path) -> None:
    film = named(chest_film())
    sent(archive, part10(named(chest_film(), "1.2.4")), tls_ca_file=made / "authority.pem")  # it listens
    with pytest.raises(httpx.HTTPError):
        httpx.post(
            archive.url.replace("https", "http") + "/studies", content=body(part10(film)),
            headers={"content-type": DICOM_PARTS}, timeout=5,
        )  # fmt: skip
    assert not archive.holds(film)
