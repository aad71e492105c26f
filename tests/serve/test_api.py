"""The official client, unmodified, against a real server process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from colossi.serve.load import Loaded

from .served import client, load, model_folder, reference_text, server

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
