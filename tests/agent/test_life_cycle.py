"""Images and studies through their states: leases, quiet periods, clocks that jump."""

from __future__ import annotations

import pytest

from firstread.agent import clock
from firstread.agent.clock import boot_seconds
from firstread.agent.store import events, images, studies
from firstread.agent.store.tables import ImageState, StudyState
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Priority, Reason, StudyIdentity
from tests.agent.builders import Bench, moment


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request, tmp_path):
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Bench(tmp_path / "spool", url)
    yield made
    made.store.close()


@pytest.fixture
def at(monkeypatch):
    """Sets what clock.now() answers."""

    def set_to(when):
        monkeypatch.setattr(clock, "now", lambda: when)
        return when

    set_to(moment(0))
    return set_to


def ready(bench, now, quiet=10.0, longest=300.0):
    with bench.store.read() as connection:
        return studies.ready_to_sum_up(connection, quiet_period_s=quiet, max_open_s=longest, limit=10, now=now)


def state_of(bench, uid="1.2.3"):
    with bench.store.read() as connection:
        row = studies.find(connection, uid)
        return row.state, row.revision


def test_a_study_is_ready_when_it_is_quiet_and_its_images_have_ended(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    assert ready(bench, moment(60)) == []
    assert bench.end_analysed(claim, moment(2))
    assert ready(bench, moment(9.9)) == []
    assert [one.identity.study_instance_uid for one in ready(bench, moment(10))] == ["1.2.3"]


def test_a_film_that_comes_meanwhile_starts_the_quiet_period_again(bench, at):
    bench.receive()
    at(moment(8))
    bench.receive()
    for claim in bench.claim(moment(9)):
        bench.end_analysed(claim, moment(9))
    assert ready(bench, moment(17.9)) == []
    assert len(ready(bench, moment(18))) == 1


def test_a_study_whose_images_do_not_end_is_summed_up_after_its_longest_time(bench, at):
    bench.receive()
    assert ready(bench, moment(299)) == []
    (late,) = ready(bench, moment(300))
    assert [image.state for image in late.images] == [ImageState.WAITING]


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_set_forth_or_back_does_not_move_the_quiet_period(bench, at, jump_s):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    bench.end_analysed(claim, moment(2))
    assert ready(bench, moment(5, wall=5 + jump_s)) == []
    assert len(ready(bench, moment(10, wall=10 + jump_s))) == 1


def test_after_a_reboot_waiting_goes_by_wall_time(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    bench.end_analysed(claim, moment(2))
    assert ready(bench, moment(5, boot="boot-2")) == []
    assert len(ready(bench, moment(11, boot="boot-2"))) == 1


def test_two_analysers_never_hold_one_image(bench, at):
    for _ in range(4):
        bench.receive()
    first, second = bench.claim(moment(1), limit=3), bench.claim(moment(1), limit=3)
    assert len(first) == 3 and len(second) == 1
    assert not {one.id for one in first} & {one.id for one in second}


def test_a_worker_that_was_stopped_and_goes_on_writes_nothing(bench, at):
    bench.receive()
    (stale,) = bench.claim(moment(1))
    with bench.store.write() as connection:
        images.free_leases(connection, dead_prefix=None, max_attempts=3, actor="studies", now=moment(100))
    (fresh,) = bench.claim(moment(101))
    assert not bench.end_analysed(stale, moment(102))
    assert bench.end_analysed(fresh, moment(103))


def test_a_live_lease_is_not_freed(bench, at):
    bench.receive()
    bench.claim(moment(1))
    with bench.store.write() as connection:
        assert images.free_leases(connection, dead_prefix=None, max_attempts=3, actor="s", now=moment(60)) == 0
        assert images.free_leases(connection, dead_prefix="other/", max_attempts=3, actor="s", now=moment(60)) == 0
        assert (
            images.free_leases(connection, dead_prefix="test/analyse/1#", max_attempts=3, actor="s", now=moment(60))
            == 1
        )


def test_what_fails_three_times_is_not_analysed_with_the_last_error(bench, at):
    bench.receive()
    for attempt in (1, 2, 3):
        (claim,) = bench.claim(moment(attempt))
        assert claim.attempts == attempt
        with bench.store.write() as connection:
            images.fail_attempt(connection, claim, f"error {attempt}", max_attempts=3, actor="a", now=moment(attempt))
    assert bench.claim(moment(9)) == []
    (one,) = ready(bench, moment(20))
    (image,) = one.images
    assert image.state is ImageState.NOT_ANALYSED
    assert image.reason == Reason(ReasonCode.PROCESSING_FAILED, "3 attempts, the last one: error 3")


def test_an_image_that_failed_before_is_claimed_alone(bench, at):
    for _ in range(3):
        bench.receive()
    (claim,) = bench.claim(moment(1), limit=1)
    with bench.store.write() as connection:
        images.fail_attempt(connection, claim, "crash", max_attempts=3, actor="a", now=moment(1))
    assert [one.id for one in bench.claim(moment(2))] == [claim.id]
    assert len(bench.claim(moment(3))) == 2


def test_an_image_that_is_given_back_has_not_used_an_attempt(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    with bench.store.write() as connection:
        assert images.give_back(connection, claim, why="shutdown", actor="a", now=moment(1))
    (again,) = bench.claim(moment(2))
    assert again.attempts == 1


def test_a_replaced_image_whose_analysis_ends_late_writes_nothing(bench, at):
    bench.receive(sop="1.2.9")
    (claim,) = bench.claim(moment(1))
    bench.receive(sop="1.2.9", InstanceNumber=7)
    assert not bench.end_analysed(claim, moment(2))
    assert len(bench.claim(moment(3))) == 1


def test_an_image_that_ends_after_the_result_opens_the_study_again(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    (late,) = ready(bench, moment(400))
    with bench.store.write() as connection:
        assert studies.end(connection, late, Reason(ReasonCode.PROCESSING_FAILED), "studies", moment(400))
    assert state_of(bench) == (StudyState.NOT_ANALYSED, 1)
    assert bench.end_analysed(claim, moment(401))
    assert state_of(bench) == (StudyState.RECEIVING, 2)
    assert len(ready(bench, moment(402))) == 1


def test_a_summing_up_that_was_overtaken_by_a_film_is_void(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    bench.end_analysed(claim, moment(2))
    (read,) = ready(bench, moment(20))
    bench.receive()
    with bench.store.write() as connection:
        assert not studies.end(connection, read, None, "studies", moment(21))
    assert state_of(bench) == (StudyState.RECEIVING, 1)


def test_every_arrow_leaves_its_event(bench, at):
    bench.receive()
    (claim,) = bench.claim(moment(1))
    bench.end_analysed(claim, moment(2))
    (one,) = ready(bench, moment(20))
    with bench.store.write() as connection:
        studies.end(connection, one, None, "studies", moment(20))
        studies.reopen(connection, one.id, "replayed", "replay", moment(21))
        images.analyse_again(connection, one.id, actor="replay", now=moment(21))
        kinds = [event.kind for event in events.of_study(connection, one.id)]
    assert kinds == [
        "received", "work item made", "claimed", "image analysed", "analysed", "reopened", "analysed again",
    ]  # fmt: skip


def test_an_ordered_priority_is_kept_and_never_lowered(bench, at):
    bench.receive()
    with bench.store.write() as connection:
        for priority in (Priority.URGENT, Priority.STAT, Priority.ROUTINE):
            studies.set_ordered_priority(
                connection, study_instance_uid="", accession_number="ACC1", priority=priority, now=moment(1)
            )
        assert studies.find(connection, "1.2.3").ordered_priority == Priority.STAT


def test_a_thousand_waiting_films_do_not_slow_a_claim(bench, at):
    with bench.store.write() as connection:
        study_id = studies.create(connection, StudyIdentity("1.2.3"), "PACS", None, moment(0))
        for number in range(1000):
            stored = images.StoredInstance(
                f"1.2.3.{number}", "1.2.3.1", "1.2", "1.2", "id:1", True, f"films/{number}", 1, "0", {}
            )
            images.add(connection, stored, study_id, None, moment(0))
    plan = "EXPLAIN QUERY PLAN " if bench.store.is_sqlite else "EXPLAIN "
    current = "current = 1" if bench.store.is_sqlite else "current"  # as claim() asks
    query = f"SELECT id FROM instance WHERE state = 'waiting' AND {current} ORDER BY id LIMIT 8"
    with bench.store.read() as connection:
        if not bench.store.is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        words = " ".join(str(row) for row in connection.exec_driver_sql(plan + query))
    assert "ix_instance_state_instance_current_inst" in words and "TEMP B-TREE" not in words and "Sort" not in words
    assert len(bench.claim(moment(1), limit=8)) == 8


def test_boot_seconds_never_go_back():
    first = boot_seconds()
    assert boot_seconds() >= first
