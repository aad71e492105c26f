"""Writing parts in several processes: `python -m colossi.data.workers FOLDER` writes the parts that it is
told to.

Parent and worker talk in lines: the number of a part goes in, a JSON object comes back. A worker whose
parent is gone reads the end of its input and leaves; what it was writing stays a temporary folder that
the next preparation removes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import colossi
from colossi.data.documents import PART_SIZE, Part
from colossi.data.shards import Plan, read_json, write_part
from colossi.data.tokenizer import Tokenizer
from colossi.errors import DataError

INLINE = 4 * PART_SIZE  # bytes; a worker takes a second or two to start, so less than this is done here


def write_parts(folder: Path, plan: Plan, parts: list[Part], done: Callable[[], None]) -> None:
    """Write these parts, on every core if there is much to do, and call `done` after each."""
    processes = min(os.cpu_count() or 1, len(parts))
    if processes < 2 or sum(part.size for part in parts) <= INLINE:
        tokenizer, excluded = Tokenizer.load(folder / "tokenizer.json"), excluded_questions(folder)
        for part in parts:
            write_part(folder, plan, part, tokenizer, excluded)
            done()
    else:
        _in_processes(folder, [plan.parts.index(part) for part in parts], processes, done)


def excluded_questions(folder: Path) -> frozenset[str]:
    """The text of every held-out question, whatever its task."""
    return frozenset(question["question"] for question in read_json(folder / "questions.json"))


def _in_processes(folder: Path, numbers: list[int], processes: int, done: Callable[[], None]) -> None:
    idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    with _workers(folder, processes) as workers, ThreadPoolExecutor(processes) as threads:
        for worker in workers:
            idle.put(worker)
        futures = [threads.submit(_ask, idle, number) for number in numbers]
        try:
            for future in as_completed(futures):
                future.result()
                done()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.kill()
            raise


def _ask(idle: "SimpleQueue[subprocess.Popen[str]]", number: int) -> None:
    """Have some worker write a part."""
    worker = idle.get()
    try:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    finally:
        idle.put(worker)
    if not line:
        raise RuntimeError(f"a process that was writing part {number} died; its traceback is above")
    answer = json.loads(line)
    if "error" in answer:
        raise DataError(answer["error"], answer["hint"])


@contextmanager
def _workers(folder: Path, count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes of a group of their own, so that Ctrl-C reaches only us; gone when the block ends."""
    command = [sys.executable, "-m", "colossi.data.workers", str(folder)]
    package = str(Path(colossi.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    pipe = subprocess.PIPE
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            workers.append(
                subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True
                )
            )
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()


def main(folder: Path) -> None:
    """Write the parts whose numbers are read from standard input."""
    plan, excluded = Plan.load(folder), excluded_questions(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not write into the replies
    for line in sys.stdin:
        reply: dict[str, str] = {}
        try:
            write_part(folder, plan, plan.parts[int(line)], tokenizer, excluded)
        except DataError as error:
            reply = {"error": error.message, "hint": error.hint}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
