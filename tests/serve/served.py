"""A small random model in a folder, and real server processes that serve it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn
from openai import OpenAI

from colossi.data.tokenizer import Tokenizer
from colossi.model import Grok
from colossi.serve.api import app
from colossi.serve.door import listen
from colossi.serve.engine import Engine, Limits
from colossi.serve.load import Loaded
from colossi.serve.replies import Served
from colossi.spec.model import ModelSpec

SIZES = {
    "layers": 2,
    "hidden": 96,
    "heads": 6,
    "kv_heads": 2,
    "ffn_hidden": 64,
    "vocabulary": 300,
    "experts": 4,
    "experts_per_token": 2,
    "max_positions": 512,
}


def random_grok(seed: int, **sizes: object) -> Grok:
    """Weights large enough that answers differ, scales of norms that are not ones."""
    torch.manual_seed(seed)
    grok = Grok(ModelSpec.model_validate(SIZES | sizes)).eval()
    for name, parameter in grok.named_parameters():
        if "norm" in name or "_attention" in name or "_moe" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return grok


@torch.no_grad()
def tireless(seed: int, **sizes: object) -> Grok:
    """Another that hardly ever ends an answer by itself."""
    grok = random_grok(seed, **sizes, tied_embeddings=False)
    grok.get_parameter("head.weight")[[Tokenizer.eos, 4]] = 0.0
    return grok


def tokenizer() -> Tokenizer:
    """Bytes, and a few pieces of words."""
    return Tokenizer.train(iter(["the quick brown fox jumps over the lazy dog " * 3]), 300, "subwords")


def model_folder(folder: Path, seed: int = 5) -> Path:
    """A Hugging Face folder of it."""
    tireless(seed).save_pretrained(folder)
    tokenizer().save(folder / "tokenizer.json")
    return folder


@contextmanager
def server(folder: Path, *options: object, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server process, and the process; it is stopped at the end."""
    command = [sys.executable, "-m", "colossi.cli", "serve", folder, "--port", port, "--json", *options]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait()}"
        yield json.loads(line)["url"], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


def client(url: str, key: str = "none") -> OpenAI:
    """The official client, which does not try again by itself."""
    os.environ.pop("OPENAI_BASE_URL", None)
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


@torch.no_grad()
def reference(loaded: Loaded, prompt: list[int], most: int) -> list[int]:
    """Greedy by the plain model without a cache; a separator or end of text ends it."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        logits = loaded.grok(torch.tensor([tokens]))[0, -1]
        logits[0] = -torch.inf
        token = int(logits.argmax())
        if token in (loaded.tokenizer.separator, loaded.tokenizer.eos):
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def reference_text(loaded: Loaded, question: str, most: int) -> str:
    """The same of a chat's question, as the server says it."""
    prompt = loaded.tokenizer.encode_prompt([{"role": "user", "content": question}])
    return loaded.tokenizer.decode(reference(loaded, prompt, most)).lstrip()


@contextmanager
def here(served: Served) -> Iterator[str]:
    """The address of a server in a thread of this process, which is quicker to begin."""
    sock = listen("127.0.0.1", 0, keys=False)
    config = uvicorn.Config(app(served), log_level="critical", timeout_graceful_shutdown=5)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
    finally:
        running.should_exit = True
        thread.join()
        sock.close()


def random_served(keys: frozenset[str] = frozenset(), positions: int = 512, **limits: float) -> Served:
    """The random model, ready to be served."""
    made = Engine(tireless(5, max_positions=positions), Limits(**limits))  # type: ignore[arg-type]
    return Served(made, tokenizer(), "random-fox", 0, keys)
