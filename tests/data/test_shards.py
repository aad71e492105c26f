"""Preparation that is killed, run twice at once, or run again: the bytes on disk are always the same."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colossi.data.batches import Corpus, prepare
from colossi.errors import DataError
from colossi.spec.data import DataSpec

PREPARE = """
import sys
from pathlib import Path
from colossi.data.batches import prepare
from colossi.spec.data import DataSpec
data = DataSpec.model_validate_json(sys.argv[1])
prepare(data, vocabulary=300, sequence_length=64, seed=0, folder=Path(sys.argv[2]),
        progress=lambda *told: print(*told, flush=True))
"""


def sums(samples: int) -> DataSpec:
    options = {"max_terms": 2, "max_digits": 3}
    source = {"kind": "reasoning", "task": "chain_sum", "samples": samples, "options": options}
    return DataSpec.model_validate({"sources": [source], "tokenizer": "words", "held_out": 10})


def start(data: DataSpec, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PREPARE, data.model_dump_json(), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def digests(folder: Path) -> dict[str, str]:
    files = (f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def made(data: DataSpec, folder: Path) -> Corpus:
    return prepare(data, vocabulary=300, sequence_length=64, seed=0, folder=folder)


def test_killed_and_resumed(tmp_path: Path) -> None:
    """Five parts by worker processes; the parent dies in the tokenizer, between parts and within them."""
    data = sums(45_000)
    for wait_for, then in (("tokenizer 0", 0.1), ("tokens 0", 0.4), ("tokens 2", 0.1)):
        process = start(data, tmp_path / "killed")
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(wait_for):
                break
        time.sleep(then)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if wait_for == "tokenizer 0":  # later, on many cores, the orphaned workers may each finish their part
            assert not list((tmp_path / "killed").glob("tokens-*/manifest.json"))
    corpus = made(data, tmp_path / "killed")
    whole = made(data, tmp_path / "whole")
    assert digests(corpus.folder.parent) == digests(whole.folder.parent)
    assert not any("tmp-" in name for name in digests(tmp_path / "killed"))


def test_two_at_once(tmp_path: Path) -> None:
    data = sums(2_000)
    both = [start(data, tmp_path / "shared") for _ in range(2)]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("tokens 1 1" in text for text in told) == [
        False,
        True,
    ]  # one works, one waits and finds it done
    made(data, tmp_path / "alone")
    assert digests(tmp_path / "shared") == digests(tmp_path / "alone")


def test_reused_until_something_changes(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("some words to train on " * 20)
    data = DataSpec.model_validate({"sources": [{"kind": "files", "path": str(text)}]})
    told: list[str] = []

    def again(length: int = 32, seed: int = 0) -> Corpus:
        told.clear()
        return prepare(
            data,
            vocabulary=300,
            sequence_length=length,
            seed=seed,
            folder=tmp_path / "cache",
            progress=lambda stage, done, total: told.append(stage),
        )

    first = again()
    assert told
    assert again().folder == first.folder
    assert not told
    assert again(length=16).tokens_folder == first.tokens_folder
    assert again(seed=1).folder != first.folder
    assert not told
    text.write_text("other words to train on " * 20)
    assert again().tokens_folder != first.tokens_folder
    assert told


def test_an_error_in_a_worker_reaches_the_user(tmp_path: Path) -> None:
    """Five files of 8 MB are enough for processes; the last line of the last file is broken."""
    row = '{"text": "' + "x" * 1_000_000 + '"}\n'
    for number in range(5):
        (tmp_path / f"{number}.jsonl").write_text(row * 9 + ("{oops\n" if number == 4 else ""))
    data = DataSpec.model_validate(
        {"sources": [{"kind": "files", "path": str(tmp_path)}], "tokenizer": "words"}
    )
    with pytest.raises(DataError, match=r"4\.jsonl:10: not JSON") as caught:
        made(data, tmp_path / "cache")
    assert "skip_bad" in caught.value.hint


def test_a_tokenizer_of_your_own(tmp_path: Path) -> None:
    trained = made(sums(500), tmp_path / "first")
    path = trained.tokens_folder / "tokenizer.json"
    data = sums(500).model_copy(update={"tokenizer": str(path)})
    assert made(data, tmp_path / "second").tokenizer.vocabulary == trained.tokenizer.vocabulary
    with pytest.raises(DataError, match="the model's vocabulary is 262"):
        prepare(data, vocabulary=262, sequence_length=64, seed=0, folder=tmp_path / "third")
    with pytest.raises(DataError, match="no such tokenizer file"):
        made(data.model_copy(update={"tokenizer": "nowhere.json"}), tmp_path / "third")
