"""What `colossi report` shows: the summary, the loss curve in characters and as a page, and small numbers."""

import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from story import STORY, SURVIVED, at, done, formed, start

from colossi.ledger.events import Event
from colossi.ledger.report import report
from colossi.terminal import curve, experts, summary, timeline
from colossi.terminal.numerals import count, duration, size
from colossi.terminal.progress import Progress, tenths

FINISHED = [
    *STORY,
    at(200, "finished", 2, 200),
    at(300, "evaluated", 2, 200, task="chain_sum", questions=200, accuracy=0.945),
]


def drawn(width: int, name: str = "laptop") -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary.render(report(FINISHED), name, width))
    return console.export_text().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_summary(width: int) -> None:
    rows = drawn(width)
    assert {len(row) for row in rows} == {width}
    text = "\n".join(" ".join(row.strip("│ ").split()) for row in rows)
    # 200 s of wall: 196 of steps, 1 of a step that died, 3 until the second incarnation's first step began.
    # There are two workers, so each second counts twice in the bars.
    for line in (
        "steps 200 of 800 tokens 1.57M",
        "loss 0.0400 best 0.0400",
        "speed 8,000 tok/s MFU 20.0%",
        "goodput 98.0% wall 3m20s",
        "ETTR 98.0% of all workers 6m40s",
        "saved step 40, 51.2 MB incarnations 2",
        "productive 6m32s 98.0%",
        "recomputation 2.0s 0.5%",
        "restart 6.0s 1.5%",
        "8 experts, busiest 1.00x",
        "12.5% 12.5% 12.5% 12.5% 12.5% 12.5% 12.5% 12.5%",
        "chain_sum 94.5% of 200 questions",
    ):
        assert line in text
    assert "waiting" not in text  # a part that took no time has no row
    assert "after step 40 killed by signal 9 (rank 1) 4.0s lost" in text


def test_the_summary_of_nothing() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary.render(report([]), "empty", 80))
    assert "steps" in console.export_text()


def test_spread_keeps_both_ends() -> None:
    points = [(step, 1.0) for step in range(1, 101)]
    assert [step for step, _ in summary.spread(points, 4)] == [1, 34, 67, 100]
    assert summary.spread(points[:2], 4) == points[:2]


BARS = {0.0: "", 0.001: "▏", 0.5: "█████", 0.55: "█████▌", 1.0: "██████████"}


@pytest.mark.parametrize(("share", "text"), BARS.items())
def test_bars(share: float, text: str) -> None:
    assert summary.bar(share, 10) == text


# ---- the timeline


def timeline_of(history: list[Event], width: int) -> list[str]:
    return timeline.draw(report(history), width).plain.split("\n")


SHRUNK = [  # 4 s of two workers, 4 s of recovery, 8 s of one of two
    formed(0, 1),
    *(done(step) for step in range(1, 5)),
    at(4, "fault", 1, 4, cause="node-1 lost"),
    formed(6, 2, workers=1, missing=1),
    *(done(step, 2) for step in range(9, 17)),
]


@pytest.mark.parametrize(
    ("width", "rows"),
    {
        16: ["    ▼           ", "████▒▒▒▒▄▄▄▄▄▄▄▄", "1     2      16s"],
        8: ["  ▼     ", "██▒▒▄▄▄▄", "1  2 16s"],
        4: [" ▼  ", "█▒▄▄", " 16s"],
    }.items(),
)
def test_a_timeline(width: int, rows: list[str]) -> None:
    assert timeline_of(SHRUNK, width) == rows


def test_a_timeline_stands_with_the_interruptions() -> None:
    assert any("▼" in row for row in drawn(80))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary.render(report([start(0), done(1)]), "calm", 80))
    assert "▼" not in console.export_text()


def test_a_timeline_of_no_time_is_empty() -> None:
    assert timeline_of([], 20) == [""]
    assert timeline_of([start(0), at(0, "failed", why="x")], 20) == [""]


@pytest.mark.parametrize("width", [20, 56, 76, 96])
@pytest.mark.parametrize("history", [STORY, SURVIVED], ids=["before there was a controller", "survived"])
def test_a_timeline_fits(history: list[Event], width: int) -> None:
    rows = timeline_of(history, width)
    assert [len(row) for row in rows] == [width] * 3


# ---- the curve


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_fills_its_box(log: bool) -> None:
    losses = [(step, 8 / step) for step in range(1, 301)]
    rows = curve.draw(losses, width=60, height=9, until=400, log=log).plain.split("\n")
    assert len(rows) == 9
    assert max(len(row) for row in rows) <= 60
    assert rows[-1].split() == ["1", "200", "400"]
    assert rows[0].strip().startswith("4.89┤")  # three steps to a point: the mean of 8, 4 and 2.67


@pytest.mark.parametrize(
    "losses", [[], [(1, math.nan)], [(1, 2.0)], [(1, 2.0), (2, 2.0)], [(1, -1.0)], [(1, 1e300), (2, 5e-324)]]
)
def test_curves_of_almost_nothing(
    losses: list[tuple[int, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    for log in (False, True):
        assert curve.draw(losses, width=40, height=6, log=log).plain.count("\n") == 5
    assert capsys.readouterr() == ("", "")  # plotext prints a warning where it has doubts


@given(st.lists(st.floats(-100, 100), max_size=200), st.integers(1, 50))
def test_a_thin_curve_has_the_same_mean_and_end(values: list[float], most: int) -> None:
    points = list(enumerate(values, start=1))
    thinned = curve.thin(points, most)
    assert len(thinned) <= most
    assert not points or thinned[-1][0] == points[-1][0]
    assert all(min(values) - 1e-9 <= loss <= max(values) + 1e-9 for _, loss in thinned)


def test_the_page_works_offline_and_marks_what_happened(tmp_path: Path) -> None:
    page = tmp_path / "loss.html"
    curve.save_html(report(FINISHED), page, "laptop <b>")
    text = page.read_text()
    assert "<script src=" not in text  # plotly itself is inside
    assert "incarnation 2" in text
    assert "logarithmic" in text
    assert "checkpoint of step" in text
    assert "killed by signal 9" in text  # in the timeline
    assert "restart, " in text
    assert "<b>: loss" not in text.split("<script", 1)[0]


# ---- small numbers

DURATIONS = {0: "0s", 0.41: "0.41s", 3.25: "3.2s", 9.99: "10s", 59.6: "1m00s", 192: "3m12s", 14_700: "4h05m"}
DURATIONS |= {86_399: "1d00h", 122 * 86_400 + 3 * 3600: "122d03h"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


COUNTS = {
    0: "0",
    950: "950",
    999.7: "1.00K",
    4_213_760: "4.21M",
    99_960_000: "100M",
    314e9: "314B",
    5e18: "5000P",
}


@pytest.mark.parametrize(("number", "text"), COUNTS.items())
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


def test_sizes() -> None:
    assert [size(512), size(51_234_567), size(1.306e9)] == ["512 B", "51.2 MB", "1.31 GB"]


# ---- bars of experts


@pytest.mark.parametrize("number", [2, 8, 16, 64, 256])
def test_bars_of_experts_fit(number: int) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(experts.draw([1 / number] * number, width=27, rows=3))
    *bars, caption = console.export_text().rstrip("\n").split("\n")
    assert len(bars) == 3
    assert max(len(row) for row in bars) <= 27
    assert caption.strip() == f"{number} experts, busiest 1.00x"


def test_a_starved_expert_keeps_its_place() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(experts.draw([0.5, 0.0, 0.25, 0.25], width=20, rows=1))
    assert console.export_text().split("\n")[0] == "██ ▁▁ ▄▄ ▄▄"  # twice its share is full, its share half


# ---- progress of other work


def test_progress_without_a_terminal_is_a_line_for_each_tenth() -> None:
    out = io.StringIO()
    with Progress(Console(file=out)) as progress:
        for number in range(101):
            progress("tokenising", number * 10, 1000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "tokenising  0%  0/1,000"
    assert lines[-1] == "tokenising  100%  1,000/1,000"


def test_progress_without_a_total_gets_rarer() -> None:
    assert [tenths(number, None) for number in (0, 1, 9, 10, 99, 100)] == [0, 1, 1, 2, 2, 3]


def test_progress_on_a_terminal_is_a_bar() -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, force_terminal=True, width=80)) as progress:
        progress("tokenising", 10, 1000)
        progress("tokenising", 1000, 1000)
    assert "tokenising" in screen.getvalue()
    assert "100%" in screen.getvalue()
