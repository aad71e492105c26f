"""Chat and evaluation through the command line, on a tiny run and on a Hugging Face folder."""

import json
import subprocess
from pathlib import Path

import pytest

from colossi.ledger.run import Run
from colossi.serve.load import load

from ..train.ranks import SIZES
from ..train.runs import colossi

SPEC = """
name = "sums"
[model]
{model}
[data]
tokenizer = "words"
held_out = 20
[[data.sources]]
kind = "reasoning"
task = "chain_sum"
samples = 400
options = {{ min_terms = 2, max_terms = 2, min_digits = 1, max_digits = 2 }}
[training]
sequence_length = 64
global_batch = 8
steps = 12
optimizer = "muon"
[cluster]
device = "cpu"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    sizes = "\n".join(f"{key} = {value}" for key, value in (SIZES | {"vocabulary": 320}).items())
    (folder / "sums.toml").write_text(SPEC.format(model=sizes))
    done = colossi("train", folder / "sums.toml", "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_one_answer_on_stdout(run: Path) -> None:
    def ask() -> subprocess.CompletedProcess[str]:
        return colossi("chat", run, "--prompt", "What is 2 + 2?", "--tokens", "8", "--temperature", "0.9")

    said = ask()
    assert said.returncode == 0 and said.stderr == "" and said.stdout.endswith("\n")
    assert ask().stdout == said.stdout  # the seed fixes it


def test_a_conversation_line_by_line(run: Path) -> None:
    said = colossi("chat", run, "--tokens", "4", input="hello\n/new\nagain\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("\n") == 2


def test_evaluation_scores_every_held_out_question_and_notes_it(run: Path) -> None:
    said = colossi("evaluate", run, "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["tasks"]["chain_sum"]["questions"] == 20
    assert 0 <= found["tasks"]["chain_sum"]["accuracy"] <= 1
    assert found["held_out_seen_in_training"] == 0
    with Run(run).ledger() as ledger:
        assert [event.text("task") for _, event in ledger.events("evaluated")] == ["chain_sum"]


def test_a_hugging_face_folder_answers_alike(run: Path, tmp_path: Path) -> None:
    loaded = load(run)
    loaded.grok.save_pretrained(tmp_path)
    loaded.tokenizer.save(tmp_path / "tokenizer.json")
    answers = [
        colossi("chat", folder, "--prompt", "What is 3 + 4?", "--tokens", "8").stdout
        for folder in (run, tmp_path)
    ]
    assert answers[0] == answers[1]


REFUSED = {
    "no such folder": ("chat", "nowhere", "nowhere: no such folder"),
    "not a run": ("evaluate", ".", "not a run"),
    "nothing to report": ("report", "nowhere", "nowhere: no such folder"),
}


@pytest.mark.parametrize(("command", "folder", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_run_is_refused_in_a_line(command: str, folder: str, message: str, tmp_path: Path) -> None:
    said = colossi(command, folder, cwd=tmp_path)
    assert said.returncode == 2 and message in said.stderr
    assert "Traceback" not in said.stderr and said.stdout == ""


def test_a_run_without_a_checkpoint_says_so(run: Path, tmp_path: Path) -> None:
    for name in ("spec.toml", "tokenizer.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    said = colossi("chat", tmp_path, "--prompt", "hi")
    assert said.returncode == 1 and "no whole checkpoint yet" in said.stderr
