"""
llama.cpp's server on loopback, in a process of its own (PyPI xllamacpp).

    python validation/llamas.py FILE PARALLEL THREADS     prints its address and serves until stdin closes
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


@contextlib.contextmanager
def llama_server(path: Path, parallel: int = 1, threads: int = 1) -> Iterator[httpx.Client]:
    """A client of a server of this file, which answers so many at once."""
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads fills, and the server stops
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), str(parallel), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        address = ""
        for line in process.stdout:
            if line.startswith("http"):
                address = line.strip()
                break
        log.seek(0)
        assert address, log.read()[-3000:]
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        log.close()


def greedy(client: httpx.Client, prompt: list[int], most: int, stops: bool = False) -> list[int]:
    """The likeliest tokens that follow; padding is never said. It `stops` at the model's own end, or is never
    to say that.
    """
    return _complete(client, prompt, n_predict=most, return_tokens=True, ignore_eos=not stops)["tokens"]


def log_probabilities(client: httpx.Client, prompt: list[int], vocabulary: int) -> list[float] | None:
    """Of the token that follows, for all tokens; None where the likeliest is half a character, of which the
    server tells nothing.
    """
    answer = _complete(client, prompt, n_predict=1, n_probs=vocabulary)
    if "completion_probabilities" not in answer:
        return None
    row = [float("nan")] * vocabulary
    for each in answer["completion_probabilities"][0]["top_logprobs"]:
        row[each["id"]] = each["logprob"]
    return row


def _complete(client: httpx.Client, prompt: list[int], **more: object) -> dict[str, Any]:
    body = {"prompt": prompt, "temperature": 0, "logit_bias": [[0, False]], "ignore_eos": True}
    answer = client.post("/completion", json=body | {"cache_prompt": False} | more)
    answer.raise_for_status()
    return answer.json()


def serve(path: str, parallel: int, threads: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port = 0
    params.n_ctx, params.n_parallel = 512 * parallel, parallel
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
