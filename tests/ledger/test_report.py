"""A report of small histories worked out by hand."""

import json
import math

import pytest

from colossi.ledger.clock import Interruption
from colossi.ledger.events import Event
from colossi.ledger.report import Evaluation, report

from .histories import at, done, lost, parts, start, world

# ---- a run of before there was a controller: two workers, nothing but run_started says so

INTERRUPTED = [
    start(0),
    done(3, 1, loss=2.0),  # 2 s of start-up, 1 s of work
    done(4.5, 2, loss=1.5, stall=0.25),  # 0.25 s of nothing, 0.25 s of stall, 1 s of work
    at(6, "failed", why="killed by signal 9", rank=1),  # 1.5 s of a step that never ended
    start(8, 2),
    at(9, "resumed", 2, from_step=1, source="disk"),
    done(11, 2, loss=1.25, incarnation=2),  # restarted from second 6 to 10, then 1 s of work done again
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
    # each second counts for two workers
    assert told.time == parts(
        productive=6.0, startup=4.0, checkpoint=2.5, restart=8.0, recomputation=5.0, idle=0.5
    )
    assert (told.wall_seconds, told.worker_seconds) == (13.0, 26.0)
    assert told.paused_seconds == 0.0
    assert told.goodput == told.ettr == 3 / 13
    assert told.tokens == 300  # step 2 counts once
    assert told.tokens_per_second == 100.0
    assert told.mfu == pytest.approx(0.1)  # 100 tok/s x 1e6 FLOP / 1e9 FLOP/s
    assert told.evaluations == (Evaluation(task="chain_sum", questions=200, accuracy=0.5, step=3),)
    assert [(life.number, life.first_step, life.last_step, life.end) for life in told.incarnations] == [
        (1, 1, 2, "interrupted"),
        (2, 2, 3, "finished"),
    ]
    assert told.interruptions == (
        Interruption(
            incarnation=1,
            time=6.0,
            elapsed=6.0,
            step=2,
            cause="killed by signal 9",
            node=None,
            rank=1,
            steps_again=1,
            seconds=lost(restart=4.0, recomputation=2.5),
            worker_seconds=lost(restart=8.0, recomputation=5.0),
        ),
    )


# ---- a run that survives: two nodes of one worker and a spare; a kill, a lost node, a shrink, a grow

SURVIVED = [
    at(0, "controller_started", 0, pid=7, took_over=False),
    *(at(0.5, "node_joined", 0, node=f"node-{number}") for number in range(3)),
    world(1, 1, workers=2, spares=1),
    start(1.5),
    done(3, 1),  # 2 s of start-up
    at(4, "step_done", 1, 2, loss=1.0, tokens=100, seconds=1.0, snapshot_seconds=0.25),
    at(  # 0.5 s of work are lost, 0.25 s until it is known
        4.75, "fault", 1, 2, cause="worker 1 killed by SIGKILL", node="node-1", rank=1, seconds_to_detect=0.25
    ),
    at(5, "workers_stopped", 1, 2),
    world(5, 2, workers=2, spares=1, reason="worker 1 killed by SIGKILL"),
    start(5.125, 2),
    at(5.25, "restored", 2, 2, from_step=2, source="memory", seconds=0.1),
    done(6.25, 3, incarnation=2),  # 0.5 s of restart, and no step is done again
    done(7.25, 4, incarnation=2),
    at(9.0, "node_lost", 2, 4, node="node-0", why="silent"),
    at(9.25, "fault", 2, 4, cause="node-0 lost: silent", node="node-0", seconds_to_detect=1.5),  # 0.5 s lost
    at(10, "promoted", 2, 4, node="node-2", why="for node-0"),
    world(10.25, 3, workers=2, reason="node-0 lost: silent"),  # the spare is none any more
    at(11.25, "restored", 3, 3, from_step=3, source="buddy", seconds=0.5),
    done(12.25, 4, incarnation=3),  # 2 s of restart, 1 s of work done again
    done(13.25, 5, incarnation=3),
    at(13.75, "fault", 3, 5, cause="node-1 lost: closed", node="node-1", seconds_to_detect=0),  # 0.5 s lost
    at(14, "waiting", 3, 5, why="1 of 2 nodes"),  # 0.25 s of restart, then 2 s in vain
    world(16, 4, workers=1, missing=1, reason="node-1 lost: closed"),
    done(18.5, 6, incarnation=4, seconds=2.0),  # 0.5 s of restart
    at(19, "node_joined", 4, 6, node="node-3"),
    done(20.5, 7, incarnation=4, seconds=2.0),
    at(20.75, "grown", 4, 7, node="node-3", why="node-3 has come"),
    world(21, 5, workers=2, reason="node-3 has come"),
    done(22.25, 8, incarnation=5),  # 0.75 s of restart, 0.5 s of them in the small world
    at(22.25, "checkpoint_begun", 5, 8),
    at(23.25, "checkpoint_complete", 5, 8, seconds=1.0, bytes=10),
    at(23.25, "finished", 5, 8),
    at(23.5, "workers_stopped", 5, 8),
]


def test_a_run_that_survives() -> None:
    """Two workers and a spare to second 10.25, two to 16, one of two to 21, two again to 23.25."""
    told = report(SURVIVED)
    assert told.time == parts(
        productive=2 * 3.75
        + 2 * 1
        + 1 * 4
        + 2 * 1,  # steps 1 to 4, without 0.25 s of snapshot; 5; 6 and 7; 8
        startup=2 * 2,
        snapshot=2 * 0.25,
        checkpoint=2 * 1,
        detection=2 * 0.25 + 2 * 1.5,
        restart=2 * 0.5 + 2 * 2 + 2 * 0.25 + 1 * (0.5 + 0.5) + 2 * 0.25,
        recomputation=2 * 0.5 + 2 * (0.5 + 1) + 2 * 0.5,
        waiting=2 * 2 + 1 * 5,  # both for two seconds, and one for the five of the small world
        idle=1 * 10.25,  # the spare
    )
    assert told.wall_seconds == 23.25
    assert told.worker_seconds == 3 * 10.25 + 2 * 5.75 + 2 * 5 + 2 * 2.25
    assert told.goodput == 15.5 / 56.75
    assert told.ettr == 9.75 / 23.25
    assert told.tokens == 800
    assert [life.end for life in told.incarnations] == ["interrupted"] * 4 + ["finished"]
    assert [(life.workers, life.missing, life.spares) for life in told.incarnations] == [
        (2, 0, 1),
        (2, 0, 1),
        (2, 0, 0),
        (1, 1, 0),
        (2, 0, 0),
    ]
    assert [(life.from_step, life.source) for life in told.incarnations[:3]] == [
        (None, ""),
        (2, "memory"),
        (3, "buddy"),
    ]


def test_what_each_interruption_cost() -> None:
    told = report(SURVIVED)
    facts = [(one.step, one.cause, one.node, one.rank, one.steps_again) for one in told.interruptions]
    assert facts == [
        (2, "worker 1 killed by SIGKILL", "node-1", 1, 0),
        (4, "node-0 lost: silent", "node-0", None, 1),
        (5, "node-1 lost: closed", "node-1", None, 0),
        (7, "node-3 has come", None, None, 0),
    ]
    assert [one.seconds for one in told.interruptions] == [
        lost(detection=0.25, restart=0.5, recomputation=0.5),
        lost(detection=1.5, restart=2.0, recomputation=1.5),
        lost(restart=0.75, recomputation=0.5, waiting=2.0),
        lost(restart=0.75),
    ]
    assert [one.worker_seconds for one in told.interruptions] == [
        lost(detection=0.5, restart=1.0, recomputation=1.0),
        lost(detection=3.0, restart=4.0, recomputation=3.0),
        lost(restart=1.0, recomputation=1.0, waiting=9.0),  # with the worker that was missing from 16 to 21
        lost(restart=1.0),  # 0.5 s of one worker, 0.25 s of two
    ]


def test_the_timeline_of_a_run_that_survives() -> None:
    drawn = [(span.part, span.incarnation, span.begin, span.workers) for span in report(SURVIVED).timeline]
    assert drawn == [
        ("startup", 0, 0.0, 2),
        ("startup", 1, 1.0, 2),
        ("training", 1, 2.0, 2),
        ("recomputation", 1, 4.0, 2),
        ("detection", 1, 4.5, 2),
        ("restart", 1, 4.75, 2),
        ("restart", 2, 5.0, 2),
        ("training", 2, 5.25, 2),
        ("recomputation", 2, 7.25, 2),
        ("detection", 2, 7.75, 2),
        ("restart", 2, 9.25, 2),
        ("restart", 3, 10.25, 2),
        ("recomputation", 3, 11.25, 2),
        ("training", 3, 12.25, 2),
        ("recomputation", 3, 13.25, 2),
        ("restart", 3, 13.75, 2),
        ("waiting", 3, 14.0, 2),
        ("restart", 4, 16.0, 1),
        ("training", 4, 16.5, 1),
        ("restart", 4, 20.5, 1),
        ("restart", 5, 21.0, 2),
        ("training", 5, 21.25, 2),
    ]


def alone(time: float, incarnation: int = 1) -> Event:
    return start(time, incarnation, workers=1)


HISTORIES = {
    "nothing happened": ([], parts(), 0.0),
    "only started": ([alone(5)], parts(), 0.0),
    "stopped and gone on later: the night between is paused": (
        [alone(0), done(1, 1), at(1, "stopped", why="Ctrl-C"), alone(1000, 2), done(1001, 2, incarnation=2)],
        parts(productive=2.0),
        999.0,
    ),
    "finished, and then prolonged": (
        [alone(0), done(1, 1), at(1, "finished"), alone(50, 2), done(52, 2, incarnation=2)],
        parts(productive=2.0, startup=1.0),
        49.0,
    ),
    "killed without a word: nobody knew until the next start": (
        [alone(0), done(1, 1), alone(4, 2), done(5, 2, incarnation=2)],
        parts(productive=2.0, detection=3.0),
        0.0,
    ),
    "a step's seconds may hold its stall: 1 s from end to end": (
        [alone(0), done(1, 1), done(2, 2, seconds=1.0, stall=0.25)],
        parts(productive=1.75, checkpoint=0.25),
        0.0,
    ),
    "or not": (
        [alone(0), done(1, 1), done(2, 2, seconds=0.75, stall=0.25)],
        parts(productive=1.75, checkpoint=0.25),
        0.0,
    ),
    "a step cannot take longer than there was time": (
        [alone(0), done(1, 1, seconds=7.0)],
        parts(productive=1.0),
        0.0,
    ),
    "a checkpoint in the background costs nothing": (
        [alone(0), done(1, 1), at(1.5, "checkpoint_complete", step=1, seconds=0.5), done(2, 2)],
        parts(productive=2.0),
        0.0,
    ),
    "a clock that runs backwards takes no time": (
        [alone(10), done(11, 1), done(5, 2), done(12, 3)],
        parts(productive=2.0),
        0.0,
    ),
    "the last word of the dead is too late": (
        [alone(0), done(1, 1), alone(2, 2), done(2.5, 2), done(4, 2, incarnation=2)],
        parts(productive=2.0, detection=1.0, restart=1.0),
        0.0,
    ),
    "a step that rank 0 notes just after a fault is done": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(1.75, "fault", cause="killed", seconds_to_detect=0.25),
            done(2, 2),
            world(3, 2, workers=1, reason="killed"),
            done(4, 3, incarnation=2),
        ],
        parts(productive=3.0, restart=1.0),
        0.0,
    ),
    "a fault that training outlives costs nothing": (
        [
            world(0, 1, workers=1, spares=1),
            done(1, 1),
            at(1.5, "fault", cause="spare lost"),
            done(2, 2),
            done(3, 3),
        ],
        parts(productive=3.0, idle=3.0),
        0.0,
    ),
    "two faults at once": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(
                2, "fault", cause="one", seconds_to_detect=0.5
            ),  # half a second of work, and half until it was known
            at(4, "fault", cause="two", seconds_to_detect=0.5),  # 1.5 s of restart in vain
            world(5, 2, workers=1, reason="two"),  # 1 s of restart
            done(6, 2, incarnation=2),
        ],
        parts(productive=2.0, recomputation=0.5, detection=1.0, restart=2.5),
        0.0,
    ),
    "a worker's own words, then the fault: it is the fault that counts": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(1.5, "failed", why="ValueError", rank=0),
            at(2, "fault", cause="worker 0 raised ValueError", seconds_to_detect=0.25),
            world(3, 2, workers=1),
            done(4, 2, incarnation=2),
        ],
        parts(productive=2.0, recomputation=0.75, detection=0.25, restart=1.0),
        0.0,
    ),
    "the controller dies and training goes on": (
        [world(0, 1, workers=1), done(1, 1), at(1.5, "controller_started", 0, took_over=True), done(2, 2)],
        parts(productive=2.0),
        0.0,
    ),
    "everything dies: silence until a new controller comes": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(1.5, "checkpoint_begun", step=1),  # the last sign of life: half a second of work is lost
            at(9.5, "controller_started", 1, took_over=True),
            world(10, 2, workers=1, reason="the controller was dead"),
            done(12, 2, incarnation=2),
        ],
        parts(productive=2.0, recomputation=0.5, detection=8.0, restart=1.5),
        0.0,
    ),
    "a change that the controller wanted: all of it is restart": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(2, "workers_stopped"),
            at(2, "grown", why="from 1 to 2 copies"),
            world(2, 2, workers=1),
            done(4, 2, incarnation=2),
        ],
        parts(productive=2.0, restart=2.0),
        0.0,
    ),
    "a run that has not enough nodes to begin": (
        [
            at(0, "controller_started", 0),
            at(1, "waiting", 0, why="no nodes"),
            world(5, 1, workers=1),
            done(7, 1),
        ],
        parts(productive=1.0, startup=2.0, waiting=4.0),
        0.0,
    ),
    "what follows giving up is lost": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(2, "gave_up", why="no space left"),
            at(5, "controller_started", 1),
            world(6, 2, workers=1),
            done(8, 2, incarnation=2),
        ],
        parts(productive=2.0, recomputation=1.0, restart=5.0),
        0.0,
    ),
    "stopped while it recovers": (
        [
            world(0, 1, workers=1),
            done(1, 1),
            at(1, "fault", cause="x"),
            at(3, "waiting", why="y"),
            at(6, "stopped"),
        ],
        parts(productive=1.0, restart=2.0, waiting=3.0),
        0.0,
    ),
}


@pytest.mark.parametrize(("history", "time", "paused"), HISTORIES.values(), ids=HISTORIES.keys())
def test_where_the_time_went(history: list[Event], time: dict[str, float], paused: float) -> None:
    told = report(history)
    assert told.time == time
    assert told.paused_seconds == paused


def test_a_fault_that_training_outlives_is_no_interruption() -> None:
    history, _, _ = HISTORIES["a fault that training outlives costs nothing"]
    assert report(history).interruptions == ()
    assert report(history).incarnations[0].end == ""


def test_a_change_says_why() -> None:
    history, _, _ = HISTORIES["a change that the controller wanted: all of it is restart"]
    assert [one.cause for one in report(history).interruptions] == ["grown: from 1 to 2 copies"]


def test_an_end_by_the_controllers_death_is_told() -> None:
    history, _, _ = HISTORIES["everything dies: silence until a new controller comes"]
    (one,) = report(history).interruptions
    assert (one.cause, one.step, one.time) == ("ended without a word", 1, 9.5)


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
        "ettr",
        "worker_seconds",
        "time",
        "incarnations",
        "interruptions",
        "timeline",
        "evaluations",
    }
    assert promised <= told.keys()


def test_the_load_of_each_expert_is_the_mean_of_the_newest_steps() -> None:
    # 100 steps count: of 2 + 99, the first is left out. (0.5 + 99 * 0.25) / 100 = 0.2525.
    shares = [[1.0, 0.0], [0.5, 0.5], *([[0.25, 0.75]] * 99)]
    steps = [at(i, "step_done", 1, i, seconds=1.0, expert_load=load) for i, load in enumerate(shares, 1)]
    assert report([start(0), *steps]).expert_load == pytest.approx((0.2525, 0.7475))
    assert report([start(0), done(1, 1)]).expert_load == ()
