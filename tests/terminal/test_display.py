"""What a display knows, what it draws at 80 and 60 columns, and the lines that it prints elsewhere."""

import io
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from story import KILLED, NOON, STORY, SURVIVED, after, at, done, formed, start

from colossi.ledger.events import KINDS, Event
from colossi.terminal import plain
from colossi.terminal.live import REDRAWS, Display, render
from colossi.terminal.state import RunState, sentence
from colossi.terminal.trace import POINTS, Trace


def drawn(state: RunState, width: int, height: int = 24, now: float = NOON + 200) -> list[str]:
    """The picture as plain rows."""
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(render(state, now, width, height))
    return console.export_text().rstrip("\n").split("\n")


# ---- the state


def test_the_state_after_the_story() -> None:
    state = after(STORY)
    assert (state.incarnation, state.step, state.goal, state.done) == (2, 200, 800, 0.25)
    assert (state.checkpoint, state.saving, state.end) == (40, None, "")
    assert state.best == 8 / 200
    assert state.tokens_per_second == 8000
    assert state.mfu == pytest.approx(0.2)  # 1e7 FLOP x 8000 tok/s / 4e11 FLOP/s
    assert state.step_seconds == 1.0
    assert state.seconds_left(NOON + 200) == 600
    assert state.seconds_left(NOON + 200.5) == 599.5
    assert state.seconds_left(NOON + 999) == 599  # a step that takes long stops the clock, not the display
    assert state.note == "resumed from step 40 (disk)"


def test_a_resume_takes_back_what_is_done_again() -> None:
    state = after(
        [start(0), *(done(step) for step in range(1, 11)), at(12, "resumed", 2, from_step=4, source="disk")]
    )
    assert state.step == 4
    assert [step for step, _ in state.losses.shown] == [1, 2, 3, 4]


@given(st.integers(1, 3000))
@settings(max_examples=20, deadline=None)
def test_a_long_run_is_a_bounded_curve_with_the_same_mean(steps: int) -> None:
    trace = Trace()
    for step in range(1, steps + 1):
        trace = trace.add(step, float(step))
    assert len(trace.points) < POINTS
    assert trace.shown[-1][0] == steps
    assert [step for step, _ in trace.points] == [trace.stride * (i + 1) for i in range(len(trace.points))]
    total = trace.stride * sum(loss for _, loss in trace.points) + sum(loss for _, loss in trace.pending)
    assert total == pytest.approx(steps * (steps + 1) / 2)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    assert after([done(1, loss=math.nan), done(2, loss=3.0), done(3, loss=math.nan)]).best == 3.0


def test_a_workers_last_words_end_nothing() -> None:
    words = at(41, "failed", 1, 40, why="out of memory", rank=1)
    assert after([start(0), words]).end == ""
    assert after([start(0), words, at(42, "gave_up", 1, why="three failures in a minute")]).end == "gave_up"


def killed_at_20(*more: Event) -> RunState:
    fault = at(20.5, "fault", 1, 20, cause=KILLED, seconds_to_detect=0.25)
    return after([start(0), *(done(step) for step in range(1, 21)), fault, *more])


def test_a_run_that_is_back_says_what_it_cost() -> None:
    again = at(23, "step_done", 2, 19, loss=1.0, tokens=8000, seconds=1.0)
    state = killed_at_20(formed(20.75, 2, KILLED), at(21, "restored", 2, 18, from_step=18), again)
    assert state.note == f"{KILLED} at step 20; back at step 19 after 1.8s, 2 steps done again"
    assert (state.trouble, state.noted) == (None, NOON + 23)


def test_a_step_that_is_noted_just_after_the_fault_is_not_lost() -> None:
    state = killed_at_20(
        at(20.625, "step_done", 1, 21, loss=1.0, tokens=8000, seconds=0.5),
        formed(20.75, 2, KILLED),
        at(22, "step_done", 2, 22, loss=1.0, tokens=8000, seconds=1.0),
    )
    assert state.note == f"{KILLED} at step 21; back at step 22 after 0.75s, nothing lost"


def test_a_fault_that_training_outlives_is_no_trouble() -> None:
    assert killed_at_20().trouble is not None
    assert killed_at_20(done(22)).trouble is None
    assert killed_at_20(done(22)).note == f"{KILLED} at step 20"


def test_nobody_is_back_from_a_stop() -> None:
    state = killed_at_20(at(21, "stopped", 1, 20, why="Ctrl-C"), formed(99, 2, "Ctrl-C"), done(100, 2))
    assert state.note == "stopped at step 20: Ctrl-C"
    stopped = [start(0), done(1), at(2, "stopped", 1, 1, why="Ctrl-C")]
    assert after([*stopped, at(99, "promoted", 1, node="node-2", why="for node-1")]).trouble is None


SENTENCES = {
    "step_done": (done(1), ""),
    "what other sentences say": (at(0, "node_lost", node="node-1", why="silent"), ""),
    "fault": (at(0, "fault", 1, 40, cause="node-1 lost: silent"), "node-1 lost: silent at step 40"),
    "a fault with a step": (at(0, "fault", 1, 71, cause="corruption at step 70"), "corruption at step 70"),
    "promoted": (at(0, "promoted", node="node-2", why="for node-1"), "node-2 promoted: for node-1"),
    "shrunk": (at(0, "shrunk", node="node-1", why="3 of 4 nodes go on"), "shrunk: 3 of 4 nodes go on"),
    "waiting": (at(0, "waiting", why="1 of 2 nodes"), "waiting: 1 of 2 nodes"),
    "straggler": (at(0, "straggler", node="node-1", why="1.8x its peers"), "node-1 is slow: 1.8x its peers"),
    "corrupted": (
        at(0, "corrupted", 1, 70, node="node-1", rank=2, why="its own copy differs"),
        "node-1, rank 2 corrupted at step 70: its own copy differs",
    ),
    "quarantined": (at(0, "quarantined", node="node-1", why="2 faults"), "node-1 quarantined: 2 faults"),
    "chaos": (at(0, "chaos", fault="kill worker 1 at step 20"), "chaos: kill worker 1 at step 20"),
    "refused": (at(0, "refused", peer="127.0.0.1:9", why="no token"), "127.0.0.1:9 refused: no token"),
    "took over": (at(0, "controller_started", pid=7, took_over=True), "a new controller took over"),
    "gave up": (at(0, "gave_up", 1, 40, why="no nodes"), "gave up at step 40: no nodes"),
    "failed": (
        at(0, "failed", 1, 40, why="out of memory", rank=1),
        "failed at step 40 on rank 1: out of memory",
    ),
    "stopped": (at(0, "stopped", 1, 7, why="Ctrl-C"), "stopped at step 7: Ctrl-C"),
    "checkpoint": (
        at(0, "checkpoint_failed", 1, 7, why="disk full"),
        "checkpoint of step 7 failed: disk full",
    ),
    "damaged": (
        at(0, "checkpoint_damaged", folder="step-000040", why="checksum"),
        "step-000040 is damaged (checksum); the one before it is used",
    ),
    "evaluated": (
        at(0, "evaluated", task="chain_sum", questions=200, accuracy=0.945),
        "chain_sum: 94.5% of 200 questions right",
    ),
}


@pytest.mark.parametrize(("event", "words"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentences(event: Event, words: str) -> None:
    assert sentence(event) == words


# ---- the picture


def test_the_picture_at_80_by_24() -> None:
    rows = drawn(after(STORY), 80)
    assert len(rows) == 23  # one stays free for the cursor
    assert {len(row) for row in rows} == {80}
    assert rows[0].startswith("╭─ laptop on node-7 · incarnation 2 ──")
    assert rows[1].strip("│ ") == "4.21M parameters (1.64M active)  ·  shard 2 x expert 2  ·  2 workers"
    assert rows[3].rstrip("│ ").endswith("25%  200/800  10m00s left")
    assert "loss 0.0400   best 0.0400" in rows[5]
    text = "\n".join(rows)
    for fact in ("8,000 tok/s", "MFU 20.0%", "0.767", "rate 3.00e-03", "1.64M tokens", "step 40", "2.10"):
        assert fact in text
    assert "8 experts, busiest 1.00x" in text
    assert "resumed from step 40 (disk)" in rows[-2]


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (100, 30), (40, 24), (200, 60)])
def test_every_size_fits(width: int, height: int) -> None:
    for state in (
        after(STORY),
        after(STORY[:1]),
        RunState(name="empty"),
        after([done(1, expert_load=[1 / 256] * 256)]),
    ):
        rows = drawn(state, width, height)
        assert len(rows) <= height - 1
        assert {len(row) for row in rows} == {min(width, 120)}


def test_at_60_columns_the_experts_stand_below_the_numbers() -> None:
    rows = drawn(after(STORY), 60)
    (numbers,) = [i for i, row in enumerate(rows) if "8,000 tok/s" in row]
    (experts,) = [i for i, row in enumerate(rows) if "8 experts, busiest 1.00x" in row]
    assert experts > numbers


def test_before_the_first_step() -> None:
    rows = drawn(after([start(0)]), 80)
    assert any("waiting for the first step" in row for row in rows)
    assert any("nothing yet" in row for row in rows)
    assert any("started with 2 workers" in row for row in rows)


def test_a_saturated_router_is_marked() -> None:
    assert "3.01 ▲" in "\n".join(drawn(after([start(0), done(1, router_max=3.01)]), 80))
    assert "▲" not in "\n".join(drawn(after([start(0), done(1, router_max=3.0)]), 80))


def test_a_dense_model_has_neither_experts_nor_router() -> None:
    text = "\n".join(drawn(after([start(0), done(1, router_max=None, expert_load=[])]), 80))
    assert "experts" not in text
    assert "router" not in text


def test_a_name_with_brackets_is_shown_as_it_is() -> None:
    assert "[bold]x" in drawn(after([start(0)], name="[bold]x"), 80)[0]


@given(
    st.lists(
        st.builds(
            Event,
            time=st.floats(0, 1e6),
            kind=st.sampled_from(sorted(KINDS)),
            incarnation=st.integers(1, 3),
            step=st.one_of(st.none(), st.integers(0, 20)),
            data=st.dictionaries(
                st.sampled_from(
                    [
                        *("loss", "seconds", "tokens", "steps", "router_max", "gradient_norm", "from_step"),
                        *("seconds_to_detect", "reason", "workers", "missing", "spares"),
                    ]
                ),
                st.one_of(st.floats(), st.integers(0, 10), st.none()),
            ),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_no_history_breaks_the_picture(history: list[Event]) -> None:
    rows = drawn(after(history), 80, now=5e5)
    assert len(rows) <= 23
    plain.line(after(history))


def test_a_smaller_world_says_who_is_missing() -> None:
    def header(*events: Event) -> str:
        return drawn(after(events), 100)[1].strip("│ ").rpartition("·")[2].strip()

    assert header(formed(0, 1, spares=1), start(0)) == "2 workers, 1 spare"
    assert header(formed(0, 1, workers=1, missing=1), start(0, workers=1)) == "1 worker, 1 missing"


def test_the_end_of_a_run_that_gave_up() -> None:
    rows = drawn(after([start(0), done(1), at(2, "gave_up", 1, 1, why="no nodes")]), 80)
    assert rows[3].rstrip("│ ").endswith("1/800  gave up")


# ---- the driver


def test_on_a_terminal_it_draws_and_leaves_the_last_picture() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    with Display("laptop", console, clock=lambda: NOON + 200) as display:
        for event in STORY:
            display.update(event)
    assert "200/800" in screen.getvalue()
    assert screen.getvalue().count("incarnation 2") == 1  # drawn when it began, empty, and when it ended


def test_elsewhere_it_prints_lines() -> None:
    out = io.StringIO()
    with Display("laptop", Console(file=out), clock=lambda: NOON) as display:
        for event in STORY[:30]:
            display.update(event)
    assert out.getvalue().splitlines() == [
        "started with 2 workers",
        "step     1/800  loss 8.0000  8,000 tok/s  MFU 20.0%  left 13m19s",
        "step     2/800  loss 4.0000  8,000 tok/s  MFU 20.0%  left 13m18s",
        "step     5/800  loss 1.6000  8,000 tok/s  MFU 20.0%  left 13m15s",
        "step    10/800  loss 0.8000  8,000 tok/s  MFU 20.0%  left 13m10s",
        "step    20/800  loss 0.4000  8,000 tok/s  MFU 20.0%  left 13m00s",
    ]


def test_the_lines_say_what_happened_to_a_run_that_survives() -> None:
    out = io.StringIO()
    with Display("laptop", Console(file=out), clock=lambda: NOON) as display:
        for event in SURVIVED:
            display.update(event)
    lines = [line for line in out.getvalue().splitlines() if not line.startswith("step ")]
    assert lines == [
        "started with 2 workers",
        "worker 1 killed by SIGKILL at step 20",
        "incarnation 2 started with 2 workers",
        "worker 1 killed by SIGKILL at step 20; back at step 22 after 1.5s, nothing lost",
        "node-0 lost: silent at step 30",
        "shrunk: 1 of 2 nodes goes on",
        "incarnation 3 started with 1 worker",
        "node-0 lost: silent at step 30; back at step 29 after 3.5s, 2 steps done again",
        "grown: node-3 has come",
        "incarnation 4 started with 2 workers",
        "grown: node-3 has come at step 30; back at step 31 after 2.0s, nothing lost",
    ]


def test_a_line_says_only_what_is_known() -> None:
    assert plain.line(after([at(0, "step_done", step=3, loss=1.5)])) == "step  3  loss 1.5000"


DUE = {
    "the first": (1, 0.1, True),
    "an early one": (50, 0.1, True),
    "a common one": (51, 9.9, False),
    "after long silence": (51, 10.0, True),
    "a round one": (300, 5.0, True),
    "a round one of a fast run": (300, 0.1, False),
    "the last": (777, 0.1, True),
}


@pytest.mark.parametrize(("step", "silence", "answer"), DUE.values(), ids=DUE.keys())
def test_when_a_line_is_due(step: int, silence: float, answer: bool) -> None:
    assert plain.due(step, 777, silence) is answer


def test_a_picture_costs_little() -> None:
    state = after(STORY)
    console = Console(width=80, height=24, file=io.StringIO())
    begun = time.process_time()
    for _ in range(5):
        console.print(render(state, NOON, 80, 24))
    assert (time.process_time() - begun) / 5 < 0.1 / REDRAWS  # a tenth of a core, at most
