"""Who may use DICOMweb: everybody on this machine alone, elsewhere a login, a token, a provider's token."""

from __future__ import annotations

import datetime
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError
from starlette.testclient import TestClient

from firstread.agent.config_dicomweb import DicomwebSettings
from firstread.agent.store import studies
from firstread.agent.web.app import create_app
from firstread.agent.web.bearer import BearerDoor
from tests.agent.builders import Bench, chest_film
from tests.stow import DICOM_PARTS, body, named, part10

TOKEN = "a-token-of-the-archive"
HERE, THERE = "http://127.0.0.1:8080", "https://reading-room.example"
REMOTE = {"host": "0.0.0.0", "username": "anna", "password": "secret word"}


def visit(tmp_path, base_url=HERE, **sections):
    bench = Bench(tmp_path / "spool", **sections)
    return TestClient(create_app(bench.settings, bench.store), base_url=base_url, follow_redirects=False)


def status(client, authorization=None, method="GET", **headers):
    if authorization is not None:
        headers["authorization"] = authorization
    return client.request(method, "/dicom-web/studies", headers=headers).status_code


def test_on_this_machine_alone_it_is_open_but_to_pages_of_other_sites(tmp_path):
    client = visit(tmp_path)
    assert status(client) == 200
    assert status(client, method="POST", origin="http://evil.example") == 403
    assert status(client, host="evil.example") == 421


def test_elsewhere_a_login_or_the_token_is_needed(tmp_path):
    client = visit(tmp_path, THERE, web=REMOTE, dicomweb={"token": TOKEN})
    refused = client.get("/dicom-web/studies")
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    assert status(client, f"Bearer {TOKEN}") == 200
    assert status(client, f"bearer {TOKEN}", "POST") == 400, "let in, and refused for want of a body"
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", "Basic YTpi", TOKEN, "Bearer ünicode"):
        assert status(client, wrong.encode("latin-1")) == 401, wrong
    assert client.get("/system", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 303, "no key to the page"


def test_without_a_token_elsewhere_only_a_login_opens_it(tmp_path):
    client = visit(tmp_path, THERE, web=REMOTE)
    assert status(client) == status(client, "Bearer x") == 401


def test_a_token_is_asked_for_on_this_machine_too_once_it_is_set(tmp_path):
    client = visit(tmp_path, dicomweb={"token": TOKEN})
    assert status(client) == 401 and status(client, f"Bearer {TOKEN}") == 200


def test_it_can_be_turned_off(tmp_path):
    assert status(visit(tmp_path, dicomweb={"enabled": False})) == 404


@pytest.mark.parametrize(
    "settings", [{"token": "short"}, {"oidc_issuer": "https://id.example"}, {"oidc_issuer": "x", "oidc_audience": "y"}]
)
def test_settings_that_let_anybody_in_are_refused(settings):
    with pytest.raises(ValidationError):
        DicomwebSettings.model_validate(settings)


class Provider:
    """An OpenID provider on this machine: its discovery document and its key."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/.well-known/openid-configuration":
                    found = {"jwks_uri": f"{outer.issuer}/keys"}
                else:
                    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(outer.key.public_key()))
                    found = {"keys": [public | {"kid": "k1", "use": "sig", "alg": "RS256"}]}
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, key=None, minutes=5, algorithm="RS256", **claims):
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
        said = {"iss": self.issuer, "aud": "firstread", "exp": ends, "sub": "viewer"} | claims
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, self.key if key is None else key, algorithm=algorithm, headers={"kid": "k1"})


@pytest.fixture(scope="module")
def provider():
    made = Provider()
    yield made
    made.server.shutdown()


def test_a_token_of_the_provider_opens_and_every_other_is_refused(provider, tmp_path):
    client = visit(tmp_path, THERE, web=REMOTE, dicomweb={"oidc_issuer": provider.issuer, "oidc_audience": "firstread"})
    assert status(client, f"Bearer {provider.token()}") == 200
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    wrong = {
        "expired": provider.token(minutes=-5),
        "of another audience": provider.token(aud="other"),
        "of another issuer": provider.token(iss="https://id.example"),
        "without an end": provider.token(exp=None),
        "of another key": provider.token(key=other),
        "signed with a shared secret": provider.token(key="s" * 40, algorithm="HS256"),
        "without signature": provider.token(key="", algorithm="none"),
        "nonsense": "a.b.c",
    }
    for what, token in wrong.items():
        assert status(client, f"Bearer {token}") == 401, what


def test_what_comes_with_a_token_that_has_expired_is_not_stored_and_its_sender_is_told_why(provider, tmp_path):
    sections = {"web": REMOTE, "dicomweb": {"oidc_issuer": provider.issuer, "oidc_audience": "firstread"}}
    bench, film = Bench(tmp_path / "spool", **sections), named(chest_film())
    client = TestClient(create_app(bench.settings, bench.store), base_url=THERE)

    def stow(token):
        headers = {"authorization": f"Bearer {token}", "content-type": DICOM_PARTS}
        answer = client.post("/dicom-web/studies", content=body(part10(film)), headers=headers)
        with bench.store.read() as connection:
            return answer, studies.find(connection, film.StudyInstanceUID)

    answer, stored = stow(provider.token(minutes=-5))
    assert answer.status_code == 401 and 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert "expired" in answer.text and stored is None
    answer, stored = stow(provider.token())
    assert answer.status_code == 200 and stored is not None, "renewed, the same request is taken"


def test_a_provider_that_does_not_answer_lets_nobody_in(provider):
    door = BearerDoor(DicomwebSettings(oidc_issuer="http://127.0.0.1:1", oidc_audience="firstread"))
    assert "cannot be asked" in str(door.refusal(f"Bearer {provider.token()}"))
