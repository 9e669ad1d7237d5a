"""/health, /ready, /metrics and the system view tell how the agent really stands."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from firstread.agent import clock
from firstread.agent.store import deliveries, events, watch
from firstread.agent.store.tables import DeliveryState
from firstread.agent.web.app import create_app
from firstread.models.findings import ReasonCode
from tests.agent.test_web_page import HERE, text, token
from tests.agent.web_seed import Morning


@pytest.fixture
def morning(tmp_path):
    made = Morning.on(tmp_path / "spool")
    yield made
    made.store.close()


@pytest.fixture
def client(morning):
    return TestClient(create_app(morning.settings, morning.store), base_url=HERE)


def metrics(client) -> dict[tuple, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_health_is_good_while_every_role_beats_and_bad_when_one_is_silent(morning, client) -> None:
    morning.roles()
    assert (client.get("/health").status_code, client.get("/health").json()["status"]) == (200, "good")
    morning.roles(dead=("deliver",))
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["problems"][0]["what"] == "role deliver"
    assert answer.json()["problems"][0]["remedy"]


def test_health_misses_a_role_that_was_never_started(morning, client) -> None:
    with morning.store.write() as connection:
        watch.beat(connection, "web", "h/web/1", {}, morning.now)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert {one["what"] for one in answer.json()["problems"]} == {
        f"role {name}" for name in ("receive", "analyse", "studies", "deliver")
    }


def test_an_alarm_is_told_without_a_restart_being_asked_for(morning, client) -> None:
    morning.roles()
    with morning.store.write() as connection:
        watch.raise_alarm(
            connection, "destination/ris", severity="critical", text="ris does not answer", remedy="look at it",
            actor="t", now=morning.now,
        )  # fmt: skip
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "alarm")
    assert answer.json()["alarms"][0]["text"] == "ris does not answer"


def test_an_alarm_that_names_a_patient_is_not_told_to_those_who_did_not_log_in(tmp_path) -> None:
    morning = Morning.on(tmp_path / "spool", web={"host": "0.0.0.0", "password": "word"})
    morning.roles()
    with morning.store.write() as connection:
        watch.raise_alarm(
            connection, "identity/1.2.3", severity="warning", text="was P1 DOE^JOHN", remedy="x", actor="t",
            now=morning.now,
        )  # fmt: skip
    answer = TestClient(create_app(morning.settings, morning.store), base_url="http://a.example").get("/health")
    morning.store.close()
    assert answer.json()["alarms"] == [{"kind": "identity", "severity": "warning", "since": morning.now.at.isoformat()}]


def test_ready_waits_for_the_receiver_and_for_nothing_else(morning, client) -> None:
    assert client.get("/ready").status_code == 503
    with morning.store.write() as connection:
        watch.beat(connection, "receive", "h/receive/1", {"listening": False}, clock.now())
    assert client.get("/ready").status_code == 503
    with morning.store.write() as connection:
        watch.beat(connection, "receive", "h/receive/1", {"listening": True}, clock.now())
    assert client.get("/ready").json() == {"ready": True, "words": "associations are accepted"}
    with morning.store.write() as connection:
        watch.beat(connection, "receive", "h/receive/1", {"listening": True}, clock.now().plus(-120))
    assert client.get("/ready").status_code == 503


def test_metrics_count_queues_latencies_batches_deliveries_and_refusals(morning, client) -> None:
    morning.roles(batch_sizes={"1": 5, "8": 2})
    morning.read("DOE^JOHN", 20, found={"Mass": 0.9}, in_full=True)
    morning.read("ROE^ANNA", 10, reason=ReasonCode.LATERAL_VIEW)
    morning.film("KOCH^KURT", 4)
    with morning.store.write() as connection:
        for status in ("A700", "A700", "C000"):
            events.record(connection, clock.now(), "refused", "receive", status=status, why="disk")
    told = metrics(client)
    assert told["firstread_images", ("state", "waiting")] == 1
    assert told["firstread_studies", ("state", "not_analysed")] == 1
    assert told["firstread_worklist_entries", ("state", "open")] == 3
    assert told["firstread_oldest_waiting_seconds", ("queue", "images")] == pytest.approx(240, abs=30)
    assert told["firstread_oldest_waiting_seconds", ("queue", "worklist")] == pytest.approx(1200, abs=30)
    assert told["firstread_oldest_waiting_seconds", ("queue", "delivery:pacs")] > 1000
    assert told["firstread_stage_latency_seconds", ("quantile", "0.5"), ("stage", "analyse")] == pytest.approx(
        18, abs=2
    )
    assert told["firstread_stage_ended", ("stage", "result")] == 2
    assert told["firstread_deliveries", ("destination", "worklist"), ("kind", "oru"), ("state", "delivered")] == 2
    assert told["firstread_deliveries", ("destination", "pacs"), ("kind", "sr"), ("state", "pending")] == 1
    assert told["firstread_refused_films", ("status", "A700")] == 2
    assert told["firstread_batch_films_bucket", ("le", "1.0")] == 5
    assert told["firstread_batch_films_count",] == 7
    assert told["firstread_batch_films_sum",] == 21
    assert told["firstread_role_alive", ("role", "analyse")] == 1
    assert told["firstread_associations",] == 2
    assert told["firstread_refusing_associations",] == 0


def test_metrics_name_nobody(morning, client) -> None:
    morning.roles()
    morning.read("DOE^JOHN", 20)
    said = client.get("/metrics").text
    for part in ("DOE", "P1002", "2.25.", "A26-"):
        assert part not in said


def link(page: str, name: str) -> str:
    import re

    rows = re.findall(r"<tr class=.*?</tr>", page, re.S)
    return next(text(row) for row in rows if text(row).startswith(name))


def test_each_link_says_its_state_its_last_success_and_what_to_do(morning, client) -> None:
    morning.roles()
    morning.read("DOE^JOHN", 1, in_full=True)
    morning.fail("ris", 0.5, "127.0.0.1:2 refuses the connection")
    morning.deliver("pacs", 0.2)
    page = client.get("/system").text
    assert "● up" in link(page, "PACS in")
    assert "● up" in link(page, "model")
    assert "● up" in link(page, "pacs")
    ris = link(page, "ris")
    assert "✕ down" in ris
    assert "1 result waiting since" in ris
    assert "refuses the connection" in ris
    assert "never" in ris
    assert "firstread config check" in ris
    assert "✕ ris down" in text(client.get("/").text).replace("  ", " ")


def test_a_link_that_was_never_used_is_no_trouble_and_a_rejection_is(morning, client) -> None:
    morning.roles()
    assert "○ unused" in link(client.get("/system").text, "ris")
    assert "all links up" in client.get("/").text
    morning.read("DOE^JOHN", 1, in_full=True)
    morning.deliver("pacs", 0.2)
    with morning.store.write() as connection:
        held = deliveries.claim(connection, "ris", on_hold=False, owner="d", lease_s=9, now=morning.now)
        deliveries.end_rejected(connection, held, status="AR", detail="no", actor="d", now=morning.now)
    said = link(client.get("/system").text, "ris")
    assert "▲ trouble" in said
    assert "1 result rejected in the last 24 h" in said
    assert "firstread deliveries" in said
    page = client.get("/study/1").text
    assert f"firstread deliveries retry {held.id}" in page
    form = {"token": token(page), "study": "1"}
    assert client.post(f"/delivery/{held.id}/retry", data={}).status_code == 403
    assert (
        client.post(f"/delivery/{held.id}/retry", data=form, follow_redirects=False).headers["location"] == "/study/1"
    )
    assert "rejected" not in link(client.get("/system").text, "ris")
    assert client.post("/delivery/9999/retry", data=form).status_code == 409


def test_a_destination_on_hold_says_how_much_it_keeps_back(tmp_path) -> None:
    held = {"name": "ris", "type": "hl7", "host": "127.0.0.1", "port": 2, "hold": True}
    morning = Morning.on(tmp_path / "spool", destinations=[held])
    morning.roles()
    morning.read("DOE^JOHN", 300, in_full=True)
    client = TestClient(create_app(morning.settings, morning.store), base_url=HERE)
    page = client.get("/system").text
    said = link(page, "ris")
    client.post("/destination/ris/release", data={"token": token(page)})
    after = link(client.get("/system").text, "ris")
    morning.store.close()
    assert "kept back" not in after
    assert "held" in said
    assert "on hold, 1 result kept back" in said
    assert "firstread deliveries release ris" in said


def test_a_dead_receiver_and_a_dead_analyser_are_down(morning, client) -> None:
    morning.roles(dead=("receive", "analyse"))
    page = client.get("/system").text
    assert "✕ down" in link(page, "PACS in")
    assert "✕ down" in link(page, "model")


def test_the_latest_refusals_come_with_a_remedy(morning, client) -> None:
    morning.roles()
    with morning.store.write() as connection:
        for number in range(25):
            events.record(
                connection, morning.now, "refused", "receive", status="A700", why=f"disk full {number}",
                calling_ae_title="CR1", address="10.0.0.7",
            )  # fmt: skip
        events.record(
            connection, morning.now, "association rejected", "receive", why="calling AE unknown", calling_ae_title="X"
        )
    page = text(client.get("/system").text)
    assert page.count("disk full") == 19
    assert "free disk space" in page
    assert "CR1 (10.0.0.7)" in page
    assert "calling AE unknown" in page
    assert "disk full 24" in page
    assert "disk full 5 " not in page


def test_plots_are_described_for_those_who_do_not_see_them(morning, client) -> None:
    morning.roles()
    morning.read("DOE^JOHN", 20)
    page = client.get("/system/parts").text
    assert 'aria-label="films received an hour, last 24 hours: highest 1 films, last hour 1 films"' in page


def test_states_of_deliveries_are_all_shown(morning, client) -> None:
    morning.roles()
    page = text(client.get("/system").text)
    for state in DeliveryState:
        assert state.value in page


def test_without_tables_health_says_what_to_do(tmp_path) -> None:
    from firstread.agent.config import Settings
    from firstread.agent.store.engine import Store

    (tmp_path / "spool").mkdir()
    settings = Settings.model_validate({"storage": {"path": str(tmp_path / "spool")}})
    client = TestClient(create_app(settings, Store(settings.database_url)), base_url=HERE)
    for path in ("/health", "/ready"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "firstread db upgrade" in answer.text
    assert "firstread db upgrade" in client.get("/").text
