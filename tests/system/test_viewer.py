"""The radiologist's way: from the reading list by a click into the viewer, which shows film, heat map and report."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from tests.peers import absent, require_peer
from tests.stow import send as stow
from tests.system.agent import Agent, wait_for
from tests.system.films import HAND, PNEUMOTHORAX, film, new_uid, write
from tests.system.pacs import storescp
from tests.system.page_server import CHROMIUM_FLAGS

playwright = pytest.importorskip("playwright.sync_api")

FETCH = Path(__file__).parents[2] / "deploy/fetch_viewer.py"
WRITTEN = hashlib.sha256(FETCH.read_bytes()).hexdigest()[:12]
FETCHED = Path(tempfile.gettempdir()) / f"firstread-tests-viewer-{os.getuid()}-{WRITTEN}"
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_MS = 150_000


@pytest.fixture(scope="module")
def viewer_folder() -> Path:
    if not (FETCHED / "app-config.js").is_file():
        if shutil.which("npm") is None:
            absent("npm is not installed: the viewer cannot be fetched")
        fetched = subprocess.run([sys.executable, FETCH, FETCHED], capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            absent(f"the viewer cannot be fetched: {fetched.stderr[-300:]}")
    return FETCHED


def brightness(picture: bytes) -> float:
    """Spread of the grey values in the middle of a picture, which lies within the film."""
    grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), float)
    rows, columns = grey.shape
    return float(grey[rows // 8 : rows // 3, columns * 2 // 5 : columns * 3 // 5].std())


def is_coloured(picture: bytes) -> bool:
    """Whether a picture holds more than greys: the heat map does, a film does not."""
    red, _green, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), float), 2, 0)
    return float(np.abs(red - blue).max()) > 100 and float((np.abs(red - blue) > 40).mean()) > 0.05


def keep(view, name: str, answers: list[tuple[int, str]], said: list[str]) -> None:
    """Pictures and words for whoever looks into a failure."""
    if folder := os.environ.get("FIRSTREAD_TEST_PICTURES"):
        view.screenshot(path=Path(folder) / f"viewer {name}.png")
        words = [view.inner_text("body"), *said[-40:], *map(str, answers[-60:])]
        (Path(folder) / f"viewer {name}.txt").write_text("\n".join(words))


@pytest.mark.timeout(600)
def test_a_click_on_the_list_opens_film_heat_map_and_report(tmp_path, tiny_bundle, viewer_folder) -> None:
    program = require_peer("chromium")
    uid = new_uid()
    (path,) = write(tmp_path / "films", film(PNEUMOTHORAX, uid))
    not_analysed = new_uid()
    (hand,) = write(tmp_path / "films", film(HAND, not_analysed, PatientID="H1", PatientName="HAND^ONE"))
    with storescp(tmp_path / "pacs") as pacs:
        agent = Agent(
            tmp_path / "agent", bundle=tiny_bundle, destinations=[pacs.destination],
            web={"viewer_folder": str(viewer_folder)}, worklist={"enabled": True},
        )  # fmt: skip
        flags = [flag for flag in CHROMIUM_FLAGS if flag != "--disable-gpu"]
        try:
            agent.start()
            address = f"http://127.0.0.1:{agent.web_port}"
            stow(agent.web_port, [path, hand])
            for study in (uid, not_analysed):
                agent.wait_delivered(study, pacs.destination["name"])
            found = findings_of(pacs.objects(uid)[0])
            with playwright.sync_playwright() as player:
                browser = player.chromium.launch(executable_path=program, args=[*flags, *SOFTWARE_GL])
                look(browser, address, found, not_analysed)
        finally:
            agent.close()


def read_report(view, found: list[str]) -> None:
    """The report is opened: the film with the regions of findings, and beside it every finding in words."""
    view.get_by_text("Firstread AI report").first.dblclick()
    view.get_by_text("Imaging Measurements").first.wait_for(timeout=60_000)
    words = view.inner_text("body")
    assert found and not [name for name in found if name not in words]
    assert "not supported" not in words and "continue tracking" not in words
    wait_for(lambda: view.locator("svg text", has_text="Probability").count(), "regions are drawn", 60)
    drawn = " ".join(view.locator("svg text").all_text_contents())
    assert any(f"Finding: {name}" in drawn for name in found), drawn
    wait_for(lambda: brightness(view.locator("canvas").first.screenshot()) > 15, "the film is drawn below", 60)


def findings_of(report: Dataset) -> list[str]:
    """What the measurement groups of a report name."""
    (groups,) = (one.ContentSequence for one in report.ContentSequence if name(one) == "Imaging Measurements")
    return [
        str(one.ConceptCodeSequence[0].CodeMeaning) for group in groups for one in group.ContentSequence
        if name(one) == "Finding"
    ]  # fmt: skip


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def look(browser, address: str, found: list[str], not_analysed: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    answers: list[tuple[int, str]] = []
    said: list[str] = []
    context.on("response", lambda answer: answers.append((answer.status, answer.url)))
    context.on("console", lambda message: said.append(message.text))
    page = context.new_page()
    page.goto(address)
    page.locator(".row .who a", has_text="PHANTOM").first.click()
    with context.expect_page() as opened:
        page.locator("a.viewer").click()
    view = opened.value
    try:
        view.wait_for_selector("canvas", timeout=PATIENCE_MS)
        wait_for(lambda: [url for status, url in answers if "/frames/" in url and status == 200], "frames", 100)
        view.get_by_text("Skip all").first.click(timeout=PATIENCE_MS)
        view.get_by_text("Confirm and hide").first.click(timeout=PATIENCE_MS)
        wait_for(lambda: brightness(view.locator("canvas").first.screenshot()) > 15, "the film is drawn", 60)
        keep(view, "film", answers, said)
        modalities = view.evaluate(
            "() => [...document.querySelectorAll('[data-cy^=study-browser-thumbnail]')].map(e => e.innerText)"
        )
        listed = " ".join(modalities)
        assert "SR" in listed and "OT" in listed, listed
        assert not is_coloured(view.locator("canvas").first.screenshot())
        view.get_by_text("Firstread AI heat map").first.dblclick()
        wait_for(lambda: is_coloured(view.locator("canvas").first.screenshot()), "the heat map is drawn", 60)
        keep(view, "heat map", answers, said)
        read_report(view, found)
        keep(view, "report", answers, said)
        view.goto(f"{address}/viewer/viewer?StudyInstanceUIDs={not_analysed}")
        view.get_by_text("Firstread AI report").first.dblclick(timeout=PATIENCE_MS)
        view.get_by_text("Qualitative Evaluations").first.wait_for(timeout=60_000)
        keep(view, "report without regions", answers, said)
    finally:
        keep(view, "end", answers, said)
    assert not [one for one in answers if one[0] >= 500]
    assert not [text for text in said if "TypeError" in text]
    assert not [text for text in said if "Content Security Policy" in text]
    assert all(url.startswith((address, "blob:", "data:")) for _, url in answers), "nothing comes from elsewhere"
