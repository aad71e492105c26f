"""Commands that answer others over the network."""

from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, app, print_json, say


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="A run, or a Hugging Face folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen at; beyond loopback needs --keys.")] = (
        "127.0.0.1"
    ),
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="API keys, one a line; others are refused.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=512, help="Answers computed at once.")] = 32,
    queue: Annotated[
        int, typer.Option(min=1, help="Answers that may wait; more are refused with 429.")
    ] = 256,
    as_json: AsJson = False,
) -> None:
    """Serve a model by an OpenAI-compatible API until it is stopped."""
    from colossi.serve.door import listen, read_keys

    known = read_keys(keys) if keys is not None else frozenset()
    sock = listen(host, port, bool(known))

    from colossi.serve.load import load
    from colossi.serve.server import run, serving
    from colossi.web.chat import chat_page

    served = serving(load(folder), folder.resolve().name, known, batch, queue)
    address, real_port = sock.getsockname()[:2]
    url = f"http://[{address}]:{real_port}" if ":" in address else f"http://{address}:{real_port}"
    limits = served.engine.limits
    if as_json:
        print_json(
            {"url": f"{url}/v1", "model": served.name, "batch": batch, "cache_positions": limits.cache}
        )
    else:
        say(f"{served.name} at {url}/v1, {batch} answers at once, {limits.cache} positions cached\n")
    run(served, sock, [chat_page()])
