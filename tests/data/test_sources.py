"""Sources as documents: what is read, and the one line that says what cannot be."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.data import files, reasoning
from colossi.data.documents import Chat, Complaints, Document, Span, Text
from colossi.data.sources import documents, parts, skips_bad
from colossi.errors import DataError
from colossi.spec.data import DataSpec, ReasoningSource

ASK = {"role": "user", "content": "a?"}
CHAT = '{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}\n'


def read(source: dict[str, Any]) -> tuple[list[Document], Complaints]:
    data = DataSpec.model_validate({"sources": [source], "held_out": 0})
    complaints = Complaints(skips_bad(data.sources[0]))
    found: list[Document] = []
    for part in parts(data):
        found += documents(data.sources[0], part.spans, complaints, Complaints(skip=True), frozenset())
    return found, complaints


def test_files_of_every_type(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("één\r\ntwee".encode())
    (tmp_path / "b.jsonl").write_text('{"text": "row"}\n\n' + CHAT)
    (tmp_path / "sub").mkdir()
    pq.write_table(pa.table({"text": ["p", None], "messages": [None, [ASK]]}), tmp_path / "sub/c.parquet")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    found, _ = read({"kind": "files", "path": str(tmp_path)})
    answer = {"role": "assistant", "content": "b"}
    assert found == [Text("één\r\ntwee"), Text("row"), Chat((ASK, answer)), Text("p"), Chat((ASK,))]


def test_a_glob(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.txt"):
        (tmp_path / name).write_text(name)
    found, _ = read({"kind": "files", "path": str(tmp_path / "*.md")})
    assert found == [Text("a.md"), Text("b.md")]


Write = Callable[[Path], object]
BAD: dict[str, tuple[str, Write, str]] = {
    "an empty file": ("a.txt", lambda p: p.write_bytes(b""), r"a\.txt: the file is empty"),
    "invalid UTF-8": (
        "a.txt",
        lambda p: p.write_bytes(b"ok\nab\xff\n"),
        r"a\.txt:2: byte 0xff at column 3",
    ),
    "an empty jsonl": ("a.jsonl", lambda p: p.write_bytes(b""), r"a\.jsonl: the file is empty"),
    "a broken line": ("a.jsonl", lambda p: p.write_text(CHAT + "{nope\n"), r"a\.jsonl:2: not JSON"),
    "a line that is no row": (
        "a.jsonl",
        lambda p: p.write_text("[1]\n"),
        r"a\.jsonl:1: a list, not",
    ),
    "bytes in a line": ("a.jsonl", lambda p: p.write_bytes(b'{"\xff"}\n'), r"a\.jsonl:1: byte 0xff"),
    "a missing column": (
        "a.jsonl",
        lambda p: p.write_text('{"body": "x"}\n'),
        r"a\.jsonl:1: no column 'text'",
    ),
    "a number for text": (
        "a.jsonl",
        lambda p: p.write_text('{"text": 3}\n'),
        r"a\.jsonl:1: .*holds int",
    ),
    "an unknown role": (
        "a.jsonl",
        lambda p: p.write_text('{"messages": [{"role": "bot", "content": ""}]}\n'),
        r"a\.jsonl:1: the row: message 1 has role 'bot'",
    ),
    "no parquet": ("a.parquet", lambda p: p.write_text("hello"), r"a\.parquet: not a parquet file"),
    "a parquet without the column": (
        "a.parquet",
        lambda p: pq.write_table(pa.table({"body": ["x"]}), p),
        r"a\.parquet: no column 'text'",
    ),
    "an empty cell": (
        "a.parquet",
        lambda p: pq.write_table(pa.table({"text": ["x", None]}), p),
        r"a\.parquet: row 2: column 'text' holds NoneType",
    ),
}


@pytest.mark.parametrize(("name", "write", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_or_skipped_and_counted(
    name: str, write: Write, words: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    (tmp_path / "z.txt").write_text("good")
    with pytest.raises(DataError, match=words) as caught:
        read({"kind": "files", "path": str(tmp_path)})
    assert "\n" not in caught.value.message
    assert caught.value.hint
    found, complaints = read({"kind": "files", "path": str(tmp_path), "skip_bad": True})
    assert found[-1] == Text("good")
    assert complaints.count == 1
    assert str(tmp_path / name) in complaints.first[0]


def test_a_bad_line_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\xfe\nthree")
    found, complaints = read({"kind": "files", "path": str(tmp_path), "skip_bad": True})
    assert (found, complaints.count) == ([Text("one\nthree")], 1)


MISSING = {
    "no such path": ("nowhere", "no such file or folder"),
    "a type that is not read": ("a.bin", "files of type .bin are not read"),
    "nothing to read": (".", "holds no file"),
}


@pytest.mark.parametrize(("path", "words"), MISSING.values(), ids=MISSING.keys())
def test_missing(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_text("x")
    with pytest.raises(DataError, match=words):
        read({"kind": "files", "path": str(tmp_path / path)})


@given(text=st.text(alphabet="aé漢😀\n", max_size=400), cuts=st.lists(st.integers(0, 1600), max_size=4))
@settings(max_examples=60, deadline=None)
def test_spans_lose_nothing_wherever_they_are_cut(
    text: str, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.txt"
    raw = (text or "x").encode()
    path.write_bytes(raw)
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    found: list[Text] = []
    for start, stop in pairwise(edges):
        found += list(files.read_text(Span(str(path), start, stop, 0), Complaints(skip=False)))
    assert "".join(piece.text for piece in found).encode() == raw
    assert [piece.starts for piece in found] == [True] + [False] * (len(found) - 1)
    assert [piece.ends for piece in found] == [False] * (len(found) - 1) + [True]


@given(cut=st.integers(0, 80))
@settings(max_examples=40, deadline=None)
def test_each_line_of_jsonl_is_read_by_one_span(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.jsonl"
    path.write_text("".join(f'{{"text": "{n}"}}\n' for n in range(6)))
    size = path.stat().st_size
    spans = (Span(str(path), 0, min(cut, size), 0), Span(str(path), min(cut, size), size, 0))
    found = [d for span in spans for d in files.read_jsonl(span, "text", Complaints(skip=False))]
    assert found == [Text(str(n)) for n in range(6)]


def test_the_standard_library() -> None:
    names = {path.name for path in files.list_stdlib()}
    assert {"argparse.py", "ast.py", "tokenize.py"} <= names
    assert not any("test" in path.parts for path in files.list_stdlib())


def task(name: str = "chain_sum", **keys: Any) -> ReasoningSource:
    return ReasoningSource.model_validate({"kind": "reasoning", "task": name, "samples": 300} | keys)


ONE_DIGIT = {"max_terms": 2, "max_digits": 1}  # 10 * 10 * 2 = 200 questions


def test_no_training_question_is_held_out() -> None:
    source = task(options=ONE_DIGIT)
    questions = reasoning.held_out(source, 50)
    asked = {question.question for question in questions}
    assert len(asked) == 50
    left_out = Complaints(skip=True)
    chats = [c for span in reasoning.split(source, 50) for c in reasoning.read(source, span, asked, left_out)]
    assert not asked & {chat.messages[0]["content"] for chat in chats}
    assert len(chats) + left_out.count == 300
    assert left_out.count > 30  # a quarter of the questions are held out


def test_a_task_with_too_few_questions() -> None:
    with pytest.raises(DataError, match=r"only \d+ different questions in 10,000 draws, 500 to hold out"):
        reasoning.held_out(task(options=ONE_DIGIT), 500)


@pytest.mark.parametrize("name", ["chain_sum", "letter_counting", "spell_backward", "word_sorting"])
def test_the_verifier_likes_its_own_answer(name: str) -> None:
    for question in reasoning.held_out(task(name, seed=5), 5):
        assert reasoning.score(name, question.options, question, f" {question.answer}") == 1.0
        assert reasoning.score(name, question.options, question, "no idea") < 0.5


UNKNOWN = {
    "a task": (task("chain_sums"), "did you mean 'chain_sum'"),
    "an option": (task(options={"max_term": 3}), "its options are .*max_terms"),
    "an option out of range": (task(options={"min_terms": 0}), "its options are"),
    "an option of the wrong type": (task(options={"min_terms": "two"}), "its options are"),
}


@pytest.mark.parametrize(("source", "hint"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown(source: ReasoningSource, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        reasoning.held_out(source, 1)


@pytest.mark.parametrize("saved", [True, False], ids=["saved to disk", "a folder of files"])
def test_a_local_huggingface_dataset(saved: bool, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    if saved:
        datasets.Dataset.from_dict({"body": ["a", "", "c", "d"]}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(f'{{"body": "{x}"}}\n' for x in ("a", "", "c", "d")))
    source = {"kind": "huggingface", "name": str(folder), "column": "body"}
    assert read(source)[0] == [Text("a"), Text("c"), Text("d")]
    assert read(source | {"documents": 2})[0] == [Text("a"), Text("c")]
    with pytest.raises(DataError, match="row 1 of shard 0: no column 'text'"):
        read(source | {"column": "text"})
    if not saved:
        with pytest.raises(DataError, match="cannot be read"):
            read(source | {"split": "nope"})


def test_heavy_libraries_are_imported_only_where_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text " * 200)
    program = (
        "import sys; from pathlib import Path; from colossi.data.batches import prepare;"
        "from colossi.spec.data import DataSpec; source = {'kind': 'files', 'path': sys.argv[1] + '/a.txt'};"
        "data = DataSpec.model_validate({'sources': [source]});"
        "prepare(data, vocabulary=300, sequence_length=8, seed=0, folder=Path(sys.argv[1]) / 'cache');"
        "print([m for m in ('torch', 'pyarrow', 'datasets', 'reasoning_gym') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
