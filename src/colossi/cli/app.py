"""What all commands share: the application, the options that they have in common, and how they speak."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="From an empty site to a model that you can talk to.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """From an empty site to a model that you can talk to."""
    if version:
        from colossi import __version__

        sys.stdout.write(f"colossi {__version__}\n")
        raise typer.Exit


SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec: a TOML file, see docs/spec.md.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, e.g. runs/laptop.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key of the spec; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def say(text: str) -> None:
    """To people; stdout is for results."""
    sys.stderr.write(text)


def print_json(value: Any) -> None:
    """One object on stdout, at once: a server goes on after it, and who reads it through a pipe waits."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def print_rich(value: Any) -> None:
    """Tables, colours."""
    from rich.console import Console

    Console().print(value)
