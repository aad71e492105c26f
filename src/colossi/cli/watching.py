"""Commands that show a run to a browser."""

from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, app, print_json, say


@app.command()
def dashboard(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, real or simulated.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Where it listens; this machine only if left out.")] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Show runs in a browser, as they go on or as they went: fleet, loss, speed, goodput, power."""
    from colossi.ledger.run import open_run
    from colossi.web.watched import Watched

    runs = [Watched(open_run(folder)) for folder in run_folders]
    if as_json:
        print_json({watched.name: watched.since(0)["now"] for watched in runs})
        return
    from colossi.web.dashboard import app_of
    from colossi.web.listen import listen

    listen(app_of(runs), host, port, lambda address: say(f"{address}  (Ctrl-C ends it)\n"))
