"""Held-out questions, answered and scored by reasoning-gym's own verifiers."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colossi.data import reasoning
from colossi.data.corpus import Corpus
from colossi.data.question import Question
from colossi.data.tokenizer import Tokenizer
from colossi.errors import DataError, RunError
from colossi.ledger.events import JSON, Event
from colossi.ledger.run import Run, open_run
from colossi.model.grok import Grok
from colossi.serve.generate import Sampling, generate
from colossi.serve.load import load_run

BATCH = 100  # questions answered at once
RIGHT = 0.999  # a verifier gives 1 for a right answer and part of it for a near one, which counts as wrong
LONGEST_ANSWER = 64  # tokens


@dataclass(frozen=True, slots=True)
class Answered:
    """One question, the model's answer and the verifier's score from 0 to 1."""

    question: Question
    answer: str
    score: float

    @property
    def right(self) -> bool:
        return self.score > RIGHT


def answer_all(
    grok: Grok, tokenizer: Tokenizer, questions: Sequence[Question], progress: Callable[[str, int, int], None]
) -> list[Answered]:
    """Every question answered greedily and scored, in order."""
    answered: list[Answered] = []
    ordered = sorted(questions, key=lambda q: (q.task, len(q.question)))  # like lengths beside each other
    for first in range(0, len(ordered), BATCH):
        some = ordered[first : first + BATCH]
        prompts = [tokenizer.encode_prompt(q.messages) for q in some]
        tokens = generate(grok, prompts, LONGEST_ANSWER, {tokenizer.separator, tokenizer.eos}, Sampling())
        for question, ids in zip(some, tokens, strict=True):
            text = tokenizer.decode(ids).strip()
            score = reasoning.score(question.task, question.options, question, text)
            answered.append(Answered(question, text, score))
        progress("questions", len(answered), len(ordered))
    return answered


def accuracy_by_task(answered: Sequence[Answered]) -> dict[str, tuple[int, float]]:
    """Task -> (questions, share answered right)."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    for each in answered:
        by_task[each.question.task].append(each.right)
    return {task: (len(right), sum(right) / len(right)) for task, right in by_task.items()}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run knows: every question with its answer, and how many training chats ask one of them."""

    run: str
    step: int
    answered: tuple[Answered, ...]
    overlap: int

    def as_json(self) -> dict[str, Any]:
        """Accuracies by task, and the check that no training question is among the held-out ones."""
        tasks = {
            task: {"questions": count, "accuracy": share}
            for task, (count, share) in accuracy_by_task(self.answered).items()
        }
        return {"run": self.run, "step": self.step, "tasks": tasks, "held_out_seen_in_training": self.overlap}


def read_questions(run: Run) -> list[Question]:
    """The held-out questions of a run, in the order of its sources; none is an error."""
    try:
        entries = json.loads(run.questions_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{run.questions_file}: cannot be read: {error}", "colossi train writes it") from None
    if not entries:
        raise RunError(
            f"{run.folder}: has no held-out questions",
            'train it on a source of kind "reasoning" with held_out > 0',
        )
    return [Question(**entry) for entry in entries]


def open_corpus(run: Run) -> Corpus:
    """The data that the run was trained on, to check that no question of it is held out."""
    try:
        return Corpus.open(run.corpus_folder())
    except (OSError, DataError) as error:
        raise RunError(
            f"{run.corpus_file}: the data of the run is not where it was: {error}",
            "was the run moved, or the folder data beside it removed? colossi train prepares it again",
        ) from None


def evaluate_run(folder: Path, progress: Callable[[str, int, int], None]) -> Evaluation:
    """Score the newest checkpoint of a run on its held-out questions, and note it in the ledger."""
    run = open_run(folder)
    loaded = load_run(run)
    assert loaded.step is not None
    questions = read_questions(run)
    corpus = open_corpus(run)
    answered = answer_all(loaded.grok, loaded.tokenizer, questions, progress)
    overlap = corpus.overlap()
    with run.ledger() as ledger:
        newest = ledger.next_incarnation() - 1
        for task, (count, share) in accuracy_by_task(answered).items():
            data: dict[str, JSON] = {"task": task, "questions": count, "accuracy": share}
            ledger.append(
                Event(time=time.time(), kind="evaluated", incarnation=newest, step=loaded.step, data=data)
            )
    return Evaluation(str(folder), loaded.step, tuple(answered), overlap)
