"""Who gets in: login, sessions, hosts, and the headers that keep a browser strict."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient

from firstread.agent.config import WebSettings
from firstread.agent.password import hash_password, is_hash, password_matches
from firstread.agent.web.access import ACCESS, Role, role_needed
from firstread.agent.web.app import create_app
from firstread.agent.web.sessions import COOKIE, LIFETIME_S, LoginBrake, Sessions, session_key
from tests.agent.web_seed import Morning

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def open_house(tmp_path):
    morning = Morning.on(tmp_path / "spool")
    morning.roles()
    yield morning
    morning.store.close()


@pytest.fixture
def locked(tmp_path):
    morning = Morning.on(
        tmp_path / "spool", web={"host": "0.0.0.0", "username": "anna", "password_hash": hash_password("secret word")}
    )
    morning.roles()
    morning.read("DOE^JOHN", 5)
    yield morning
    morning.store.close()


def visit(morning: Morning, host: str = HERE) -> TestClient:
    return TestClient(create_app(morning.settings, morning.store), base_url=host, follow_redirects=False)


def log_in(client: TestClient, password: str = "secret word", name: str = "anna", **form: str):
    page = client.get("/login").text
    token = re.search(r'name="token" value="([0-9a-f]+)"', page).group(1)
    return client.post("/login", data={"token": token, "username": name, "password": password, "next": "/"} | form)


PRIVATE = ("/", "/study/1", "/study/1/panel", "/rows?ids=1", "/live", "/off", "/system", "/film/1/preview.png",
           "/film/1/thumb.jpg", "/film/1/heat/Mass.png")  # fmt: skip


def test_without_the_login_nothing_of_a_patient_is_shown(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    for path in PRIVATE:
        answer = client.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login?next="), path
        assert "DOE" not in answer.text
        assert client.get(path, headers={"sec-fetch-dest": "empty"}).status_code == 401
    for path in ("/health", "/ready", "/metrics"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "DOE" not in answer.text
        assert "P1002" not in answer.text


def test_the_right_login_opens_the_page_and_logging_out_closes_it(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    answer = log_in(client, next="/system")
    assert (answer.status_code, answer.headers["location"]) == (303, "/system")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    page = client.get("/")
    assert "DOE, JOHN" in page.text
    token = re.search(r'name="token" value="([0-9a-f]+)"', page.text).group(1)
    client.post("/logout", data={"token": token})
    assert client.get("/").status_code == 303


def test_a_wrong_login_is_refused_alike_for_name_and_password_and_slowed(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    wrong = [log_in(client, "guess"), log_in(client, name="otto")]
    assert {answer.status_code for answer in wrong} == {401}
    assert len({re.sub(r'value="[0-9a-f]+"', "", answer.text) for answer in wrong}) == 1
    for _ in range(3):
        log_in(client, "guess")
    assert log_in(client).status_code == 429, "also for the right word, once somebody guesses"
    assert client.get("/").status_code == 303


def test_after_login_a_browser_is_never_sent_to_another_site(locked) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        client = visit(locked, "http://reading-room.example")
        assert log_in(client, next=target).headers["location"] == "/"


def test_a_login_without_its_form_token_is_refused(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    client.get("/login")
    answer = client.post("/login", data={"username": "anna", "password": "secret word", "token": "no"})
    assert answer.status_code == 403


def test_over_tls_the_cookie_is_for_tls_alone(locked) -> None:
    client = visit(locked, "https://reading-room.example")
    assert "; Secure" in client.get("/login").headers["set-cookie"]


def test_on_this_machine_no_login_is_needed_but_another_name_is_refused(open_house) -> None:
    for host in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
        assert visit(open_house, host).get("/").status_code == 200
    rebound = visit(open_house, "http://evil.example:8080").get("/")
    assert rebound.status_code == 421
    assert "set a login" in rebound.text


def test_every_answer_forbids_scripts_and_styles_that_are_not_ours(open_house) -> None:
    client = visit(open_house)
    for path in ("/", "/system", "/off", "/login", "/health", "/nowhere", "/study/77"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\sstyle=|\son\w+=", page)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page), "nothing comes from another host"
    assert "immutable" in client.get("/static/page.css").headers["cache-control"]


def test_no_address_names_a_patient_or_a_study_uid(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    log_in(client)
    page = client.get("/study/1").text
    addresses = " ".join(re.findall(r'(?:href|src|action)="([^"]*)"', page))
    for part in ("DOE", "P1002", "2.25.", "A26"):
        assert part not in addresses


def test_a_session_ends_and_a_changed_cookie_is_worthless(tmp_path) -> None:
    sessions = Sessions(b"k" * 32, WebSettings())
    session = sessions.begin(1000.0, "anna")
    cookie = sessions.write(session)
    assert sessions.read(cookie, 1001.0) == session
    assert sessions.read(cookie, 1000.0 + LIFETIME_S + 1) is None
    for changed in (cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), "A" + cookie, "", ".", "x.y", cookie + "ä"):
        assert sessions.read(changed, 1001.0) is None
    assert sessions.form_is_ours(session, sessions.form_token(session))
    assert not sessions.form_is_ours(sessions.begin(1000.0, "anna"), sessions.form_token(session))


def test_a_changed_password_ends_every_session() -> None:
    before = Sessions(b"k" * 32, WebSettings(password="one"))
    after = Sessions(b"k" * 32, WebSettings(password="two"))
    assert after.read(before.write(before.begin(0.0, "anna")), 1.0) is None


def test_the_session_key_is_made_once_and_for_this_user_alone(tmp_path) -> None:
    key = session_key(tmp_path)
    assert session_key(tmp_path) == key
    assert len(key) == 32
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0


def test_the_brake_forgets_and_forgives() -> None:
    brake = LoginBrake(free=2, window_s=60)
    brake.failed("a", 0.0)
    brake.failed("a", 1.0)
    assert brake.wait_s("a", 2.0) == pytest.approx(58.0)
    assert brake.wait_s("b", 2.0) == 0.0
    assert brake.wait_s("a", 62.0) == 0.0
    brake.failed("a", 63.0)
    brake.failed("a", 63.0)
    brake.succeeded("a")
    assert brake.wait_s("a", 64.0) == 0.0


def test_the_login_cookie_does_not_hold_what_was_there_before(locked) -> None:
    client = visit(locked, "http://reading-room.example")
    client.get("/login")
    before = client.cookies[COOKIE]
    log_in(client)
    assert client.cookies[COOKIE] != before


PLACES = {
    "{study}": "1.2",
    "{series}": "1.3",
    "{instance}": "1.4",
    "{frames}": "1",
    "{id}": "1",
    "{label}": "Mass",
    "{name}": "pacs",
    "{path}": "page.css",
    "{uid}": "2.25.404",
    "{ae}": "WS1",
}
USERS = [
    {"name": "rita", "role": "reader", "password_hash": hash_password("reading only")},
    {"name": "adam", "role": "admin", "password_hash": hash_password("all of it")},
]


@pytest.fixture
def staffed(tmp_path):
    morning = Morning.on(tmp_path / "spool", web={"host": "0.0.0.0", "users": USERS})
    morning.roles()
    morning.read("DOE^JOHN", 5)
    yield morning
    morning.store.close()


def addresses(morning: Morning) -> set[tuple[str, str]]:
    """Every address that the application answers, as the table writes them."""
    found = set()
    for route in create_app(morning.settings, morning.store).routes:
        if isinstance(route, Mount):
            found.add(("GET", f"{route.path}/{{path}}"))
        else:
            path = re.sub(r":\w+}", "}", route.path)
            methods = {"GET"} if isinstance(route, WebSocketRoute) else route.methods
            found |= {(method, path) for method in methods if method != "HEAD"}
    return found


def test_every_address_stands_in_the_table_and_the_table_names_no_other(open_house) -> None:
    assert addresses(open_house) == set(ACCESS)


def test_what_the_table_does_not_name_is_for_admins() -> None:
    assert role_needed("GET", "/new") is Role.ADMIN
    assert role_needed("DELETE", "/") is Role.ADMIN
    assert role_needed("HEAD", "/study/1") is Role.READER
    assert role_needed("GET", "/study/1/../remove") is Role.ADMIN


@pytest.mark.parametrize(
    ("name", "password", "role"),
    [("", "", Role.ANYONE), ("rita", "reading only", Role.READER), ("adam", "all of it", Role.ADMIN)],
)
def test_each_visitor_reaches_what_the_table_says_and_no_more(staffed, name, password, role) -> None:
    client = visit(staffed, "http://reading-room.example")
    if name:
        assert log_in(client, password, name).status_code == 303
    for (method, path), needed in ACCESS.items():
        if path in ("/live", "/logout", "/login"):  # one never ends, the others would change who we are
            continue
        asked = re.sub(r"\{\w+\}", lambda found: PLACES[found.group()], path)
        status = client.request(method, asked, headers={"sec-fetch-dest": "empty"}).status_code
        if role >= needed:
            assert status not in (401, 303) or method == "POST", (method, path, status)
            if method == "POST":  # let in, and turned back for want of the form's token or of an item
                turned_back = (400, 404, 415) if path.startswith("/dicom-web/") else (403, 404)
                assert status in turned_back, (method, path, status)
        else:
            assert status == (403 if role is Role.READER else 401), (method, path, status)


def test_a_reader_changes_nothing_even_with_a_form_of_its_own(staffed) -> None:
    reader, admin = (visit(staffed, "http://reading-room.example") for _ in range(2))
    log_in(reader, "reading only", "rita")
    log_in(admin, "all of it", "adam")
    page = reader.get("/study/1").text
    assert "/study/1/remove" not in page and "/study/1/remove" in admin.get("/study/1").text
    token = re.search(r'name="token" value="([0-9a-f]+)"', page).group(1)
    answer = reader.post("/study/1/remove", data={"token": token, "why": "mine"})
    assert answer.status_code == 403 and "ask an administrator" in answer.text
    assert "DOE, JOHN" in admin.get("/").text
    token = re.search(r'name="token" value="([0-9a-f]+)"', admin.get("/study/1").text).group(1)
    assert admin.post("/study/1/remove", data={"token": token, "why": "read"}).status_code == 303
    assert "DOE, JOHN" not in admin.get("/").text


def test_a_user_who_was_taken_out_of_the_settings_is_logged_out(staffed, tmp_path) -> None:
    client = visit(staffed, "http://reading-room.example")
    log_in(client, "reading only", "rita")
    cookie = client.cookies[COOKIE]
    fewer = staffed.settings.model_copy(
        update={"web": WebSettings.model_validate({"host": "0.0.0.0", "users": USERS[1:]})}
    )
    later = TestClient(create_app(fewer, staffed.store), base_url="http://reading-room.example", follow_redirects=False)
    later.cookies.set(COOKIE, cookie)
    assert later.get("/").status_code == 303


def test_passwords_are_argon2id_and_older_scrypt_hashes_still_open() -> None:
    hashed = hash_password("Grüße")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and is_hash(hashed)
    assert password_matches("Grüße", hashed) and not password_matches("grüße", hashed)
    salt = b"0123456789abcdef"
    digest = hashlib.scrypt(b"before", salt=salt, n=2**14, r=8, p=1, maxmem=2**28, dklen=32)
    old = "$".join(["scrypt", "16384", "8", "1", base64.b64encode(salt).decode(), base64.b64encode(digest).decode()])
    assert is_hash(old) and password_matches("before", old) and not password_matches("after", old)
    for wrong in ("", "$argon2id$v=19$m=99999999,t=3,p=4$c2FsdA$aGFzaA", "$argon2i$v=19$m=8,t=1,p=1$a$b", hashed[:40]):
        assert not is_hash(wrong) and not password_matches("x", wrong)
