"""The command that writes a model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, app, print_json, say


@app.command("export")
def export_command(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run, a Hugging Face folder or a .gguf file.")
    ],
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="hf or gguf.")],
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Of the weights: f32, f16, or q8_0 (gguf only).")
    ] = "f32",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; beside the run when left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the newest checkpoint for transformers, vLLM (hf) or llama.cpp (gguf)."""
    from colossi.serve.export.export import export
    from colossi.terminal.progress import Progress

    with Progress() as progress:
        done = export(path, format_, type_, out, progress)
    if as_json:
        print_json(done.as_json())
    else:
        say(f"{done.path}: {done.nbytes / 2**20:,.1f} MiB, {done.type}, from {done.source}\n")
