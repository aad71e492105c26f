"""The command line: what goes to stdout, what to stderr, and how each command ends."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import colossi

ROOT = Path(__file__).parents[1]
LAPTOP = str(ROOT / "examples" / "laptop.toml")
PACKAGE = str(Path(colossi.__file__).parents[1])
COMMANDS = ("info", "forecast", "plan", "train", "trace", "evaluate", "chat", "report")


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "colossi.cli", *arguments]
    path = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"COLUMNS": "120", "PYTHONPATH": path}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert [command for command in COMMANDS if f"\n  {command} " not in done.stdout] == []


def test_help_answers_at_once() -> None:
    """Seconds of processor time, which other work on the machine does not change much; the best of three."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5


def test_info_for_people() -> None:
    done = run("info", LAPTOP)
    assert done.returncode == 0 and done.stderr == ""
    for words in (
        "parameters",
        "active per token",
        "FLOPs per token",
        "memory: weights",
        "memory: optimizer",
    ):
        assert words in done.stdout


def test_info_for_programs() -> None:
    done = run("info", LAPTOP, "--json", "--set", "model.preset=grok-1")
    assert done.returncode == 0 and done.stderr == ""
    facts = json.loads(done.stdout)
    # 64 layers of 8 experts of 3 * 6144 * 32768 numbers are nearly all of it
    assert facts["parameters_by_part"]["experts"] == 64 * 8 * 3 * 6144 * 32768
    assert facts["parameters"] == sum(facts["parameters_by_part"].values())
    assert round(facts["parameters"] / 1e9) == 316 and round(facts["active_parameters"] / 1e9) == 84
    assert facts["memory_bytes"]["weights"] == 4 * facts["parameters"]


# What is asked for, and how the one line begins; a hint may follow on the next.
REFUSED: dict[str, tuple[list[str], str]] = {
    "a spec that is not there": (["info", "absent.toml"], "error: absent.toml: no such file"),
    "an unknown key": (
        ["info", LAPTOP, "--set", "model.hiden=3"],
        f"error: {LAPTOP}, with --set model.hiden=3: unknown key model.hiden = 3: did you mean hidden?",
    ),
    "a wrong type": (
        ["info", LAPTOP, "--set", 'training.steps="3"'],
        f'error: {LAPTOP}, with --set training.steps="3": training.steps = "3": give a whole number,',
    ),
    "an impossible combination": (
        ["train", LAPTOP, "--set", "layout.expert=3"],
        f"error: {LAPTOP}, with --set layout.expert=3: layout.expert = 3 does not divide",
    ),
    "a rank that is not there": (
        ["trace", LAPTOP, "--ranks", "0,9"],
        "error: --ranks 0,9: '9' is no rank of this run",
    ),
    "a trace of what can only be planned": (
        ["trace", LAPTOP, "--set", "layout.recompute=selective"],
        "error: laptop: layout.recompute = 'selective' can be planned and not be trained",
    ),
    "a trace into no folder": (
        ["trace", LAPTOP, "--perfetto", "absent/step.json"],
        "error: absent/step.json: no folder absent",
    ),
    "a trace without a layout": (
        ["trace", str(ROOT / "examples" / "colossus.toml")],
        "error: colossus: table [layout] is missing",
    ),
    "training without data": (["train", "bare.toml"], "error: bare.toml: table [data] is missing"),
    "a forecast without a layout": (
        ["forecast", "bare.toml"],
        "error: bare.toml: table [training] is missing",
    ),
    "a sweep of nothing": (
        ["forecast", LAPTOP, "--sweep", "cluster.gpus"],
        "error: --sweep cluster.gpus: not of the form table.key=a,b,c",
    ),
    "a plan for no machine": (["plan", LAPTOP], "error: [cluster] names no machine"),
    "a report of no folder": (["report", "absent"], "error: absent: no such folder"),
    "a report of no run": (["report", "."], "error: .: not a run (no spec.toml in it)"),
}


@pytest.mark.parametrize(("arguments", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "bare.toml").write_text('[model]\npreset = "laptop"\n')
    done = run(*arguments, folder=tmp_path)
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert first.startswith(line)
    assert [line for line in rest if not line.startswith("hint: ")] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.toml"]  # nothing was begun


def test_a_command_that_does_not_exist() -> None:
    done = run("trian", LAPTOP)
    assert done.returncode == 2 and "No such command 'trian'" in done.stderr
