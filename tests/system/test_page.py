"""A browser looks at the page: rows move where the eye can follow, the keyboard does everything, stale is said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from firstread.models.prediction import Priority
from tests.agent.web_seed import Morning, busy_morning
from tests.peers import require_peer
from tests.system.page_server import CHROMIUM_FLAGS, PageServer, served

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def browser():
    program = require_peer("chromium")
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=program, args=list(CHROMIUM_FLAGS))
        yield started
        started.close()


@pytest.fixture
def morning(tmp_path):
    made = Morning.on(tmp_path / "spool")
    yield made
    made.store.close()


@pytest.fixture
def server(morning):
    for number, name in enumerate(("ADAMS^AMY", "BROWN^BOB", "CLARK^CAL", "DAVIS^DAN", "EVANS^EVE")):
        morning.read(name, 50 - 5 * number)
    with served(morning) as running:
        yield running


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    made = Morning.on(tmp_path_factory.mktemp("busy") / "spool")
    ids = busy_morning(made)
    with served(made) as running:
        yield running, ids
    made.store.close()


class Look:
    """A browser page that keeps what went wrong in it."""

    def __init__(self, browser, server: PageServer, path: str = "/", **options) -> None:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        self.page = context.new_page()
        self.problems: list[str] = []
        self.page.on(
            "console", lambda message: message.type in ("error", "warning") and self.problems.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.foreign: list[str] = []
        self.page.on("request", lambda asked: asked.url.startswith(server.address) or self.foreign.append(asked.url))
        self.page.goto(server.address + path)
        self.live()

    def live(self) -> None:
        """Waits until the first whole list has come."""
        self.page.wait_for_selector("#rows", state="attached")
        self.page.wait_for_timeout(400)

    def names(self) -> list[str]:
        return [text.split(",")[0] for text in self.page.locator("#rows .row:not([hidden]) .who").all_inner_texts()]

    def until(self, holds: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Asks again and again: the page's own policy forbids what Playwright's waiting would evaluate in it."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"still waiting; the list is {self.names()}"
            self.page.wait_for_timeout(50)

    def first(self, name: str) -> None:
        self.until(lambda: self.names()[:1] == [name])

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.innerText || document.activeElement.id").split(",")[0]

    def top_of(self, name: str) -> float:
        return self.page.locator("#rows .row", has_text=name).bounding_box()["y"]

    def close(self) -> None:
        self.page.context.close()


@pytest.fixture
def look(browser, server):
    looking = Look(browser, server)
    yield looking
    looking.close()
    assert not looking.problems
    assert not looking.foreign, "nothing is asked of another host"


def raise_study(morning: Morning, name: str = "FOX^FAY", **found: float) -> int:
    morning.advance(0)
    return morning.read(name, 1, found=found or {"Pneumothorax": 0.9})


def test_a_raised_study_moves_to_the_top_where_the_eye_can_follow_and_is_marked_until_seen(look, morning) -> None:
    assert look.names() == ["ADAMS", "BROWN", "CLARK", "DAVIS", "EVANS"]
    look.page.evaluate(
        """() => {
            window.moves = [];
            const animate = Element.prototype.animate;
            Element.prototype.animate = function (frames, options) {
                const how = frames[0].transform || "fade";
                if (this.classList.contains("row")) window.moves.push([this.id, how, options.duration]);
                return animate.call(this, frames, options);
            };
        }"""
    )
    identity, entry_id = morning.film("FOX^FAY", 0.5)
    look.until(lambda: len(look.names()) == 6)
    assert look.names()[-1] == "FOX"
    morning.analyse(morning.claim(0.4), 0.3, Pneumothorax=0.9)
    morning.sum_up(identity, 0.2)
    look.first("FOX")
    assert look.names() == ["FOX", "ADAMS", "BROWN", "CLARK", "DAVIS", "EVANS"]
    moves = look.page.evaluate("window.moves")
    climbed = [move for move in moves if move[0] == f"s{entry_id}" and move[1].startswith("translateY(")]
    assert climbed, "the row moved, it did not jump"
    assert max(move[2] for move in moves) < 300
    row = look.page.locator(f"#s{entry_id}")
    assert "changed" in row.get_attribute("class")
    assert "STAT" in row.inner_text()
    assert "pneumothorax 0.90" in re.sub(r"\s+", " ", row.inner_text())
    row.hover()
    look.until(lambda: "changed" not in row.get_attribute("class"))


def test_a_change_is_on_the_screen_within_two_seconds(look, morning) -> None:
    began = time.monotonic()
    _, entry_id = morning.film("FOX^FAY", 0.1)
    look.page.wait_for_selector(f"#s{entry_id}")
    assert time.monotonic() - began < 2.0


def test_the_row_under_the_pointer_stays_under_it_until_it_is_left(look, morning) -> None:
    look.page.locator("#rows .row", has_text="BROWN").hover()
    before = look.top_of("BROWN")
    entry_id = raise_study(morning)
    look.page.wait_for_selector(f"#s{entry_id}.stat")
    look.page.wait_for_timeout(500)
    assert look.top_of("BROWN") == before
    assert look.names() == ["FOX", "BROWN", "ADAMS", "CLARK", "DAVIS", "EVANS"]
    assert "held here" in look.page.evaluate(
        "getComputedStyle(document.querySelector('.row.held .why'), '::before').content"
    )
    look.page.mouse.move(640, 780)
    look.until(lambda: look.names()[2] == "BROWN")
    assert look.names() == ["FOX", "ADAMS", "BROWN", "CLARK", "DAVIS", "EVANS"]


def test_the_focused_row_keeps_its_place_and_its_focus(look, morning) -> None:
    look.page.keyboard.press("j")
    assert look.focused() == "ADAMS"
    before = look.top_of("ADAMS")
    entry_id = raise_study(morning)
    look.page.wait_for_selector(f"#s{entry_id}.stat")
    look.page.wait_for_timeout(500)
    assert look.focused() == "ADAMS", "new on top never steals the focus"
    assert look.top_of("ADAMS") == before
    look.page.keyboard.press("j")
    assert look.focused() == "FOX", "it is the next one down while the focused row is held"
    look.until(lambda: look.names()[0] == "ADAMS")


def test_a_study_that_is_reported_while_it_is_pointed_at_stays_struck_out(look, morning) -> None:
    from firstread.agent.store.worklist import remove_entry

    row = look.page.locator("#rows .row", has_text="CLARK")
    row.hover()
    with morning.store.write() as connection:
        assert remove_entry(connection, 3, "reported elsewhere", morning.now, "t")
    look.page.wait_for_selector("#s3.gone")
    assert look.names()[2] == "CLARK"
    look.page.mouse.move(640, 780)
    look.page.wait_for_selector("#s3", state="detached")
    assert look.names() == ["ADAMS", "BROWN", "DAVIS", "EVANS"]


def test_without_motion_wanted_rows_do_not_move_but_are_marked(browser, server, morning) -> None:
    looking = Look(browser, server, reduced_motion="reduce")
    entry_id = raise_study(morning)
    looking.page.wait_for_selector(f"#s{entry_id}.stat.changed")
    assert looking.page.evaluate("document.getAnimations().length") == 0
    looking.close()


def test_everything_can_be_done_by_keyboard(browser, busy) -> None:
    server, ids = busy
    looking = Look(browser, server)
    page = looking.page
    for key, name in (("j", "DOE"), ("j", "HADDAD"), ("k", "DOE")):
        page.keyboard.press(key)
        assert looking.focused() == name
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel h2")
    assert page.url.endswith(f"/study/{ids['stat']}")
    assert page.locator("#panel h2").inner_text().startswith("DOE, JOHN")
    assert looking.focused() == "DOE", "the focus stays on the list"
    heat = page.locator("#heat")
    assert heat.is_visible()
    page.keyboard.press("h")
    assert not heat.is_visible()
    assert page.locator("#heat-toggle").get_attribute("aria-pressed") == "false"
    page.keyboard.press("h")
    assert heat.is_visible()
    page.locator('#panel a[data-label="Mass"]').focus()
    page.keyboard.press("Enter")
    assert page.locator("#heat").get_attribute("src").endswith("/heat/Mass.png")
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()
    assert page.url == server.address + "/"
    page.keyboard.press("a")
    assert looking.names()[0].startswith("森")
    assert page.url.endswith("?order=arrival")
    page.keyboard.press("a")
    assert looking.names()[0] == "DOE"
    page.keyboard.press("/")
    page.keyboard.type("effusion")
    assert page.locator("#rows .row:not([hidden])").count() == 2
    note = page.locator("#filter-note").inner_text()
    assert "hides 14 of 16" in note
    assert "2 of them STAT" in note
    page.keyboard.press("Escape")
    assert page.locator("#rows .row:not([hidden])").count() == 16
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    looking.close()
    assert not looking.problems


def test_going_back_and_forth_in_the_browser_opens_and_closes_studies(browser, busy) -> None:
    server, ids = busy
    looking = Look(browser, server)
    page = looking.page
    page.locator(f"#s{ids['effusion']}").click()
    page.wait_for_selector("#panel h2")
    page.go_back()
    page.wait_for_selector("#panel", state="hidden")
    page.go_forward()
    page.wait_for_selector("#panel h2")
    assert "ROE" in page.locator("#panel h2").inner_text()
    looking.close()


def test_a_lost_connection_is_said_with_its_time_and_mends_itself(look, server, morning) -> None:
    server.stop()
    look.page.wait_for_selector("#stale:not([hidden])", timeout=5000)
    said = look.page.locator("#stale").inner_text()
    assert re.search(r"Not live since \d\d:\d\d:\d\d", said)
    assert look.page.evaluate("getComputedStyle(document.querySelector('.row .wait time')).fontStyle") == "italic"
    entry_id = raise_study(morning)
    server.start()
    look.page.wait_for_selector(f"#s{entry_id}", timeout=15000)
    assert look.page.locator("#stale").is_hidden()
    assert look.names()[0] == "FOX", "what was missed is there"
    look.problems = [problem for problem in look.problems if "ERR_" not in problem]


@pytest.mark.slow
def test_a_server_that_falls_silent_is_noticed_though_the_connection_stands(browser, server, monkeypatch) -> None:
    monkeypatch.setattr("firstread.agent.web.live.PULSE_EVERY_S", 3600.0)
    looking = Look(browser, server)
    looking.page.wait_for_selector("#stale:not([hidden])", timeout=20000)
    looking.close()


def test_a_list_that_cannot_be_read_is_not_shown_as_live(browser, server, morning, monkeypatch) -> None:
    from firstread.agent.store.engine import StoreBusy

    looking = Look(browser, server)

    def busy(*_):
        raise StoreBusy("the database is held by another process")

    monkeypatch.setattr("firstread.agent.store.reading_list.change_mark", busy)
    looking.page.wait_for_selector("#stale:not([hidden])", timeout=10000)
    assert "held by another process" in looking.page.locator("#stale").inner_text()
    monkeypatch.undo()
    looking.page.wait_for_selector("#stale", state="hidden", timeout=15000)
    looking.close()


def test_the_open_study_follows_when_its_result_comes(look, morning) -> None:
    identity, entry_id = morning.film("FOX^FAY", 0.5)
    look.page.locator(f"#s{entry_id}").click()
    look.page.wait_for_selector("#panel .working-line")
    morning.analyse(morning.claim(0.4), 0.3, Pneumothorax=0.9)
    morning.sum_up(identity, 0.2)
    look.page.wait_for_selector("#panel .all-findings tr.present")
    assert "pneumothorax" in look.page.locator("#panel tr.present").inner_text()


def test_waiting_times_tick_without_the_server(look) -> None:
    before = look.page.locator("#s1 time").inner_text()
    assert re.fullmatch(r"5\d min", before)
    look.page.evaluate("performance.now = (now => () => now.call(performance) + 600000)(performance.now)")
    look.until(lambda: look.page.locator("#s1 time").inner_text() != before)
    assert look.page.locator("#s1 time").inner_text() == f"{int(before[:2]) + 10} min"


def test_without_a_script_the_list_and_the_study_are_there(browser, busy) -> None:
    server, ids = busy
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server.address}/study/{ids['stat']}?heat=off")
    assert page.locator("#rows .row").count() == 16
    assert page.locator("#panel h2").inner_text().startswith("DOE")
    assert page.locator("#heat").is_hidden()
    assert "not live without its script" in page.locator("noscript .stale").inner_text()
    page.goto(f"{server.address}/?order=arrival")
    assert page.locator("#rows .row .who").first.inner_text().startswith("森")
    context.close()


def test_an_order_over_the_wire_moves_the_row_on_the_screen(look, morning) -> None:
    """From an MLLP socket to the screen: the handler, the database, the live feed, the browser."""
    from firstread.agent.worklist.inbox import Inbox
    from firstread.integration.hl7.mllp import MllpClient, MllpServer
    from tests.agent.test_worklist_inbox import order

    with (
        MllpServer("127.0.0.1", 0, Inbox(morning.store)) as mllp,
        MllpClient("127.0.0.1", mllp.address[1]) as ris,
    ):
        answer = ris.send(order("77", accession="A26-4005", patient="P100205"), "77")
    assert answer.delivered
    look.first("EVANS")
    assert "ordered STAT" in look.page.locator("#s5").inner_text()
    with morning.store.read() as connection:
        from firstread.agent.store import studies

        assert studies.find(connection, "2.25.4711005").ordered_priority == Priority.STAT
