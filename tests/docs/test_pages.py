"""The pages name what there is: options, keys, events, tensors, files. Nothing is run."""

import dataclasses
import re
from pathlib import Path

import pytest
import typer

from colossi.cli import app
from colossi.ledger.events import KINDS
from colossi.ledger.report import Report
from colossi.ledger.run import MAY_CHANGE, Run
from colossi.ledger.store import EVENTS
from colossi.model.weights import BLOCK_NAMES, CONFIG_KEYS, EXPERT_NAMES
from colossi.spec import read_spec
from colossi.terminal.info import describe

from .pages import COMMANDS, ROOT, table

DOCS = ROOT / "docs"
LINK = re.compile(r"(?:!\[[^\]]*\]|\[[^\]]+\])\(([^)#]+)[^)]*\)")


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_command_has_a_page() -> None:
    assert sorted(typer.main.get_command(app).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_names_every_option(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option for each in command.params for option in each.opts if option.startswith("--")}
    listed = {row[0].split()[0] for row in table(read(f"commands/{name}.md"), 1) if row[0].startswith("--")}
    assert listed == options - {"--help"}


def test_the_report_page_names_every_key_of_its_json() -> None:
    named = {row[0] for row in table(read("commands/report.md"), 1)}
    assert {field.name for field in dataclasses.fields(Report)} <= named


def test_the_info_page_names_every_key_of_its_json() -> None:
    named = {row[0] for row in table(read("commands/info.md"), 1)}
    assert set(describe(read_spec(ROOT / "examples" / "laptop.toml"))) <= named


def test_the_run_folder_page_lists_every_event_with_its_data() -> None:
    page = read("run-folder.md")
    wanted = [
        f"| `{kind}` | {'; '.join(f'`{key}` {what}' for key, what in keys.items()) or '-'} |"
        for kind, keys in KINDS.items()
    ]
    found = [line for line in page.splitlines() if line in wanted]
    assert found == wanted, "the table of events should be:\n" + "\n".join(wanted)


def test_the_run_folder_page_lists_the_table_and_the_files() -> None:
    rows = {row[0] for row in table(read("run-folder.md"), 1)}
    run = Run(Path("run"))
    files = [run.spec_file, run.ledger_file, run.tokenizer_file, run.questions_file, run.corpus_file]
    assert {column.name for column in EVENTS.columns} <= rows
    others = {"checkpoints/", "logs/", "lock", "token", "controller.json"}
    assert {path.name for path in files} | others <= rows


def test_the_run_folder_page_says_what_may_change() -> None:
    page = read("run-folder.md")
    for name, keys in MAY_CHANGE.items():
        for words in [name] if keys is None else [f"{name}.{key}" for key in keys]:
            assert f"`{words}`" in page or f"`[{words}]`" in page, words


def test_the_model_page_lists_every_key_and_tensor() -> None:
    rows = set(table(read("model.md"), 2))
    assert set(CONFIG_KEYS.items()) <= rows
    assert {(ours, f"model.layers.N.{theirs}") for ours, theirs in BLOCK_NAMES.items()} <= rows
    experts = {
        (f"moe.experts.{ours}", f"model.layers.N.block_sparse_moe.experts.E.{theirs}.weight")
        for ours, theirs in EXPERT_NAMES.items()
    }
    assert experts <= rows


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
