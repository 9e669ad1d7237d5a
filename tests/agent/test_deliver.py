"""The outbox: order, retries, refusals, holds; a dead destination holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from firstread.agent import clock, deliver
from firstread.agent.deliver import DestinationWorker
from firstread.agent.lines import Outcome, Verdict
from firstread.agent.retries import backoff_s
from firstread.agent.store import deliveries, results, studies, watch
from firstread.agent.store.engine import StoreError
from firstread.agent.store.results import Artifact
from firstread.agent.store.tables import DeliveryState, delivery
from firstread.agent.triage import assess
from firstread.models.prediction import Assessment
from tests.agent.builders import Bench, moment


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request, tmp_path, monkeypatch):
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Bench(tmp_path / "spool", url)
    made.set_clock = lambda seconds: monkeypatch.setattr(clock, "now", lambda: moment(seconds))
    made.set_clock(0)
    yield made
    made.store.close()


class Script:
    """A line that answers as it is told and remembers what it was given."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []

    def send(self, content: bytes, identity: str) -> Outcome:
        self.sent.append(identity)
        return self.answers.pop(0) if self.answers else Outcome(Verdict.DELIVERED, "0000", "")

    def close(self) -> None:
        pass


def result_for(bench: Bench, study_uid: str, revision: int, now_s: float = 0.0, on_hold: Sequence[str] = ()) -> None:
    """A study has a result whose message waits for the RIS."""
    import hashlib

    content = f"{study_uid} {revision}".encode()
    one = Artifact("oru", f"{study_uid}/{revision}", ("ris",), hashlib.sha256(content).hexdigest(), 1, message=content)
    with bench.store.write() as connection:
        row = studies.find(connection, study_uid)
        if row is None:
            from firstread.models.prediction import StudyIdentity

            studies.create(connection, StudyIdentity(study_uid), "PACS", None, moment(now_s))
        elif row.state != "receiving":
            studies.reopen(connection, row.id, "late", "test", moment(now_s))
        open_study = studies.load(connection, studies.find(connection, study_uid))
        assert results.commit(
            connection,
            open_study,
            empty(study_uid, revision),
            [one],
            sent=True,
            on_hold=on_hold,
            actor="t",
            now=moment(now_s),
        )


def empty(study_uid: str, revision: int) -> Assessment:
    return assess(
        study_instance_uid=study_uid,
        revision=revision,
        created_at=moment(0).at,
        images=[],
        policy={},
        ordered=None,
        earlier=[],
    )


def worker(bench: Bench, line: Script, monkeypatch, **destination) -> DestinationWorker:
    monkeypatch.setattr(deliver, "open_line", lambda _settings, _destination: line)
    ris = bench.settings.destination("ris")
    return DestinationWorker(bench.settings, bench.store, ris.model_copy(update=destination), "test/deliver/1")


def states(bench: Bench) -> list[str]:
    with bench.store.read() as connection:
        return list(connection.execute(select(delivery.c.state).order_by(delivery.c.id)).scalars())


def retry(detail="busy") -> Outcome:
    return Outcome(Verdict.RETRY, "AR", detail)


def test_what_the_receiver_accepts_is_delivered_with_its_status(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    line = Script(Outcome(Verdict.DELIVERED, "AA", "stored"))
    assert worker(bench, line, monkeypatch).send_next()
    with bench.store.read() as connection:
        (row,) = deliveries.listed(connection)
    assert (row.state, row.status, row.detail) == (DeliveryState.DELIVERED, "AA", "stored")


def test_one_line_is_opened_for_all_that_a_destination_gets(bench, monkeypatch):
    for study in ("1.2.3", "1.2.4", "1.2.5"):
        result_for(bench, study, 1)
    line, opened = Script(), []
    one = worker(bench, line, monkeypatch)
    monkeypatch.setattr(deliver, "open_line", lambda _settings, destination: opened.append(destination) or line)
    while one.send_next():
        pass
    assert len(line.sent) == 3 and len(opened) == 1


def test_a_retry_waits_and_carries_the_same_identity(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    line = Script(retry())
    sender = worker(bench, line, monkeypatch)
    assert sender.send_next()
    assert states(bench) == [DeliveryState.PENDING] and not sender.send_next()
    bench.set_clock(400)
    assert sender.send_next()
    assert line.sent == ["1.2.3/1", "1.2.3/1"] and states(bench) == [DeliveryState.DELIVERED]


def test_three_refusals_are_a_rejection_with_an_alarm_that_says_what_to_do(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    refusal = Outcome(Verdict.REFUSED, "A900", "not for us")
    sender = worker(bench, Script(refusal, refusal, refusal), monkeypatch)
    for seconds in (0, 1000, 2000):
        bench.set_clock(seconds)
        assert sender.send_next()
    assert states(bench) == [DeliveryState.REJECTED]
    with bench.store.read() as connection:
        (alarm,) = watch.alarms(connection)
    assert "not for us" in alarm.text and "deliveries retry" in alarm.remedy


def test_a_receiver_that_asks_to_be_left_alone_is_with_everything_that_is_due(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    result_for(bench, "1.2.4", 1)
    line = Script(Outcome(Verdict.RETRY, "503", "busy", wait_s=600))
    sender = worker(bench, line, monkeypatch)
    assert sender.send_next() and not sender.send_next()
    bench.set_clock(599)
    assert not sender.send_next() and line.sent == ["1.2.3/1"]
    bench.set_clock(601)
    assert sender.send_next() and sender.send_next()
    assert sorted(line.sent) == ["1.2.3/1", "1.2.3/1", "1.2.4/1"]


class Stopping(Script):
    """Tells the worker to stop while the given sending is under way; the last by itself."""

    def __init__(self, after: int, *answers: Outcome) -> None:
        super().__init__(*answers)
        self.stop = threading.Event()
        self._after = after

    def send(self, content: bytes, identity: str) -> Outcome:
        answer = super().send(content, identity)
        if len(self.sent) == self._after:
            self.stop.set()
        return answer


def test_a_worker_sends_all_that_is_due_in_its_order(bench, monkeypatch):
    studies_due = [f"1.2.{number}" for number in range(5)]
    for study in studies_due:
        result_for(bench, study, 1)
    line = Stopping(len(studies_due))
    worker(bench, line, monkeypatch).run(line.stop)
    assert line.sent == [f"{study}/1" for study in studies_due]
    assert states(bench) == [DeliveryState.DELIVERED] * 5


def test_a_worker_that_stops_claims_nothing_more(bench, monkeypatch):
    for study in ("1.2.3", "1.2.4", "1.2.5"):
        result_for(bench, study, 1)
    line = Stopping(2)
    worker(bench, line, monkeypatch).run(line.stop)
    assert states(bench) == [DeliveryState.DELIVERED, DeliveryState.DELIVERED, DeliveryState.PENDING]


def test_what_is_due_next_is_claimed_only_with_the_answer_to_the_one_before(bench, monkeypatch):
    for study in ("1.2.3", "1.2.4"):
        result_for(bench, study, 1)
    seen: list[list[str]] = []

    class Looking(Stopping):
        def send(self, content: bytes, identity: str) -> Outcome:
            seen.append(states(bench))
            return super().send(content, identity)

    line, ends, failures = Looking(2), deliveries.end_delivered, [StoreError("the disk is full")]

    def end_delivered(*given, **named):
        done = ends(*given, **named)
        if failures:
            raise failures.pop()
        return done

    monkeypatch.setattr(deliver.deliveries, "end_delivered", end_delivered)
    monkeypatch.setattr(deliver, "RECORD_AGAIN_S", 0.0)
    worker(bench, line, monkeypatch).run(line.stop)
    assert seen == [
        [DeliveryState.SENDING, DeliveryState.PENDING],
        [DeliveryState.DELIVERED, DeliveryState.SENDING],
    ]
    assert line.sent == ["1.2.3/1", "1.2.4/1"], (
        "an answer that could not be kept at once is kept, and not asked for again"
    )
    assert states(bench) == [DeliveryState.DELIVERED] * 2


def test_a_worker_leaves_a_receiver_alone_that_asked_for_it(bench, monkeypatch):
    for study in ("1.2.3", "1.2.4"):
        result_for(bench, study, 1)
    line = Script(Outcome(Verdict.RETRY, "503", "busy", wait_s=600))
    sender = worker(bench, line, monkeypatch)
    assert sender._send_all() and line.sent == ["1.2.3/1"] and not sender._send_all()
    assert states(bench) == [DeliveryState.PENDING] * 2


def test_outages_are_no_refusals(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    sender = worker(bench, Script(*[retry("down")] * 10), monkeypatch)
    for attempt in range(10):
        bench.set_clock(1000 * attempt)
        assert sender.send_next()
    assert states(bench) == [DeliveryState.PENDING]


def test_the_older_revision_goes_first_and_the_newer_waits_for_it(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    with bench.store.write() as connection:
        held = deliveries.claim(connection, "ris", on_hold=False, owner="o", lease_s=60, now=moment(0))
    result_for(bench, "1.2.3", 2)
    line = Script()
    sender = worker(bench, line, monkeypatch)
    assert not sender.send_next()
    with bench.store.write() as connection:
        deliveries.end_delivered(connection, held, status="AA", detail="", actor="t", now=moment(1))
    assert sender.send_next() and line.sent == ["1.2.3/2"]


def test_a_failed_older_revision_is_superseded_by_the_newer_one(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    with bench.store.write() as connection:
        held = deliveries.claim(connection, "ris", on_hold=False, owner="o", lease_s=60, now=moment(0))
    result_for(bench, "1.2.3", 2)
    with bench.store.write() as connection:
        deliveries.retry_later(
            connection, held, delay_s=5, refused=False, status="", detail="down", actor="t", now=moment(1)
        )
    assert states(bench) == [DeliveryState.SUPERSEDED, DeliveryState.PENDING]


def test_a_waiting_retry_of_one_study_does_not_hold_up_another(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    result_for(bench, "1.2.4", 1)
    line = Script(retry())
    sender = worker(bench, line, monkeypatch)
    assert sender.send_next() and sender.send_next() and not sender.send_next()
    assert line.sent == ["1.2.3/1", "1.2.4/1"]


def test_a_destination_on_hold_keeps_back_until_released_and_then_sends_or_drops(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    line = Script()
    sender = worker(bench, line, monkeypatch, hold=True)
    assert not sender.send_next()
    with bench.store.write() as connection:
        assert deliveries.release(connection, "ris", on_hold=True, send=True, actor="t", now=moment(1)) == 1
    bench.set_clock(2)
    assert sender.send_next() and line.sent == ["1.2.3/1"]
    result_for(bench, "1.2.4", 1)
    with bench.store.write() as connection:
        assert deliveries.release(connection, "ris", on_hold=True, send=False, actor="t", now=moment(3)) == 1
    assert states(bench) == [DeliveryState.DELIVERED, DeliveryState.CANCELLED]


def test_a_worker_that_died_while_sending_sends_the_same_object_again(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    with bench.store.write() as connection:
        stale = deliveries.claim(connection, "ris", on_hold=False, owner="dead", lease_s=60, now=moment(0))
        assert deliveries.free_leases(connection, dead_prefix=None, actor="s", now=moment(59)) == 0
        assert deliveries.free_leases(connection, dead_prefix=None, actor="s", now=moment(61)) == 1
    bench.set_clock(62)
    line = Script()
    assert worker(bench, line, monkeypatch).send_next() and line.sent == ["1.2.3/1"]
    with bench.store.write() as connection:
        assert not deliveries.end_rejected(connection, stale, status="", detail="", actor="t", now=moment(70))
    assert states(bench) == [DeliveryState.DELIVERED]


def test_changed_bytes_are_never_sent(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    with bench.store.write() as connection:
        from firstread.agent.store.tables import artifact

        connection.execute(artifact.update().values(message=b"changed"))
    line = Script()
    assert worker(bench, line, monkeypatch).send_next()
    assert line.sent == [] and states(bench) == [DeliveryState.REJECTED]


def test_a_line_that_breaks_unexpectedly_is_a_retry(bench, monkeypatch):
    class Broken(Script):
        def send(self, content, identity):
            raise ValueError("bug")

    result_for(bench, "1.2.3", 1)
    assert worker(bench, Broken(), monkeypatch).send_next()
    assert states(bench) == [DeliveryState.PENDING]


def test_an_older_revision_never_follows_a_newer_one_by_hand(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    refusal = Outcome(Verdict.REJECTED, "AR/200", "no")
    assert worker(bench, Script(refusal), monkeypatch).send_next()
    result_for(bench, "1.2.3", 2)
    line = Script()
    sender = worker(bench, line, monkeypatch)
    assert sender.send_next()
    with bench.store.write() as connection:
        older = deliveries.listed(connection)[-1]
        assert not deliveries.retry_now(connection, older.id, "t", moment(1))
    assert not sender.send_next()
    assert line.sent == ["1.2.3/2"]
    assert states(bench) == [DeliveryState.SUPERSEDED, DeliveryState.DELIVERED]


def test_what_was_kept_back_stays_back_when_the_hold_is_taken_off(bench, monkeypatch):
    result_for(bench, "1.2.3", 1, on_hold=["ris"])
    line = Script()
    sender = worker(bench, line, monkeypatch, hold=False)
    assert not sender.send_next()
    result_for(bench, "1.2.4", 1)
    assert sender.send_next()
    result_for(bench, "1.2.5", 1)  # it merely waits: no release is meant for it
    with bench.store.write() as connection:
        assert deliveries.release(connection, "ris", on_hold=False, send=True, actor="t", now=moment(0)) == 1
    assert sender.send_next()
    assert line.sent == ["1.2.4/1", "1.2.3/1"]
    assert states(bench)[2] == DeliveryState.PENDING


def test_a_retry_by_hand_goes_past_a_hold(bench, monkeypatch):
    result_for(bench, "1.2.3", 1, on_hold=["ris"])
    line = Script()
    sender = worker(bench, line, monkeypatch, hold=True)
    assert not sender.send_next()
    with bench.store.write() as connection:
        (row,) = deliveries.listed(connection)
        assert deliveries.retry_now(connection, row.id, "t", moment(0))
    assert sender.send_next()


def test_by_hand_retry_cancel_and_send_again_leave_only_the_states_they_may(bench, monkeypatch):
    result_for(bench, "1.2.3", 1)
    assert worker(bench, Script(), monkeypatch).send_next()
    with bench.store.write() as connection:
        (row,) = deliveries.listed(connection)
        assert not deliveries.cancel(connection, row.id, "no", "t", moment(1))
        assert not deliveries.retry_now(connection, row.id, "t", moment(1))
        assert deliveries.send_again(connection, row.id, "t", moment(1))
        assert deliveries.cancel(connection, row.id, "no", "t", moment(1))
        assert deliveries.retry_now(connection, row.id, "t", moment(1))
        assert not deliveries.retry_now(connection, 9999, "t", moment(1))


def test_waiting_doubles_up_to_its_limit_with_jitter():
    waits = [backoff_s(attempt, 5, 300) for attempt in (1, 2, 3, 20, 1000)]
    for wait, plain in zip(waits, (5, 10, 20, 300, 300), strict=True):
        assert plain * 0.75 <= wait <= min(300, plain * 1.25)
