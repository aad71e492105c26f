"""The batch of a step is a function of what was prepared and the step, whoever asks for whichever rows."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.data.batches import Corpus, prepare
from colossi.errors import DataError
from colossi.spec.data import DataSpec

CHAT = (
    '{{"messages": [{{"role": "user", "content": "say {0}"}}, {{"role": "assistant", "content": "{0}!"}}]}}\n'
)
SUM = {"kind": "reasoning", "task": "chain_sum", "samples": 400, "options": {"max_terms": 2, "max_digits": 2}}


def made(folder: Path, sources: list[dict[str, Any]], length: int = 16, **data: Any) -> Corpus:
    spec = DataSpec.model_validate({"sources": sources, "tokenizer": "bytes", "held_out": 20} | data)
    return prepare(spec, vocabulary=512, sequence_length=length, seed=7, folder=folder / "cache")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "text").mkdir()
    for number in range(5):
        (folder / f"text/{number}.txt").write_text("".join(f"line {n} of {number}\n" for n in range(30)))
    (folder / "chats.jsonl").write_text("".join(CHAT.format(n) for n in range(40)))
    sources: list[dict[str, Any]] = [
        {"kind": "files", "path": str(folder / "text"), "weight": 2},
        {"kind": "files", "path": str(folder / "chats.jsonl")},
        SUM,
    ]
    return made(folder, sources, length=96)


def test_every_token_of_text_is_a_target_once(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"text number {number}, " * 9)
    corpus = made(tmp_path, [{"kind": "files", "path": str(tmp_path)}])
    ids = [corpus.tokenizer.encode((tmp_path / f"{n}.txt").read_text()) for n in range(3)]
    expected = [token for document in ids for token in [*document, corpus.tokenizer.eos]]
    windows = corpus.sources[0]
    seen = []
    for number in range(len(windows)):
        tokens, targets = windows.read(number)
        assert len(tokens) <= 17
        seen += tokens[1:][targets[1:]].tolist()
    assert seen == expected


def test_a_chat_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(CHAT.format(5) * 2)
    corpus = made(tmp_path, [{"kind": "files", "path": str(tmp_path / "a.jsonl")}], length=64)
    batch = corpus.batch(0, 1, slice(0, 1))
    encode, separator = corpus.tokenizer.encode, corpus.tokenizer.separator
    between = encode("\n\n")
    chat = [*encode("Human: say 5"), separator, *between, *encode("Assistant: 5!"), separator, *between]
    # 12 + 1 + 2 + 13 + 1 + 2 = 31 tokens; two chats make 62 of 65 in a window: 61 inputs and 3 paddings
    assert batch.inputs[0].tolist() == (chat + chat)[:-1] + [0] * 3
    assert batch.targets[0][batch.is_target[0]].tolist() == [*encode(" 5!"), separator] * 2
    assert (corpus.report[0].documents, corpus.report[0].windows, corpus.report[0].cut) == (2, 1, 0)


def test_where_the_documents_of_a_window_begin(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(CHAT.format(5) * 2)
    chats = made(tmp_path, [{"kind": "files", "path": str(tmp_path / "a.jsonl")}], length=64)
    first = chats.batch(0, 1, slice(0, 1), documents=True).first
    assert first is not None and first.dtype == np.int32
    assert first[0].tolist() == [0] * 31 + [31] * 33  # two chats of 31; padding goes with the last
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / f"text/{number}.txt").write_text("nine more")  # with BOS and EOS 11 tokens
    text = made(tmp_path, [{"kind": "files", "path": str(tmp_path / "text")}], length=16)
    windows = text.sources[0]
    # Tokens 0..16 and 16..32: documents begin at 0, 11 and 22; the second window begins within one.
    assert windows.first(0, windows.read(0)[0]).tolist() == [0] * 11 + [11] * 6
    assert windows.first(1, windows.read(1)[0]).tolist() == [0] * 6 + [6] * 11
    assert text.batch(0, 1, slice(0, 1)).first is None


def test_loss_on_everything(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(CHAT.format(5) * 2)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    batch = made(tmp_path, [source], length=64, loss_on="everything").batch(0, 1, slice(0, 1))
    assert batch.is_target[0].sum() == 60  # 62 tokens, less the first of each chat
    assert not batch.is_target[0][30]  # the second chat's first token does not follow from the first chat


def test_a_chat_that_is_too_long_is_cut_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(CHAT.format(5) + CHAT.format("x" * 9))
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    corpus = made(tmp_path, [source], length=44)  # 31 and 9 + 9 - 2 + 31 = 47 tokens in windows of 45
    assert (corpus.report[0].cut, corpus.report[0].windows) == (1, 2)
    with pytest.raises(DataError, match="too long: no answer begins") as caught:
        made(tmp_path, [source], length=8)
    assert caught.value.hint == "raise training.sequence_length"


@given(step=st.integers(0, 200), size=st.integers(1, 24), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_rows_are_rows_of_the_same_batch(
    mixed: Corpus, step: int, size: int, data: st.DataObject
) -> None:
    start, stop = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    rows = slice(start, stop, data.draw(st.integers(1, 3)))
    whole, part = mixed.batch(step, size, slice(None)), mixed.batch(step, size, rows)
    for name in ("inputs", "targets", "is_target"):
        assert np.array_equal(getattr(whole, name)[rows], getattr(part, name))
    assert [a.dtype.name for a in (whole.inputs, whole.targets, whole.is_target)] == [
        "int64",
        "int64",
        "bool",
    ]
    assert whole.inputs.shape == (size, 96)
    assert not whole.targets[whole.is_target].min() < 2


def test_an_epoch_shows_every_window_once(mixed: Corpus) -> None:
    sources, windows = mixed.mixture.locate(np.arange(4 * len(mixed.sources[0])))
    drawn = windows[sources == 0][: len(mixed.sources[0])]
    assert sorted(drawn.tolist()) == list(range(len(mixed.sources[0])))
    assert (sources.reshape(-1, 4) == 0).sum(1).tolist() == [2] * len(mixed.sources[0])  # weights 2, 1, 1
    assert mixed.samples_per_epoch == sum(entry.windows for entry in mixed.report)


def test_a_corpus_opened_elsewhere_gives_the_same(mixed: Corpus) -> None:
    again = Corpus.open(mixed.folder)
    assert np.array_equal(again.batch(9, 8, slice(2, 5)).inputs, mixed.batch(9, 8, slice(2, 5)).inputs)
    assert again.report == mixed.report
    assert again.questions == mixed.questions
    with pytest.raises(DataError, match="no prepared data"):
        Corpus.open(mixed.folder / "nowhere")


def test_held_out_questions_are_not_trained_on(mixed: Corpus) -> None:
    assert len({question.question for question in mixed.questions}) == 20
    assert mixed.overlap() == 0
    entry = mixed.report[2]
    assert entry.left_out > 0
    assert entry.documents + entry.left_out == 400


def test_overlap_finds_what_is_planted(mixed: Corpus, tmp_path: Path) -> None:
    question = mixed.questions[3].question
    (tmp_path / "a.jsonl").write_text(CHAT.format(5) + CHAT.format(5).replace("say 5", question))
    corpus = made(tmp_path, [{"kind": "files", "path": str(tmp_path / "a.jsonl")}, SUM], length=96)
    assert corpus.overlap() == 1


def test_reading_ten_million_tokens_holds_none_of_them(tmp_path: Path) -> None:
    line = "0123456789 abcdefghijklmnopqrstuvwxyz and so on, until the line is full of bytes.\n"
    with open(tmp_path / "big.txt", "w") as file:
        file.writelines(line for _ in range(10_000_000 // len(line) + 1))
    corpus = made(tmp_path, [{"kind": "files", "path": str(tmp_path / "big.txt")}], length=256)
    assert corpus.report[0].tokens > 10_000_000
    tracemalloc.start()
    opened = Corpus.open(corpus.folder)
    for step in range(50):
        opened.batch(step * 31, 8, slice(None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20  # the shards are 30 MB
