"""The whole way over TLS with DCMTK as PACS: films in, results out, both sides showing certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path

from firstread.agent.certificates import make_certificates
from tests.peers import free_port, require_peer
from tests.system.agent import Agent, wait_for
from tests.system.films import film, write


def test_films_come_and_reports_go_over_mutual_tls(tmp_path: Path, tiny_bundle: Path) -> None:
    storescu, storescp = require_peer("storescu"), require_peer("storescp")
    certs = tmp_path / "certs"
    make_certificates(certs, ("localhost", "127.0.0.1"))
    port, held = free_port(), tmp_path / "pacs"
    held.mkdir()
    ours = {"tls_certificate_file": str(certs / "server.pem"), "tls_key_file": str(certs / "server.key")}
    agent = Agent(
        tmp_path / "agent",
        bundle=tiny_bundle,
        dicom={**ours, "tls_client_ca_file": str(certs / "authority.pem")},
        destinations=[
            {
                "name": "pacs", "type": "dicom", "host": "localhost", "port": port, "ae_title": "PACS", "tls": True,
                "tls_ca_file": str(certs / "authority.pem"),
                "tls_certificate_file": str(certs / "client.pem"),
                "tls_key_file": str(certs / "client.key"),
            }
        ],
    )  # fmt: skip
    believing = ["+cf", str(certs / "authority.pem")]
    pacs = subprocess.Popen(
        [
            storescp,
            "+tls",
            str(certs / "server.key"),
            str(certs / "server.pem"),
            *believing,
            "-od",
            str(held),
            str(port),
        ]
    )
    try:
        agent.start()
        (path,) = write(tmp_path, film())
        address = ["-aec", "FIRSTREAD", "localhost", str(agent.dicom_port), str(path)]
        plain = subprocess.run([storescu, *address], capture_output=True, timeout=60)
        unknown = subprocess.run([storescu, "+tla", *believing, *address], capture_output=True, timeout=60)
        assert plain.returncode != 0 and unknown.returncode != 0
        known = ["+tls", str(certs / "client.key"), str(certs / "client.pem"), *believing]
        sent = subprocess.run([storescu, *known, *address], capture_output=True, timeout=60)
        assert sent.returncode == 0, sent.stderr.decode()
        wait_for(lambda: len(list(held.iterdir())) >= 1, "the report has reached the PACS")
        assert agent.health()["status"] == "good"
    finally:
        agent.stop()
        pacs.terminate()
        pacs.wait()
