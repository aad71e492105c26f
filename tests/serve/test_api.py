"""The official client, unmodified, against a real server process."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI
from prometheus_client.parser import text_string_to_metric_families

from colossi.serve.door import read_keys
from colossi.serve.load import Loaded, load

from ..train.runs import colossi
from .served import client, here, model_folder, random_served, reference, reference_text, server

QUESTION = "How quick is the brown fox?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("random-fox"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


@pytest.fixture(scope="module")
def openai(folder: Path) -> Iterator[OpenAI]:
    with server(folder) as (url, _):
        yield client(url)


def name(openai: OpenAI) -> str:
    return openai.models.list().data[0].id


def test_a_chat_is_the_plain_models_answer(openai: OpenAI, loaded: Loaded) -> None:
    said = openai.chat.completions.create(
        model=name(openai),
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_completion_tokens=24,
    )
    expected = reference_text(loaded, QUESTION, 24)
    assert said.choices[0].message.content == expected
    assert said.choices[0].finish_reason in ("length", "stop")
    assert said.usage is not None and 0 < said.usage.completion_tokens <= 24


def test_a_stream_says_the_same_piece_by_piece(openai: OpenAI, loaded: Loaded) -> None:
    chunks = list(
        openai.chat.completions.create(
            model=name(openai),
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == reference_text(loaded, QUESTION, 24)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in ("length", "stop")
    assert chunks[-1].usage is not None and chunks[-1].choices == []
    assert len(chunks) > 5


def test_completions_go_on_with_texts_and_tokens(openai: OpenAI, loaded: Loaded) -> None:
    prompts = ["the quick brown", "over the lazy"]
    said = openai.completions.create(
        model=name(openai), prompt=prompts, temperature=0, max_tokens=12, n=2, echo=True
    )
    expected = []
    for prompt in prompts:
        tokens = reference(loaded, loaded.tokenizer.encode(prompt), 12)
        expected += [prompt + loaded.tokenizer.decode(tokens)] * 2
    assert [choice.text for choice in said.choices] == expected
    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
    by_tokens = openai.completions.create(
        model=name(openai), prompt=loaded.tokenizer.encode(prompts[0]), temperature=0, max_tokens=12
    )
    assert prompts[0] + by_tokens.choices[0].text == expected[0]
    streamed = openai.completions.create(
        model=name(openai), prompt=prompts, temperature=0, max_tokens=12, echo=True, stream=True
    )
    texts = ["", ""]
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected[::2]


def test_a_seed_fixes_the_draws_and_each_choice_has_its_own(openai: OpenAI) -> None:
    def draw(seed: int, n: int) -> list[str]:
        said = openai.completions.create(
            model=name(openai), prompt="the", max_tokens=12, seed=seed, n=n, top_p=0.95
        )
        return [choice.text for choice in said.choices]

    assert draw(3, 4) == draw(3, 4)
    assert draw(5, 1)[0] == draw(3, 4)[2]
    assert len(set(draw(3, 4))) > 1


def test_stop_strings_end_an_answer_before_them(openai: OpenAI, loaded: Loaded) -> None:
    whole = reference_text(loaded, QUESTION, 24)
    stop = whole[9:12]
    expected = whole[: whole.index(stop)]
    said = openai.chat.completions.create(
        model=name(openai),
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=24,
        stop=["never said", stop],
    )
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == (expected, "stop")
    streamed = openai.chat.completions.create(
        model=name(openai),
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=24,
        stop=stop,
        stream=True,
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == expected


def test_logprobs_are_the_plain_models(openai: OpenAI, loaded: Loaded) -> None:
    said = openai.chat.completions.create(
        model=name(openai),
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=6,
        logprobs=True,
        top_logprobs=3,
    )
    assert said.choices[0].logprobs is not None and said.choices[0].logprobs.content is not None
    prompt = loaded.tokenizer.encode_prompt([{"role": "user", "content": QUESTION}])
    tokens = reference(loaded, prompt, 6)
    assert len(said.choices[0].logprobs.content) == len(tokens)
    for at, found in enumerate(said.choices[0].logprobs.content):
        with torch.no_grad():
            logits = loaded.grok(torch.tensor([prompt + tokens[:at]]))[0, -1]
        logits[0] = -torch.inf
        logprobs = logits.log_softmax(-1)
        assert found.logprob == pytest.approx(float(logprobs[tokens[at]]), abs=1e-4)
        assert found.bytes == list(loaded.tokenizer.bytes_of([tokens[at]]))
        best = logprobs.topk(3).values.tolist()
        assert [each.logprob for each in found.top_logprobs] == pytest.approx(best, abs=1e-4)
    text = openai.completions.create(
        model=name(openai), prompt="the quick", temperature=0, max_tokens=5, logprobs=2
    )
    logged = text.choices[0].logprobs
    assert logged is not None and logged.tokens is not None and logged.top_logprobs is not None
    assert len(logged.tokens) == len(logged.text_offset or []) == len(logged.top_logprobs)
    assert all(len(top) <= 2 for top in logged.top_logprobs)


def test_many_answers_at_once_are_each_their_own(openai: OpenAI, loaded: Loaded) -> None:
    questions = [f"{number} + {number}?" for number in range(24)]

    def ask(question: str) -> str | None:
        said = openai.chat.completions.create(
            model=name(openai),
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=10,
        )
        return said.choices[0].message.content

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, questions)) == [reference_text(loaded, q, 10) for q in questions]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a tool": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    "a penalty": ({"frequency_penalty": 1.0}, "frequency_penalty"),
    "a bias": ({"logit_bias": {"5": 10}}, "logit_bias"),
    "JSON": ({"response_format": {"type": "json_object"}}, "response_format"),
    "too hot": ({"temperature": 3}, "temperature"),
    "no choice": ({"n": 0}, "n"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "five stops": ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    "unknown": ({"extra_body": {"rope": 1}}, "rope"),
    "too long": ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
    "an image": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
            ]
        },
        "messages",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_by_name(openai: OpenAI, case: str) -> None:
    options, param = REFUSED[case]
    body = options.pop("extra_body", {})
    asked = {"model": name(openai), "messages": [{"role": "user", "content": "x"}], **options, **body}
    with pytest.raises(BadRequestError) as refused:  # json.dumps writes half a character as an escape
        openai.post("/chat/completions", cast_to=object, content=json.dumps(asked).encode())
    assert refused.value.param is not None and refused.value.param.startswith(param)
    assert refused.value.type == "invalid_request_error"


def test_another_model_is_not_found(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        openai.completions.create(model="grok-9", prompt="x")
    assert refused.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        openai.models.retrieve("grok-9")
    assert openai.models.retrieve(name(openai)).id == name(openai)


def test_health_and_metrics(openai: OpenAI) -> None:
    root = str(openai.base_url).removesuffix("v1/")
    openai.completions.create(model=name(openai), prompt="the", max_tokens=3)
    assert httpx.get(f"{root}health").json() == {"status": "ok", "model": name(openai)}
    families = {
        family.name: family for family in text_string_to_metric_families(httpx.get(f"{root}metrics").text)
    }
    wanted = {"requests", "tokens", "running", "waiting", "pages", "batch_sequences", "first_token_seconds"}
    assert {f"colossi_{each}" for each in wanted} <= families.keys()
    said = [s.value for s in families["colossi_tokens"].samples if s.labels == {"kind": "said"}]
    assert said[0] >= 3


def test_keys_open_and_their_absence_closes() -> None:
    with here(random_served(frozenset({"first-key", "second-key"}))) as url:
        assert client(url, "second-key").models.list().data
        for wrong in ("third-key", "first-key2", "first"):
            with pytest.raises(AuthenticationError):
                client(url, wrong).models.list()
        root = url.removesuffix("/v1")
        assert httpx.get(f"{root}/health").status_code == 200
        assert httpx.get(f"{root}/metrics").status_code == 401
        assert httpx.get(f"{root}/v1/nothing").status_code == 404


def test_a_file_of_keys_has_one_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\nfirst-key\n  second-key \n")
    assert read_keys(tmp_path / "keys") == {"first-key", "second-key"}


BAD_STARTS = {
    "beyond loopback": (["--host", "0.0.0.0"], "everybody there could ask"),
    "no such keys": (["--keys", "absent"], "absent: cannot be read"),
    "no key in it": (["--keys", "empty"], "empty: has no key"),
    "no such host": (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_it_does_not_start_wrongly(folder: Path, tmp_path: Path, case: str) -> None:
    options, message = BAD_STARTS[case]
    (tmp_path / "empty").write_text("# nothing\n")
    done = colossi("serve", folder, *options, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = colossi("serve", folder, "--port", other.getsockname()[1])
    assert done.returncode == 2 and "in use" in done.stderr
