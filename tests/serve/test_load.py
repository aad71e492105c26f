"""Many clients at once, each with questions of its own: no error, no answer lost or somebody else's."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from colossi.serve.load import load

from .served import model_folder, reference_text, server

CLIENTS, MOST = 64, 12
SHORT, LONG = 5.0, 120.0  # seconds
REQUESTS, SETTLED = 10_000, 2_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("random-fox"))


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, str]:
    """What the plain model says to each client."""
    loaded = load(folder)
    questions = [f"{n} foxes and {n * 7 % 64} dogs" for n in range(CLIENTS)]
    found = {question: reference_text(loaded, question, MOST) for question in questions}
    assert len(set(found.values())) > CLIENTS / 2  # so that a mixed-up answer would show
    return found


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of a server process, and its number."""
    with server(folder, "--queue", 2 * CLIENTS) as (url, process):
        yield url, process.pid


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, trust_env=False)


def ask(client: httpx.Client, model: str, question: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MOST,
        "temperature": 0,
    }
    answer = client.post("/chat/completions", json=body)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def model_of(client: httpx.Client) -> str:
    """What is served, which is called as its folder."""
    return str(client.get("/models").json()["data"][0]["id"])


def crowd(url: str, answers: dict[str, str], seconds: float) -> int:
    """So many clients ask, hear, and ask again; how many answers they got, all of them right."""
    end = time.monotonic() + seconds

    def one(question: str) -> int:
        asked = 0
        with client_of(url) as client:
            model = model_of(client)
            while time.monotonic() < end:
                assert ask(client, model, question) == answers[question]
                asked += 1
        return asked

    with ThreadPoolExecutor(CLIENTS) as pool:
        counts = list(pool.map(one, answers))
    assert min(counts) > 0  # nobody is left out
    return sum(counts)


def test_a_crowd_is_answered_each_with_its_own(served: tuple[str, int], answers: dict[str, str]) -> None:
    crowd(served[0], answers, SHORT)


@pytest.mark.long
def test_a_crowd_is_answered_for_two_minutes(served: tuple[str, int], answers: dict[str, str]) -> None:
    crowd(served[0], answers, LONG)


@pytest.mark.long
def test_memory_is_flat(served: tuple[str, int], answers: dict[str, str]) -> None:
    """Over 10,000 requests, once the cache's pages have all been touched and pools are filled."""
    url, number = served
    process = psutil.Process(number)
    before = 0
    questions = list(answers)
    with client_of(url) as client, ThreadPoolExecutor(16) as pool:
        model = model_of(client)
        for begin in range(0, REQUESTS, 1000):
            list(pool.map(lambda n: ask(client, model, questions[n % CLIENTS]), range(begin, begin + 1000)))
            if begin + 1000 == SETTLED:
                before = process.memory_info().rss
    assert process.memory_info().rss - before < 20e6
