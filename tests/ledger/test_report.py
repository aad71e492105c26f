"""A report of small histories worked out by hand, and what holds for every history."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.ledger.clock import BESIDE, PARTS, account
from colossi.ledger.events import JSON, KINDS, Event
from colossi.ledger.report import Evaluation, Interruption, report


def at(time: float, kind: str, incarnation: int = 1, step: int | None = None, **data: JSON) -> Event:
    return Event(time=time, kind=kind, incarnation=incarnation, step=step, data=data)


def done(
    time: float, step: int, loss: float = 1.0, incarnation: int = 1, seconds: float = 1.0, stall: float = 0.0
) -> Event:
    return at(
        time, "step_done", incarnation, step, loss=loss, tokens=100, seconds=seconds, stall_seconds=stall
    )


def start(time: float, incarnation: int = 1, **data: JSON) -> Event:
    known: dict[str, JSON] = {"flops_per_token": 1e6, "peak_flops": 1e9, "steps": 5, "workers": 2}
    return at(time, "run_started", incarnation, None, **(known | data))


def parts(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(PARTS, 0.0) | seconds


INTERRUPTED = [
    start(0),
    done(3, 1, loss=2.0),  # 2 s of start-up, 1 s of work
    done(4.5, 2, loss=1.5, stall=0.25),  # 0.25 s of something else, 0.25 s of stall, 1 s of work
    at(6, "failed", why="killed by signal 9", rank=1),  # 1.5 s of a step that never ended
    start(8, 2),  # 2 s down
    at(9, "resumed", 2, from_step=1, source="disk"),
    done(11, 2, loss=1.25, incarnation=2),  # 2 s of start-up, 1 s of work done again
    done(12, 3, loss=1.5, incarnation=2),
    at(
        13, "checkpoint_complete", 2, 3, seconds=1.5, stall_seconds=0.0, bytes=10
    ),  # the end waits for it: 1 s
    at(13, "finished", 2, 3),
    at(500, "evaluated", 2, 3, task="chain_sum", questions=200, accuracy=0.25),  # not part of the run's time
    at(600, "evaluated", 2, 3, task="chain_sum", questions=200, accuracy=0.5),
]


def test_an_interrupted_run() -> None:
    told = report(INTERRUPTED)
    assert told.steps == 3
    assert told.goal == 5
    assert told.losses == ((1, 2.0), (2, 1.25), (3, 1.5))
    assert (told.final_loss, told.best_loss) == (1.5, 1.25)
    assert told.time == parts(
        productive=3.0, startup=4.0, checkpoint=1.25, recomputation=1.0, down=2.0, other=1.75
    )
    assert told.wall_seconds == 13.0
    assert told.paused_seconds == 0.0
    assert told.goodput == 3 / 13
    assert told.tokens == 300  # step 2 counts once
    assert told.tokens_per_second == 100.0
    assert told.mfu == pytest.approx(0.1)  # 100 tok/s x 1e6 FLOP / 1e9 FLOP/s
    assert told.evaluations == (Evaluation(task="chain_sum", questions=200, accuracy=0.5, step=3),)
    assert [(life.number, life.first_step, life.last_step, life.end) for life in told.incarnations] == [
        (1, 1, 2, "failed"),
        (2, 2, 3, "finished"),
    ]
    assert told.interruptions == (
        Interruption(
            incarnation=1,
            step=2,
            cause="killed by signal 9",
            rank=1,
            seconds={"down": 2.0, "startup": 2.0, "recomputation": 1.0},
        ),
    )


HISTORIES = {
    "nothing happened": ([], parts(), 0.0),
    "only started": ([start(5)], parts(), 0.0),
    "stopped and gone on later: the night between is paused": (
        [start(0), done(1, 1), at(1, "stopped", why="Ctrl-C"), start(1000, 2), done(1001, 2, incarnation=2)],
        parts(productive=2.0),
        999.0,
    ),
    "finished, and then prolonged": (
        [start(0), done(1, 1), at(1, "finished"), start(50, 2), done(52, 2, incarnation=2)],
        parts(productive=2.0, startup=1.0),
        49.0,
    ),
    "killed without a word": (
        [start(0), done(1, 1), start(4, 2), done(5, 2, incarnation=2)],
        parts(productive=2.0, down=3.0),
        0.0,
    ),
    "a step's seconds may hold its stall: 1 s from end to end": (
        [start(0), done(1, 1), done(2, 2, seconds=1.0, stall=0.25)],
        parts(productive=1.75, checkpoint=0.25),
        0.0,
    ),
    "or not": (
        [start(0), done(1, 1), done(2, 2, seconds=0.75, stall=0.25)],
        parts(productive=1.75, checkpoint=0.25),
        0.0,
    ),
    "a step cannot take longer than there was time": (
        [start(0), done(1, 1, seconds=7.0)],
        parts(productive=1.0),
        0.0,
    ),
    "a checkpoint in the background costs nothing": (
        [start(0), done(1, 1), at(1.5, "checkpoint_complete", step=1, seconds=0.5), done(2, 2)],
        parts(productive=2.0),
        0.0,
    ),
    "a clock that runs backwards takes no time": (
        [start(10), done(11, 1), done(5, 2), done(12, 3)],
        parts(productive=2.0),
        0.0,
    ),
    "the last word of the dead is too late": (
        [start(0), done(1, 1), start(2, 2), done(2.5, 2), done(4, 2, incarnation=2)],
        parts(productive=2.0, down=1.0, startup=1.0),
        0.0,
    ),
}


@pytest.mark.parametrize(("history", "time", "paused"), HISTORIES.values(), ids=HISTORIES.keys())
def test_where_the_time_went(history: list[Event], time: dict[str, float], paused: float) -> None:
    told = report(history)
    assert told.time == time
    assert told.paused_seconds == paused


def test_without_a_peak_there_is_no_mfu() -> None:
    assert report([start(0, peak_flops=None), done(1, 1)]).mfu is None


def test_a_run_that_grows_is_held_against_the_peak_of_its_time() -> None:
    # 100 tokens x 1e6 FLOP in 1 s on 1e9 FLOP/s, then the same on 3e9: 2e8 of 4e9
    grown = [start(0), done(1, 1), start(1, 2, peak_flops=3e9), done(2, 2, incarnation=2)]
    assert report(grown).mfu == pytest.approx(0.05)


def test_an_old_incarnation_does_not_overwrite_a_newer_loss() -> None:
    late = [start(0), start(1, 2), done(2, 1, loss=5.0, incarnation=2), done(3, 1, loss=7.0, incarnation=1)]
    assert report(late).losses == ((1, 5.0),)


def test_a_loss_that_is_no_number_is_null_in_json() -> None:
    told = report([start(0), done(1, 1, loss=3.0), done(2, 2, loss=math.nan)])
    assert told.best_loss == 3.0
    assert json.loads(json.dumps(told.as_json(), allow_nan=False))["losses"] == [[1, 3.0], [2, None]]


def test_json_has_the_promised_keys_and_full_precision() -> None:
    told = json.loads(json.dumps(report([start(0), done(1, 1, loss=1 / 3)]).as_json()))
    assert told["losses"] == [[1, 1 / 3]]
    promised = {
        "steps",
        "losses",
        "tokens_per_second",
        "mfu",
        "goodput",
        "time",
        "incarnations",
        "evaluations",
    }
    assert promised <= told.keys()


numbers = st.one_of(st.floats(), st.integers(-5, 5), st.none(), st.text(max_size=2))
wild = st.builds(
    Event,
    time=st.floats(0, 1e4),
    kind=st.sampled_from(sorted(KINDS)),
    incarnation=st.integers(1, 4),
    step=st.one_of(st.none(), st.integers(0, 8)),
    data=st.dictionaries(
        st.sampled_from(
            ["loss", "seconds", "stall_seconds", "tokens", "peak_flops", "rank", "steps", "task"]
        ),
        numbers,
    ),
)


@given(st.lists(wild, max_size=30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_history_adds_up(history: list[Event], in_order: bool) -> None:
    if in_order:
        history = sorted(history, key=lambda event: event.time)
    told = report(history)
    assert math.fsum(told.time.values()) == told.wall_seconds
    assert all(seconds >= 0 for seconds in told.time.values())
    assert told.goodput is None or 0 <= told.goodput <= 1
    assert [step for step, _ in told.losses] == sorted({step for step, _ in told.losses})
    json.dumps(told.as_json(), allow_nan=False)


@given(st.lists(wild.filter(lambda e: e.kind not in BESIDE), max_size=30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_parts_and_the_pauses_cover_the_whole_life(history: list[Event], pauses: bool) -> None:
    ends = {"finished", "stopped"}
    history = sorted(history, key=lambda event: (event.incarnation, event.time))
    history = [event for event in history if pauses or event.kind not in ends]
    spent = account(history)
    highest = max((event.time for event in history), default=0.0)
    first = history[0].time if history else 0.0
    total = math.fsum(spent.parts.values()) + spent.paused
    if pauses:
        assert total <= highest - first + 1e-6
    else:
        assert total == pytest.approx(max(0.0, highest - first), abs=1e-6)
