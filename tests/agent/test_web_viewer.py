"""The viewer under the page's address: its files, its own policy, who may have it, and how it is set up."""

from __future__ import annotations

import importlib.util
import sys
import tarfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firstread.agent.web.app import create_app
from tests.agent.web_seed import Morning

HERE = "http://127.0.0.1:8080"
STUDY = "/viewer/viewer?StudyInstanceUIDs=1.2.3"
PAGE = (
    '<html><head><link href="/app.bundle.css"><script>window.PUBLIC_URL="/"</script>'
    '<script type="module" src="/init-service-worker.js"></script></head></html>'
)


def fetcher():
    place = Path(__file__).parents[2] / "deploy/fetch_viewer.py"
    spec = importlib.util.spec_from_file_location("fetch_viewer", place)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "viewer"
    made.mkdir()
    (made / "index.html").write_text(PAGE)
    module = fetcher()
    places = "\n".join(mend.old for mend in module.MENDS)
    (made / "app.bundle.1.js").write_text(f'__webpack_require__.p = "/"; start()\n{places}')
    module.adapt(made)
    return made


def visit(tmp_path, **web):
    morning = Morning.on(tmp_path / "spool", web=web)
    morning.roles()
    number = morning.read("DOE^JOHN", 5)
    app = create_app(morning.settings, morning.store)
    return TestClient(app, base_url=HERE, follow_redirects=False), number


def test_what_is_set_up_stands_under_its_place_without_a_script_in_the_page(folder) -> None:
    page = (folder / "index.html").read_text()
    assert "<script>" not in page and 'href="/viewer/app.bundle.css"' in page and "service-worker" not in page
    assert 'PUBLIC_URL="/viewer/"' in (folder / "start.js").read_text()
    script = (folder / "app.bundle.1.js").read_text()
    mended = "\n".join(mend.new for mend in fetcher().MENDS)
    assert script == f'__webpack_require__.p = "/viewer/"; start()\n{mended}'


def test_the_viewer_has_its_own_policy_and_the_list_keeps_the_strict_one(tmp_path, folder) -> None:
    client, _ = visit(tmp_path, viewer_folder=folder)
    view = client.get(STUDY)
    assert view.status_code == 200 and "app.bundle.css" in view.text
    policy = view.headers["content-security-policy"]
    assert "'wasm-unsafe-eval'" in policy and "'unsafe-eval'" not in policy
    assert "script-src 'self' 'unsafe-inline'" not in policy
    for strict in ("/", "/viewerx", "/dicom-web/studies"):
        assert "unsafe" not in client.get(strict).headers["content-security-policy"]
    assert client.get("/viewer/missing.js").status_code == 404
    assert client.get("/viewer/..%2f..%2fetc/passwd.txt").status_code == 404


def test_an_opened_study_leads_to_the_viewer_that_is_set_up(tmp_path, folder) -> None:
    client, _ = visit(tmp_path, viewer_folder=folder)
    assert 'href="/viewer/viewer?StudyInstanceUIDs=' in client.get("/study/1").text


def test_without_a_viewer_its_address_says_how_to_get_one(tmp_path) -> None:
    client, _ = visit(tmp_path)
    answer = client.get(STUDY)
    assert answer.status_code == 404 and "deploy/fetch_viewer.py" in answer.text
    assert "/viewer/viewer" not in client.get("/study/1").text


def test_the_viewer_needs_the_login_and_comes_back_to_its_study(tmp_path, folder) -> None:
    client, _ = visit(tmp_path, viewer_folder=folder, username="anna", password="secret word")
    answer = client.get(STUDY)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/viewer/viewer%3FStudyInstanceUIDs%3D1.2.3"
    assert client.get("/viewer/app.bundle.1.js", headers={"sec-fetch-dest": "script"}).status_code == 401


def test_another_package_than_the_pinned_one_is_refused(tmp_path) -> None:
    tarball = tmp_path / "app.tgz"
    with tarfile.open(tarball, "w:gz"):
        pass
    with pytest.raises(SystemExit, match="not what it was"):
        fetcher().verify(tarball)


def test_another_package_than_the_pinned_one_is_not_set_up(tmp_path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "app.bundle.1.js").write_text("start()")
    with pytest.raises(SystemExit, match="another than the one"):
        fetcher().adapt(tmp_path)
