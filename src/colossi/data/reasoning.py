"""Questions and answers of the reasoning-gym library: what is held out, what is trained on, what an answer
is worth.

Item i of seed s is drawn from s + i, and many tasks ask the same question twice; so questions are told
apart by their text. The first items with distinct questions are held out; training begins after them and
leaves those questions out.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from functools import lru_cache
from json import dumps, loads
from typing import Any

import reasoning_gym  # type: ignore[import-untyped]
from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped]

from colossi.data.documents import PART_SIZE, Chat, Complaints, Span
from colossi.data.question import Question
from colossi.errors import DataError
from colossi.spec.data import ReasoningSource

ITEMS_PER_PART = 10_000  # a second of work for a quick task, minutes for a slow one
PATIENCE = 20  # draws for each question that is to be held out, before the task is called too small
LARGEST_INDEX = 1 << 31  # the size given to reasoning-gym, which does not look at it


def held_out(source: ReasoningSource, count: int) -> list[Question]:
    """The first `count` distinct questions of a task."""
    dataset = dataset_of(source.task, source.options, source.seed)
    found: dict[str, Question] = {}
    draws = max(1_000, PATIENCE * count)
    for index in range(draws):
        if len(found) == count:
            break
        entry = _draw(dataset, source.task, index)
        if _usable(entry) and entry["question"] not in found:
            found[entry["question"]] = _question(source, index, entry)
    if len(found) == count:
        return list(found.values())
    raise DataError(
        f"{_name(source)}: only {len(found)} different questions in {draws:,} draws, {count} to hold out",
        "widen the task's options so that it has more questions, or lower data.held_out",
    )


def first_index(source: ReasoningSource, count: int) -> int:
    """The first item that is for training: the one after the last that is held out."""
    return held_out(source, count)[-1].index + 1 if count else 0


def split(source: ReasoningSource, count: int) -> Iterator[Span]:
    """The items for training, as ranges."""
    begin = first_index(source, count)
    end = begin + source.samples
    for start in range(begin, end, ITEMS_PER_PART):
        stop = min(end, start + ITEMS_PER_PART)
        yield Span(source.task, start, stop, PART_SIZE)


def read(
    source: ReasoningSource, span: Span, excluded: AbstractSet[str], left_out: Complaints
) -> Iterator[Chat]:
    """The items of the span as chats; `left_out` counts those that are held out or have no answer."""
    dataset = dataset_of(source.task, source.options, source.seed)
    for index in range(span.start, span.stop):
        entry = _draw(dataset, source.task, index)
        if not _usable(entry) or entry["question"] in excluded:
            left_out.count += 1
            continue
        question = {"role": "user", "content": entry["question"]}
        yield Chat((question, {"role": "assistant", "content": entry["answer"]}))


def score(task: str, options: Mapping[str, Any], question: Question, answer: str) -> float:
    """What reasoning-gym's own verifier says of an answer, from 0 to 1."""
    dataset = dataset_of(task, options, question.seed)
    entry = dataset[question.index]
    if entry["question"] != question.question:  # the library changed, or the task depends on the hash seed
        entry = {
            "question": question.question,
            "answer": question.answer,
            "metadata": dict(question.metadata),
        }
    return float(dataset.score_answer(answer.strip(), entry))


def dataset_of(task: str, options: Mapping[str, Any], seed: int) -> Any:
    """The library's dataset, or a DataError about the task's name or its options."""
    return _dataset(task, dumps(dict(options), sort_keys=True), seed)


@lru_cache(maxsize=32)
def _dataset(task: str, options_json: str, seed: int) -> Any:
    if task not in DATASETS:
        nearest = get_close_matches(task, DATASETS, n=1, cutoff=0.0)[0]
        raise DataError(f"reasoning task {task!r} is unknown", f"did you mean {nearest!r}?")
    options = loads(options_json)
    known = sorted(set(DATASETS[task][1].__dataclass_fields__) - {"seed", "size"})
    for option in options:
        if option not in known:
            raise DataError(
                f"reasoning task {task}: no option {option!r}", f"its options are {', '.join(known)}"
            )
    try:
        return reasoning_gym.create_dataset(task, seed=seed, size=LARGEST_INDEX, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError(
            f"reasoning task {task}: bad options: {error}", f"its options are {', '.join(known)}"
        ) from error


def _draw(dataset: Any, task: str, index: int) -> Mapping[str, Any]:
    """An item; options that contradict each other are sometimes found out only here."""
    try:
        entry: Mapping[str, Any] = dataset[index]
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        message = f"reasoning task {task}: item {index} cannot be drawn: {error or type(error).__name__}"
        raise DataError(message, "change the task's options") from error
    return entry


def _usable(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry["answer"], str) and isinstance(entry["question"], str)


def _question(source: ReasoningSource, index: int, entry: Mapping[str, Any]) -> Question:
    metadata = loads(dumps(entry.get("metadata", {}), default=str, skipkeys=True))
    return Question(
        source.task, entry["question"], entry["answer"], index, source.seed, dict(source.options), metadata
    )


def _name(source: ReasoningSource) -> str:
    return f"reasoning task {source.task}"
