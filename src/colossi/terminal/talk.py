"""The chat loop: lines in, streamed answers out; talk of our own goes to stderr, answers to stdout."""

import sys

from rich.console import Console

from colossi.errors import BadInput
from colossi.serve.chat import answer
from colossi.serve.generate import Sampling
from colossi.serve.load import Loaded


def talk(loaded: Loaded, sampling: Sampling, most: int, prompt: str | None) -> None:
    """One answer to `prompt`, or a conversation until Ctrl-D; /new forgets what was said."""
    if prompt is not None:
        question = _read_stdin() if prompt == "-" else prompt.strip()
        if not question:
            raise BadInput("the prompt is empty", 'ask something: --prompt "How many times ..."')
        answer(loaded, [{"role": "user", "content": question}], sampling, most, _write)
        _write("\n")
        return
    console = Console(stderr=True)
    console.print(f"[dim]{loaded.origin}  ·  Ctrl-D ends, /new starts over[/dim]", highlight=False)
    messages: list[dict[str, str]] = []
    while (line := _ask(console)) is not None:
        if line == "/new":
            messages.clear()
        elif line:
            messages.append({"role": "user", "content": line})
            said = answer(loaded, messages, sampling, most, _write)
            _write("\n")
            messages.append({"role": "assistant", "content": said})


def _ask(console: Console) -> str | None:
    try:
        if not sys.stdin.isatty():
            return input().strip()
        return console.input("[bold cyan]you[/bold cyan]  ").strip()
    except UnicodeDecodeError as error:
        raise BadInput(f"standard input: not UTF-8 ({error.reason})", "save the text as UTF-8") from None
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadInput(f"standard input: not UTF-8 ({error})", "save the text as UTF-8") from None


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
