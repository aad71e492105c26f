"""What holds for the account of every history, however wild."""

import functools
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.ledger.clock import BEGINS, BESIDE, LOSSES, Account, Ongoing, World, account
from colossi.ledger.events import KINDS, Event
from colossi.ledger.report import report

numbers = st.one_of(st.floats(), st.integers(-5, 5), st.none(), st.text(max_size=2))
KEYS = [
    *("loss", "seconds", "stall_seconds", "snapshot_seconds", "seconds_to_detect", "tokens", "peak_flops"),
    *("rank", "steps", "task", "reason", "workers", "missing", "spares"),
]
wild = st.builds(
    Event,
    time=st.floats(0, 1e4),
    kind=st.sampled_from([*sorted(KINDS), "step_done", "fault", "incarnation_started"]),
    incarnation=st.integers(0, 4),
    step=st.one_of(st.none(), st.integers(0, 8)),
    data=st.dictionaries(st.sampled_from(KEYS), numbers),
)
close = functools.partial(pytest.approx, rel=1e-9, abs=1e-6)


@given(st.lists(wild, max_size=30), st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_history_adds_up(history: list[Event], in_order: bool) -> None:
    if in_order:
        history = sorted(history, key=lambda event: event.time)
    told = report(history)
    assert math.fsum(told.time.values()) == told.worker_seconds
    assert all(seconds >= 0 for seconds in told.time.values())
    assert told.goodput is None or 0 <= told.goodput <= 1
    assert told.ettr is None or 0 <= told.ettr <= 1 + 1e-9
    assert [step for step, _ in told.losses] == sorted({step for step, _ in told.losses})
    json.dumps(told.as_json(), allow_nan=False)


@given(st.lists(wild, max_size=30))
@settings(max_examples=200, deadline=None)
def test_the_interruptions_have_all_that_was_lost(history: list[Event]) -> None:
    told = report(history)
    for part in LOSSES:
        cost = math.fsum(one.worker_seconds[part] for one in told.interruptions)
        if part in ("detection", "restart"):
            assert cost == close(told.time[part])
        else:  # steps can be done again, and nodes be missing, without an interruption
            assert cost <= told.time[part] + 1e-6


@given(st.lists(wild, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_timeline_has_no_gap(history: list[Event]) -> None:
    told, end = report(history), 0.0
    for span in told.timeline:
        assert span.begin == close(end)
        end = span.begin + span.seconds
    assert end == close(told.wall_seconds)
    assert all(0 <= one.elapsed <= told.wall_seconds for one in told.interruptions)


def life(history: list[Event]) -> list[Event]:
    """In order of incarnation and time, without what belongs to no training."""
    return sorted(
        (event for event in history if event.kind not in BESIDE),
        key=lambda event: (event.incarnation, event.time),
    )


@given(st.lists(wild, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_wall_and_the_pauses_cover_the_whole_life(history: list[Event]) -> None:
    history = life(history)
    spent = account(history)
    highest = max((event.time for event in history), default=0.0)
    first = history[0].time if history else 0.0
    assert spent.wall + spent.paused <= highest - first + 1e-6


@given(st.lists(wild, max_size=30))
@settings(max_examples=100, deadline=None)
def test_every_worker_counts_as_long_as_its_world_lasts(history: list[Event]) -> None:
    history = [event for event in life(history) if event.kind not in ("finished", "stopped")]
    history = [*itertools.dropwhile(lambda event: event.kind == "quarantined", history)]  # before it began
    spent: Account = account(history)
    times = [*itertools.accumulate((event.time for event in history), max)]
    begun = next((event for event in history if event.kind in BEGINS), None)
    total, number, now = 0.0, 0, World.of(begun) if begun else World()
    for event, begin, end in zip(history, times, times[1:], strict=False):
        if event.kind in BEGINS and event.incarnation > number:
            number, now = event.incarnation, World.of(event)
        total += (end - begin) * (now.workers + now.missing + now.spares)
    assert math.fsum(spent.parts.values()) == close(total)


def lives(told: list[tuple[int, int, bool]], together: bool) -> list[Event]:
    """Incarnations that each go back some steps and do some, of 2 s; told one by one, or in one event."""
    events, now, step = [], 0.0, 0
    for incarnation, (back, steps, noticed) in enumerate(told, start=1):
        events.append(
            Event(
                time=now,
                kind="incarnation_started",
                incarnation=incarnation,
                data={"workers": 8, "spares": 2, "reason": "" if incarnation == 1 else "a node is lost"},
            )
        )
        step, now = max(step - back, 0), now + 5.0
        for size in [steps] if together else [1] * steps:
            step, now = step + size, now + 2.0 * size
            cost = {"seconds": 1.75 * size, "stall_seconds": 0.25 * size, "snapshot_seconds": 0.125 * size}
            data = {"steps": size, "tokens": 100 * size, **cost}
            events.append(Event(time=now, kind="step_done", incarnation=incarnation, step=step, data=data))
        now += 1.0
        if noticed:
            data = {"cause": "a node is lost", "seconds_to_detect": 0.5}
            events.append(Event(time=now, kind="fault", incarnation=incarnation, step=step, data=data))
    return events


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.booleans()), min_size=1, max_size=8))
def test_many_steps_in_one_word_are_the_same_steps(told: list[tuple[int, int, bool]]) -> None:
    single, together = account(lives(told, False)), account(lives(told, True))
    assert together.tokens == single.tokens
    assert together.wall == close(single.wall)
    assert together.parts == {part: close(seconds) for part, seconds in single.parts.items()}
    assert [one.steps_again for one in together.interruptions] == [
        one.steps_again for one in single.interruptions
    ]


@given(st.lists(wild, max_size=30))
@settings(max_examples=100, deadline=None)
def test_whoever_looks_in_between_changes_nothing(history: list[Event]) -> None:
    ongoing, seen = Ongoing(), []
    for count, event in enumerate(history, 1):
        ongoing.add(event)
        found = ongoing.account()
        seen.append((found, repr(found)))
        assert repr(found) == repr(account(history[:count]))
    assert all(repr(found) == then for found, then in seen)  # also what was seen early stays as it was
