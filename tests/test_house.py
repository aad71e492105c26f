"""The shape of the program, kept as tests: who may import whom, what stays light, what stays small."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS, lint_imports

from colossi.ledger.events import Event
from colossi.ledger.run import begin_run
from colossi.spec import read_spec

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
FILES = sorted((SOURCE / "colossi").rglob("*.py"))
LONGEST = 400  # lines: one sitting
UNFINISHED = ("TODO", "FIXME", "XXX")


def test_imports_point_one_way() -> None:
    assert lint_imports(str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_the_linter_would_notice(tmp_path: Path) -> None:
    """That it sees the imports at all: the model does import torch."""
    config = tmp_path / "wrong.toml"
    config.write_text(
        "[tool.importlinter]\n"
        'root_package = "colossi"\n'
        "include_external_packages = true\n"
        "[[tool.importlinter.contracts]]\n"
        'name = "serving without torch"\n'
        'type = "forbidden"\n'
        'source_modules = ["colossi.serve"]\n'
        'forbidden_modules = ["torch"]\n'
    )
    assert lint_imports(str(config), no_cache=True) == EXIT_STATUS_ERROR


def test_no_file_outgrows_one_sitting() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_prints() -> None:
    """What a person sees goes through the command line and the terminal package."""
    prints = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_nothing_is_left_for_later() -> None:
    lines = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(word in line for word in UNFINISHED)
    ]
    assert lines == []


def modules_after(*arguments: str) -> set[str]:
    """The packages that a command has imported when it is done, one that ends well."""
    code = (
        "import sys\n"
        "from colossi.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "finally:\n"
        "    names = {name.partition('.')[0] for name in sys.modules}\n"
        "    sys.stderr.write('MODULES ' + ' '.join(sorted(names)))\n"
    )
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of two steps."""
    run = begin_run(tmp_path / "run", read_spec(ROOT / "examples" / "laptop.toml"))
    now = time.time()
    with run.ledger() as ledger:
        ledger.append(Event(time=now, kind="run_started", incarnation=1, data={"steps": 2}))
        for step in (1, 2):
            data = {"loss": 1.0 / step, "tokens": 100, "seconds": 1.0}
            ledger.append(Event(time=now + step, kind="step_done", incarnation=1, step=step, data=data))
    return run.folder


HEAVY = {"torch", "transformers", "datasets", "reasoning_gym", "tokenizers"}


def test_help_imports_next_to_nothing() -> None:
    heavy = HEAVY | {"plotly", "sqlalchemy", "pydantic", "numpy"}
    assert modules_after("--help") & heavy == set()


def test_info_needs_no_torch() -> None:
    heavy = HEAVY | {"plotly", "sqlalchemy", "numpy"}
    assert modules_after("info", str(ROOT / "examples" / "laptop.toml")) & heavy == set()


@pytest.mark.parametrize(
    "arguments", [("forecast", "llama3.toml"), ("plan", "colossus.toml")], ids=["forecast", "plan"]
)
def test_planning_needs_no_torch(arguments: tuple[str, str]) -> None:
    command, example = arguments
    heavy = HEAVY | {"plotly", "sqlalchemy", "scipy", "matplotlib"}
    assert modules_after(command, str(ROOT / "examples" / example)) & heavy == set()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["for people", "for programs"])
def test_report_needs_no_torch(run_folder: Path, options: list[str]) -> None:
    assert modules_after("report", str(run_folder), *options) & HEAVY == set()
