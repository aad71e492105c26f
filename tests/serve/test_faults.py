"""Clients that go away, dawdle or talk nonsense; a server that is full, stopped or killed."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from colossi.serve.replies import Served

from .served import client, here, model_folder, random_served, server

LONG = 4000  # tokens: some seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("random-fox"))


@pytest.fixture
def served() -> Served:
    return random_served(positions=4096, running=2, waiting=2, patience=30.0)


@pytest.fixture
def url(served: Served) -> Iterator[str]:
    with here(served) as url:
        yield url


def soon(true: Callable[[], bool]) -> bool:
    """Whether it comes true within 20 seconds."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def body(most: int, stream: bool = False) -> bytes:
    asked = {"model": "random-fox", "prompt": "the", "max_tokens": most, "temperature": 0, "stream": stream}
    return json.dumps(asked).encode()


def post(content: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=20)


def still_answers(url: str) -> None:
    said = client(url).completions.create(model="random-fox", prompt="the quick", max_tokens=3)
    assert said.usage is not None and said.usage.completion_tokens <= 3


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_goes_away_is_computed_no_further(url: str, served: Served, stream: bool) -> None:
    for _ in range(6):  # more than run and wait together
        with connect(url) as sock:
            sock.sendall(post(body(LONG, stream)))
            assert soon(lambda: bool(served.engine.batch.running))
            if stream:
                sock.recv(100)
        assert soon(lambda: not served.engine.batch.running)
    still_answers(url)
    assert served.engine.pages.free == served.engine.pages.count


def test_a_full_server_says_when_to_come_again(url: str, served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(connect(url))
            sock.sendall(post(body(LONG, stream=True)))
        assert soon(lambda: len(served.engine.batch.waiting) == 2)
        with pytest.raises(openai.RateLimitError) as refused:
            still_answers(url)
        assert refused.value.response.headers["Retry-After"] == "1"
        assert refused.value.code == "rate_limit_exceeded"
    assert soon(lambda: not served.engine.batch.running)
    still_answers(url)


def test_who_waits_too_long_is_told_so() -> None:
    served = random_served(positions=4096, running=1, patience=0.2)
    with here(served) as url, connect(url) as sock:
        sock.sendall(post(body(4000, stream=True)))
        assert soon(lambda: bool(served.engine.batch.running))
        with pytest.raises(openai.InternalServerError) as late:
            still_answers(url)
        assert late.value.status_code == 503 and late.value.code == "timeout"


def test_a_slow_reader_hurts_nobody(url: str) -> None:
    """It reads nothing at all, with a window of the smallest size; others go on."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    slow.connect(("127.0.0.1", httpx.URL(url).port or 0))
    slow.sendall(post(body(LONG, stream=True)))
    for _ in range(5):
        still_answers(url)
    slow.close()
    still_answers(url)


GARBAGE = {
    "no HTTP": b"\x00\xff\x00garbage\r\n\r\n",
    "no JSON": post(b"{" * 100),
    "deep": post(b"[" * 100_000),
    "half": post(body(5))[:-10],
    "a list": post(b"[1, 2]"),
    "no text": post(b'{"model": "random-fox", "prompt": "\\ud800"}'),
    "a number": post(b'{"model": "random-fox", "prompt": "x", "seed": 1e400, "n": NaN}'),
    "wrong length": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_hurts_nobody(url: str, case: str) -> None:
    with connect(url) as sock:
        sock.sendall(GARBAGE[case])
        if case != "half":
            assert sock.recv(1000).startswith(b"HTTP/1.1 400")
        still_answers(url)


def test_what_is_too_large_is_refused(url: str) -> None:
    asked = {"model": "random-fox", "prompt": "x" * (5 << 20)}
    with pytest.raises(openai.APIStatusError) as refused:
        client(url).post("/completions", cast_to=object, body=asked)
    assert refused.value.status_code == 413
    still_answers(url)


def test_a_stop_finishes_what_runs_and_refuses_what_is_new(folder: Path) -> None:
    with server(folder) as (url, process):
        asking = client(url)
        name = asking.models.list().data[0].id
        stream = asking.completions.create(
            model=name, prompt="the", max_tokens=300, temperature=0, stream=True
        )
        pieces = iter(stream)
        said = [next(pieces).choices[0].text]
        process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                connect(url).close()
            except ConnectionRefusedError:
                return True
            return False

        assert soon(refused)
        rest = list(pieces)
        assert rest[-1].choices[0].finish_reason == "length"
        said += [chunk.choices[0].text for chunk in rest]
        assert process.wait(timeout=30) == 0


def test_killed_and_started_again_clients_get_an_error_and_retry(folder: Path) -> None:
    def ask(asking: OpenAI) -> str:
        said = asking.completions.create(model=folder.name, prompt="over the", max_tokens=200, temperature=0)
        return said.choices[0].text

    with server(folder) as (url, process):
        expected = ask(client(url))
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, client(url)) for _ in range(4)]
            time.sleep(0.05)
            process.kill()
            for each in asking:
                error = each.exception(timeout=30)
                assert error is None or isinstance(error, openai.APIConnectionError)
        process.wait()
        with pytest.raises(openai.APIConnectionError):
            ask(client(url))
        again = client(url).with_options(max_retries=20)
        with ThreadPoolExecutor(1) as pool:
            retrying = pool.submit(ask, again)
            with server(folder, port=httpx.URL(url).port or 0):
                assert retrying.result(timeout=60) == expected


def test_an_error_of_the_engine_costs_the_answers_that_it_met(
    served: Served, url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> list[int]:
        raise RuntimeError("a bug")

    asked = {"model": "random-fox", "prompt": "the", "max_tokens": 5, "temperature": 0}
    with monkeypatch.context() as patched:
        patched.setattr("colossi.serve.engine.pick", broken)
        answer = httpx.post(f"{url}/completions", json=asked)
    assert answer.status_code == 503 and "its log says" in answer.json()["error"]["message"]
    assert "RuntimeError: a bug" in capfd.readouterr().err
    assert httpx.post(f"{url}/completions", json=asked).status_code == 200
    assert soon(lambda: served.engine.pages.free == served.engine.pages.count)
