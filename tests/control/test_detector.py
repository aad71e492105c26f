"""Readings become changes: once each, at the right time, and not for nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.control.detector import Heartbeats, Progress, Stragglers

# --- heartbeats -------------------------------------------------------------------------------------------


def test_a_silent_node_is_told_once() -> None:
    beats = Heartbeats(15.0)
    beats.beat("a", 0.0)
    beats.beat("b", 1.0)
    beats.beat("a", 10.0)
    assert beats.overdue(16.0) == []
    assert beats.overdue(16.1) == ["b"]
    assert beats.overdue(20.0) == []
    beats.beat("b", 21.0)  # it was only slow
    assert beats.overdue(30.0) == ["a"]
    assert beats.overdue(40.0) == ["b"]


def test_a_forgotten_node_is_not_missed() -> None:
    beats = Heartbeats(15.0)
    beats.beat("a", 0.0)
    beats.forget("a")
    beats.forget("never seen")
    assert beats.overdue(100.0) == []


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.sampled_from("abcd"), st.sampled_from(["beat", "forget", "ask"]))
    )
)
def test_heartbeats_do_as_a_plain_table_does(readings: list[tuple[float, str, str]]) -> None:
    beats, table, now = Heartbeats(5.0), dict[str, float](), 0.0
    for seconds, name, what in readings:
        now += seconds
        if what == "beat":
            beats.beat(name, now)
            table[name] = now
        elif what == "forget":
            beats.forget(name)
            table.pop(name, None)
        else:
            late = {name for name, heard in table.items() if now - heard > 5.0}
            assert set(beats.overdue(now)) == late
            table = {name: heard for name, heard in table.items() if name not in late}


# --- progress ---------------------------------------------------------------------------------------------


def running(*steps: float) -> Progress:
    """Since 0, with steps that ended then."""
    progress = Progress()
    progress.restart(0.0)
    for now in steps:
        progress.step(now)
    return progress


def test_before_the_first_step_there_is_much_time() -> None:
    progress = running()
    assert progress.overdue(600.0) is None
    assert progress.overdue(601.0) == 601.0
    assert progress.overdue(700.0) is None  # once


def test_after_some_steps_five_of_them_are_too_long() -> None:
    progress = running(30.0, 34.0, 38.0, 60.0)  # 4, 4 and 22 s; the first took who knows what
    assert progress.overdue(80.0) is None
    assert progress.overdue(80.1) == pytest.approx(20.1)


def test_short_steps_have_a_floor() -> None:
    progress = running(1.0, 1.1, 1.2)
    assert progress.overdue(11.2) is None
    assert progress.overdue(11.3) is not None


def test_an_evaluation_is_no_hang_and_no_step() -> None:
    progress = running(30.0, 34.0, 38.0)
    progress.other(55.0)
    assert progress.overdue(70.0) is None
    progress.step(75.0)
    assert progress.patience == 20.0  # the median is still 4 s


def test_nobody_is_expected_to_get_on_while_all_stop() -> None:
    progress = running(30.0, 34.0)
    progress.pause()
    progress.step(35.0)  # late
    progress.other(35.0)
    assert progress.overdue(1000.0) is None


def test_the_next_incarnation_has_its_start_up_but_knows_the_steps() -> None:
    progress = running(30.0, 34.0, 38.0)
    progress.restart(100.0)
    assert progress.overdue(700.0) is None
    progress.step(700.0)
    assert progress.patience == 20.0


# --- stragglers -------------------------------------------------------------------------------------------


def test_one_rank_is_slower_for_ten_steps() -> None:
    slow = Stragglers()
    found = [slow.on([1.0, 1.1, 1.5, 1.0]) for _ in range(10)]
    assert found == [None] * 9 + [(2, 1.5)]  # over the median of 1.0, 1.0 and 1.1


def test_a_single_good_step_starts_the_count_anew() -> None:
    slow = Stragglers()
    steps = [[1.0, 1.0, 1.5]] * 9 + [[1.0, 1.0, 1.2]] + [[1.0, 1.0, 1.5]] * 9
    assert [slow.on(step) for step in steps] == [None] * 19


def test_who_stays_slow_is_told_of_less_and_less() -> None:
    slow = Stragglers(steps=10)
    told = [step for step in range(1, 100) if slow.on([1.0, 1.0, 2.0])]
    assert told == [10, 20, 40, 80]


def test_new_workers_begin_with_a_clean_slate() -> None:
    slow = Stragglers(steps=2)
    slow.on([1.0, 2.0])
    slow.restart()
    assert slow.on([1.0, 2.0]) is None
    assert slow.on([1.0, 2.0]) == (1, 2.0)


def test_of_two_the_worse_first() -> None:
    slow = Stragglers(steps=2)
    step = [2.0, 1.0, 3.0, 1.0, 1.0]
    assert [slow.on(step) for _ in range(3)] == [None, (2, 3.0), (0, 2.0)]


@pytest.mark.parametrize("seconds", [[], [1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.3, 1.2, 1.25]])
def test_nobody_is_slow(seconds: list[float]) -> None:
    """Alone, or without anything to compare with, or within 1/0.75."""
    slow = Stragglers(steps=1)
    assert slow.on(seconds) is None
