"""The page for every eye and every hand: contrast, names for screen readers, nothing told by colour alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.agent.web_seed import Morning, busy_morning
from tests.peers import require_peer
from tests.system.page_server import CHROMIUM_FLAGS, served

playwright = pytest.importorskip("playwright.sync_api")

LEAST_CONTRAST = 7.0

CONTRASTS = """() => {
  const luminance = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
      if (c.length === 4 && c[3] > 0) return c.slice(0, 3).map(v => v * c[3]);
    }
    return [0, 0, 0];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.textContent.trim() || element.closest("svg, noscript, .unseen, .skip")) continue;
    if (!element.getClientRects().length || style.visibility === "hidden") continue;
    const [a, b] = [luminance(parse(style.color)), luminance(ground(element))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), walker.currentNode.textContent.trim().slice(0, 40), element.className]);
  }
  return found;
}"""

BRIGHTEST = """() => Math.max(...[...document.querySelectorAll('*')].flatMap(element => {
  const style = getComputedStyle(element);
  return [style.color, style.backgroundColor].map(text => (text.match(/[\\d.]+/g) || []).map(Number))
    .filter(c => c.length === 3 || c[3] > 0).map(c => Math.min(...c.slice(0, 3)));
}))"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    program = require_peer("chromium")
    morning = Morning.on(tmp_path_factory.mktemp("access") / "spool")
    ids = busy_morning(morning)
    doubtful = {"Nodule": 0.71, "Fibrosis": 0.66, "Hernia": 0.62, "Cardiomegaly": 0.6}
    ids["doubtful"] = morning.read("BERGSTROEM^IDA", 30, found=doubtful, sex="F", patient_age_years=70.0)
    doubtful = {"Pneumothorax": 0.85, "Consolidation": 0.8, "Pleural_Thickening": 0.71, "Fibrosis": 0.66}
    ids["several"] = morning.read("BERGSTROEM^TOR", 29, found=doubtful, sex="M", patient_age_years=71.0)
    with served(morning) as server, playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 800})

        def visit(path: str):
            page.goto(server.address + path.format(**ids))
            page.wait_for_timeout(500)
            page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
            return page

        yield visit
        browser.close()
    morning.store.close()


PAGES = ("/", "/study/{stat}", "/study/{failed}", "/study/{received}", "/system", "/off", "/login")


@pytest.mark.parametrize("path", PAGES)
def test_all_text_stands_out_from_its_ground(seen, path) -> None:
    contrasts = seen(path).evaluate(CONTRASTS)
    assert len(contrasts) > 3
    assert [one for one in contrasts if one[0] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("path", ["/", "/study/{stat}", "/system"])
def test_nothing_is_pure_white_in_a_dark_room(seen, path) -> None:
    assert seen(path).evaluate(BRIGHTEST) < 235


def test_stale_and_help_are_readable_too(seen) -> None:
    page = seen("/study/{stat}")
    page.keyboard.press("?")
    page.evaluate(
        """() => {
            document.body.classList.add("is-stale");
            document.getElementById("stale").textContent = "Not live since 12:00:00";
            document.getElementById("stale").hidden = false;
            document.getElementById("filter-note").textContent = "The filter hides 2";
            document.getElementById("filter-note").hidden = false;
        }"""
    )
    assert [one for one in page.evaluate(CONTRASTS) if one[0] < LEAST_CONTRAST] == []


def test_every_control_has_a_name_and_every_picture_a_text(seen) -> None:
    for path in PAGES:
        nameless = seen(path).evaluate(
            """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), summary")].filter(one =>
                 !(one.getAttribute("aria-label") || one.innerText || one.textContent || "").trim()
                 && !(one.labels && one.labels.length)).map(one => one.outerHTML.slice(0, 120))
               .concat([...document.querySelectorAll("img:not([alt])")].map(one => one.outerHTML))"""
        )
        assert nameless == []


def test_priorities_differ_by_word_and_mark_not_by_colour_alone(seen) -> None:
    told = seen("/").evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#rows .row")].map(row =>
             [row.className.split(" ")[1], row.querySelector(".priority").innerText.replace(/\\s+/g, " ").trim()]))"""
    )
    assert told == {"stat": "!! STAT", "urgent": "! URGENT", "waited": "~ WAITED", "routine": "ROUTINE"}


def test_the_table_is_told_to_screen_readers_with_heads_and_positions(seen) -> None:
    page = seen("/")
    assert page.get_by_role("table", name="Reading list, first to read first").count() == 1
    heads = page.get_by_role("columnheader").all_inner_texts()
    assert "why it stands here" in heads
    assert page.locator("#rows .row").first.get_attribute("aria-rowindex") == "2"
    label = page.locator("#rows .row .who a").first.get_attribute("aria-label")
    assert label.startswith("DOE, JOHN, STAT, M 64, Chest PA, pneumothorax 0.81")
    assert page.locator("#announce").get_attribute("aria-live") == "polite"
    assert page.evaluate("document.querySelectorAll('#rows a[tabindex=\"0\"]').length") == 1, (
        "one stop for Tab, then j and k"
    )


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (3840, 2160), (700, 900)])
def test_no_page_scrolls_sideways_at_any_width(seen, width, height) -> None:
    for path in ("/", "/study/{japanese}", "/study/{long}", "/system", "/off"):
        page = seen(path)
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        rows = page.evaluate("() => [...document.querySelectorAll('#rows .row')].map(row => row.offsetHeight)")
        assert len(set(rows)) <= 1, "one row, one line, all of one height"
    page.set_viewport_size({"width": 1280, "height": 800})


NAMES_SHOWN = """() => [...document.querySelectorAll('#rows .finding > span')]
  .filter(name => name.getClientRects().length)
  .map(name => [name.textContent, name.clientWidth / Math.max(1, name.scrollWidth)])"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1440, 900), (1920, 1080), (3840, 2160)])
def test_names_of_findings_can_be_read(seen, width, height) -> None:
    page = seen("/")
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(100)
    shown = page.evaluate(NAMES_SHOWN)
    if folder := os.environ.get("FIRSTREAD_TEST_PICTURES"):
        page.screenshot(path=Path(folder) / f"list {width}.png")
    page.set_viewport_size({"width": 1280, "height": 800})
    assert len(shown) > 5
    assert [(name, part) for name, part in shown if part < (0.99 if width >= 1440 else 0.6)] == []


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(seen, path) -> None:
    script = Path(os.environ.get("FIRSTREAD_AXE", "axe.min.js"))
    if not script.is_file():
        pytest.skip("set FIRSTREAD_AXE to axe.min.js (npm pack axe-core)")
    page = seen(path)
    page.evaluate(script.read_text())
    rules = "['wcag2a', 'wcag2aa', 'wcag2aaa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']"
    result = page.evaluate(f"async () => (await axe.run(document, {{runOnly: {rules}}})).violations")
    assert [(one["id"], one["help"], [node["html"][:120] for node in one["nodes"]]) for one in result] == []
