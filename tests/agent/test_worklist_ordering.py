"""The order of the reading list, as properties that hold for every list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from firstread.agent.worklist.ordering import Entry, Level, duration, in_order_of_arrival, next_change, order
from firstread.models.prediction import Priority

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LIMITS = {
    Priority.STAT: timedelta(minutes=30),
    Priority.URGENT: timedelta(minutes=120),
    Priority.ROUTINE: timedelta(minutes=480),
}
PRIORITIES = st.none() | st.sampled_from(list(Priority))
WAITS = st.integers(min_value=-30, max_value=2000).map(lambda minutes: timedelta(minutes=minutes))


@st.composite
def lists(draw: st.DrawFn) -> list[Entry]:
    count = draw(st.integers(0, 12))
    return [Entry(key, NOW - draw(WAITS), draw(PRIORITIES), draw(PRIORITIES)) for key in range(count)]


def waited(minutes: float, key: int = 1, ordered: Priority | None = None, result: Priority | None = None) -> Entry:
    return Entry(key, NOW - timedelta(minutes=minutes), ordered, result)


@given(lists(), st.randoms())
def test_the_order_holds_every_study_once_and_does_not_depend_on_the_order_of_asking(entries, shuffler) -> None:
    placed = order(entries, NOW, LIMITS)
    assert sorted(one.entry.key for one in placed) == sorted(entry.key for entry in entries)
    assert [one.rank for one in placed] == list(range(1, len(entries) + 1))
    mixed = list(entries)
    shuffler.shuffle(mixed)
    assert order(mixed, NOW, LIMITS) == placed


@given(lists())
def test_no_priority_is_ever_shown_lower_than_ordered_or_raised(entries) -> None:
    floor = {Priority.STAT: Level.STAT, Priority.URGENT: Level.URGENT, Priority.ROUTINE: Level.ROUTINE}
    for one in order(entries, NOW, LIMITS):
        assert one.priority >= (one.entry.ordered or Priority.ROUTINE)
        assert one.priority >= (one.entry.result or Priority.ROUTINE)
        assert one.level <= floor[one.priority]


@given(lists(), st.data())
def test_raising_a_study_never_moves_it_down(entries, data) -> None:
    if not entries:
        return
    chosen = data.draw(st.sampled_from(entries))
    before = next(one.rank for one in order(entries, NOW, LIMITS) if one.entry.key == chosen.key)
    raised = Entry(chosen.key, chosen.arrived_at, chosen.ordered, Priority(min(3, chosen.priority + 1)))
    others = [entry for entry in entries if entry.key != chosen.key]
    after = next(one.rank for one in order([*others, raised], NOW, LIMITS) if one.entry.key == chosen.key)
    assert after <= before


@given(lists(), lists())
def test_what_waited_for_all_its_limits_stands_behind_stat_and_earlier_risers_alone(entries, later) -> None:
    full = LIMITS[Priority.ROUTINE] + LIMITS[Priority.URGENT]
    everybody = entries + [Entry(100 + one.key, one.arrived_at, one.ordered, one.result) for one in later]
    placed = order(everybody, NOW, LIMITS)
    for one in placed:
        if NOW - one.entry.arrived_at < full:
            continue
        ahead = placed[: one.rank - 1]
        assert all(other.priority is Priority.STAT or other.waited for other in ahead)
        # Nothing that arrives from now on can be put before it, but a STAT.
        newcomers = [Entry(1000 + number, NOW, priority) for number, priority in enumerate(Priority)]
        again = order([*everybody, *newcomers], NOW, LIMITS)
        rank = next(other.rank for other in again if other.entry.key == one.entry.key)
        assert rank <= one.rank + 1


@given(lists(), st.integers(0, 3000))
def test_between_equals_the_one_who_waits_longer_is_read_first_and_stays_so(entries, minutes) -> None:
    later = NOW + timedelta(minutes=minutes)
    for moment in (NOW, later):
        placed = order(entries, moment, LIMITS)
        for one, other in pairwise(placed):
            if one.priority == other.priority:
                assert one.entry.arrived_at <= other.entry.arrived_at


@given(lists())
def test_the_order_holds_until_the_next_change_that_is_foretold(entries) -> None:
    change = next_change(entries, NOW, LIMITS)
    until = (change or NOW + timedelta(days=30)) - timedelta(seconds=1)
    keys = [one.entry.key for one in order(entries, NOW, LIMITS)]
    assert [one.entry.key for one in order(entries, max(NOW, until), LIMITS)] == keys


@given(lists())
def test_the_arrival_toggle_shows_the_same_studies_first_come_first(entries) -> None:
    arrival = in_order_of_arrival(entries)
    assert {entry.key for entry in arrival} == {entry.key for entry in entries}
    assert all(one.arrived_at <= other.arrived_at for one, other in pairwise(arrival))


@settings(max_examples=20)
@given(st.integers(200, 400))
def test_under_a_stream_of_urgent_films_a_routine_film_is_still_read(count) -> None:
    """One urgent film every 5 minutes and one reading every 5 minutes: without rising the routine film never comes."""
    waiting = {0: Entry(0, NOW)}
    for step in range(1, count):
        moment = NOW + timedelta(minutes=5 * step)
        waiting[step] = Entry(step, moment, result=Priority.URGENT)
        first = order(list(waiting.values()), moment, LIMITS)[0]
        del waiting[first.entry.key]
        if first.entry.key == 0:
            assert moment - NOW <= LIMITS[Priority.ROUTINE] + LIMITS[Priority.URGENT] + timedelta(minutes=5)
            return
    raise AssertionError("the routine film was never read")


def test_a_fresh_stat_stands_before_a_nights_backlog() -> None:
    backlog = [waited(900 + number, key=number) for number in range(1, 50)]
    assert order([*backlog, waited(0, key=99, result=Priority.STAT)], NOW, LIMITS)[0].entry.key == 99


def test_a_routine_film_that_waited_too_long_says_so() -> None:
    once, twice = order([waited(481, key=1), waited(601, key=2), waited(1, key=3)], NOW, LIMITS)[1::-1]
    assert (once.why, once.waited, once.level) == ("rose: waited over 8 h", True, Level.ROSE_TO_URGENT)
    assert (twice.why, twice.level) == ("rose: waited over 10 h", Level.ROSE_TO_STAT)


def test_why_names_the_order_or_the_result_whichever_is_higher() -> None:
    placed = order(
        [
            waited(1, key=1, ordered=Priority.STAT, result=Priority.URGENT),
            Entry(2, NOW, Priority.ROUTINE, Priority.URGENT, "raised: above 0.55"),
            waited(3, key=3),
        ],
        NOW,
        LIMITS,
    )
    assert [one.why for one in placed] == ["ordered STAT", "raised: above 0.55", "by arrival"]


def test_durations_read_as_people_say_them() -> None:
    said = [duration(timedelta(minutes=minutes)) for minutes in (0, 45, 60, 61, 120, 125)]
    assert said == ["0 min", "45 min", "1 h", "61 min", "2 h", "2 h 05 min"]
