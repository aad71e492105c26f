"""The ledger's promises: whole appends, exact numbers, nothing rewritten, readers beside a writer."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colossi.errors import RunError, WorkFailed
from colossi.ledger.events import JSON, Event
from colossi.ledger.store import PAGE, ROUND, Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.create_or_open(path) as opened:
        yield opened


def step(number: int, incarnation: int = 1, **data: JSON) -> Event:
    return Event(time=1000.0 + number, kind="step_done", incarnation=incarnation, step=number, data=data)


def test_what_is_appended_is_read_in_order(ledger: Ledger) -> None:
    start = Event(time=1.5, kind="run_started", incarnation=1, data={"layout": {"shard": 2}, "hostname": "a"})
    ledger.append(start)
    ledger.append(step(1, loss=2.0), step(2, loss=1.0))
    assert list(ledger.events()) == [(1, start), (2, step(1, loss=2.0)), (3, step(2, loss=1.0))]
    assert list(ledger.events("step_done")) == [(2, step(1, loss=2.0)), (3, step(2, loss=1.0))]
    assert list(ledger.events(after=2)) == [(3, step(2, loss=1.0))]
    assert list(ledger.events("finished")) == []


def test_a_long_ledger_is_read_page_by_page(ledger: Ledger) -> None:
    ledger.append(*(step(number) for number in range(2 * PAGE + 1)))
    assert [event.step for _, event in ledger.events()] == list(range(2 * PAGE + 1))


def test_it_is_still_there_when_opened_again(path: Path) -> None:
    with Ledger.create_or_open(path) as first:
        first.append(step(1))
    with Ledger.open(path) as second:
        assert [event for _, event in second.events()] == [step(1)]


@given(loss=st.floats(), when=st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_come_back_to_the_last_bit(ledger: Ledger, loss: float, when: float) -> None:
    ledger.append(Event(time=when, kind="step_done", incarnation=1, step=1, data={"loss": loss}))
    *_, (_, event) = ledger.events()
    back = event.data["loss"]
    assert isinstance(back, float)
    assert event.time.hex() == (when + 0.0).hex() or when == 0  # SQLite has one zero
    assert back.hex() == loss.hex() or (math.isnan(back) and math.isnan(loss))


def test_incarnations_count_from_one(ledger: Ledger) -> None:
    assert ledger.next_incarnation() == 1
    ledger.append(step(1, incarnation=1), step(1, incarnation=2))
    assert ledger.next_incarnation() == 3


def test_unknown_kinds_are_refused_and_nothing_of_them_is_written(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no such kind of event: \\['step_dome'\\]"):
        ledger.append(step(1), Event(time=0.0, kind="step_dome", incarnation=1))
    assert list(ledger.events()) == []


REWRITES = {
    "change a row": "UPDATE events SET data = '{}' WHERE id = 1",
    "change all": "UPDATE events SET time = 0",
    "remove a row": "DELETE FROM events WHERE id = 1",
    "remove all": "DELETE FROM events",
    "replace a row": "INSERT OR REPLACE INTO events VALUES (1, 0.0, 'finished', 1, NULL, '{}')",
}


@pytest.mark.parametrize("statement", REWRITES.values(), ids=REWRITES.keys())
def test_nothing_can_be_rewritten(ledger: Ledger, path: Path, statement: str) -> None:
    ledger.append(step(1, loss=0.5))
    stranger = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
        stranger.execute(statement)
    stranger.close()
    assert [event for _, event in ledger.events()] == [step(1, loss=0.5)]


def test_a_text_file_is_not_a_ledger(path: Path) -> None:
    path.write_text("step,loss\n" * 100)
    with pytest.raises(RunError, match=r"ledger.sqlite: not a ledger of colossi: file is not a database$"):
        Ledger.create_or_open(path)
    assert path.read_text() == "step,loss\n" * 100


def test_another_programs_database_is_not_a_ledger(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    with pytest.raises(RunError, match=r"an SQLite file, but not a ledger of colossi$"):
        Ledger.create_or_open(path)


def test_a_ledger_of_the_future_says_so(ledger: Ledger, path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(RunError, match=r"written by a newer colossi \(ledger version 99\)"):
        Ledger.open(path)


def test_a_missing_ledger_is_not_made_by_reading(path: Path) -> None:
    with pytest.raises(RunError, match="there is no ledger"):
        Ledger.open(path)
    assert not path.exists()


def test_a_folder_or_a_missing_parent_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "no" / "such" / "ledger.sqlite"):
        with pytest.raises(RunError, match="not a ledger of colossi: unable to open database file"):
            Ledger.create_or_open(where)


def test_a_damaged_ledger_is_reported_in_one_line(path: Path) -> None:
    with Ledger.create_or_open(path) as ledger:
        ledger.append(*(step(number, text="x" * 100) for number in range(500)))
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    with Ledger.open(path) as ledger, pytest.raises(RunError, match=r"cannot read the ledger: .*malformed"):
        list(ledger.events())


def test_a_full_disk_is_reported_in_one_line(ledger: Ledger, path: Path) -> None:
    pages = "PRAGMA max_page_count = 1"  # SQLite's own way to play a full disk
    with ledger._engine.connect() as connection:
        connection.exec_driver_sql(pages)
    with pytest.raises(WorkFailed, match="cannot write to the ledger: database or disk is full"):
        ledger.append(*(step(number, text="x" * 1000) for number in range(100)))
    assert list(ledger.events()) == []


def test_an_sqlalchemy_url_works_too(path: Path) -> None:
    with Ledger.create_or_open(f"sqlite:///{path}") as ledger:
        ledger.append(step(1))
    with Ledger.open(path) as ledger:
        assert len(list(ledger.events())) == 1


PAIRS = """
import sys
from colossi.ledger.events import Event
from colossi.ledger.store import Ledger
with Ledger.create_or_open(sys.argv[1]) as ledger:
    number = 0
    while True:
        number += 1
        ledger.append(*(Event(time=0.0, kind=kind, incarnation=1, step=number, data={"text": "x" * 200})
                        for kind in ("step_done", "checkpoint_begun")))
        print(number, flush=True)
"""


def test_a_writer_killed_in_mid_append_leaves_whole_appends(path: Path) -> None:
    written = 0
    for wait in (0.0, 0.0131, 0.0273, 0.0519):  # [s] after its first append: arbitrary moments
        writer = subprocess.Popen(
            [sys.executable, "-c", PAIRS, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        acknowledged = 1 + len(
            [line for line in writer.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
        )
        writer.stdout.close()
        writer.wait()
        with Ledger.open(path) as ledger:
            rows = list(ledger.events())
        fresh = [event for _, event in rows[2 * written :]]
        assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
        assert [e.kind for e in fresh] == ["step_done", "checkpoint_begun"] * (len(fresh) // 2)
        assert len(fresh) // 2 in (acknowledged, acknowledged + 1)  # it may die between append and print
        written = len(rows) // 2
    reader = sqlite3.connect(path)
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()


FEW = """
import sys
from colossi.ledger.events import Event
from colossi.ledger.store import Ledger
with Ledger.create_or_open(sys.argv[1]) as ledger:
    for number in range(1, 301):
        ledger.append(Event(time=0.0, kind="step_done", incarnation=int(sys.argv[2]), step=number))
"""


def test_two_writers_create_and_append_at_once_while_a_reader_follows(path: Path) -> None:
    with Ledger.create_or_open(path) as ledger:
        pass
    path.unlink()  # the two create it anew, at the same time
    writers = [
        subprocess.Popen([sys.executable, "-c", FEW, str(path), str(incarnation)], env=os.environ)
        for incarnation in (1, 2)
    ]
    seen: list[tuple[int, Event]] = []
    deadline = time.monotonic() + 15
    with Ledger.create_or_open(path) as ledger:
        while len(seen) < 600 and time.monotonic() < deadline:
            seen += ledger.events(after=seen[-1][0] if seen else 0)
            time.sleep(0.002)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [number for number, _ in seen] == list(range(1, 601))
    for incarnation in (1, 2):
        mine = [event.step for _, event in seen if event.incarnation == incarnation]
        assert mine == list(range(1, 301))


@pytest.mark.parametrize("journal", ["wal", "delete"])  # of one machine; of several that share the file
def test_many_writers_wait_for_each_other_and_for_who_is_slow(path: Path, journal: str) -> None:
    """None gives up, nothing is lost or written twice, whoever holds the file, and if he is killed."""
    with Ledger.create_or_open(path) as ledger:
        ledger.append(step(0))
    slow = sqlite3.connect(path, isolation_level=None)
    assert slow.execute(f"PRAGMA journal_mode = {journal}").fetchall() == [(journal,)]
    numbers = range(1, 6)
    writers = [
        subprocess.Popen([sys.executable, "-c", FEW, str(path), str(number)], env=os.environ)
        for number in numbers
    ]
    killed = subprocess.Popen(
        [sys.executable, "-c", PAIRS, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.kill()
    killed.wait()
    killed.stdout.close()
    for _ in range(3):  # a disk that takes its time, or a process that the system has put aside
        slow.execute("PRAGMA busy_timeout = 60000")
        slow.execute("BEGIN EXCLUSIVE")
        time.sleep(5 * ROUND)
        slow.execute("ROLLBACK")
        with Ledger.open(path) as ledger:  # a reader gets its turn too
            assert ledger.newest() >= 1
    slow.close()
    assert [writer.wait(timeout=60) for writer in writers] == [0] * len(writers)
    with Ledger.open(path) as ledger:
        done = [event for _, event in ledger.events("step_done") if "text" not in event.data]
    for number in numbers:
        mine = [event.step for event in done[1:] if event.incarnation == number]
        assert mine == list(range(1, 301)), number


def test_an_append_costs_well_under_a_millisecond(ledger: Ledger) -> None:
    load: JSON = [1 / 8] * 8
    costs = []
    for number in range(300):
        event = step(number, loss=1 / 3, tokens=8192, seconds=0.1, gradient_norm=0.7, expert_load=load)
        begun = time.perf_counter()
        ledger.append(event)
        costs.append(time.perf_counter() - begun)
    assert sorted(costs)[len(costs) // 2] < 1e-3  # about 0.1 ms on an idle core; the machine may be busy
