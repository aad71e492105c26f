"""Commands of those who build: when the cluster of a site will stand."""

import os
from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich, say


@app.command()
def schedule(
    spec_file: SpecFile,
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long the solver may search.")] = 60.0,
    odds: Annotated[
        int, typer.Option(min=0, metavar="N", help="Carry the plan out N times with luck: 50% and 90% dates.")
    ] = 0,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a chart of all tasks to this page.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the chart, MS Project XML, iCalendar and CSV here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan the construction of a site's cluster: power, crews, milestones, and what limits them."""
    from colossi.site.scheduling import plan, with_levers
    from colossi.spec import read_spec
    from colossi.terminal import chances as drawn
    from colossi.terminal import schedule as shown
    from colossi.terminal.progress import Progress
    from colossi.terminal.saving import writing

    spec = read_spec(spec_file, overrides, needs=("site", "construction"))
    with Progress() as progress:
        found = with_levers(plan(spec, seconds, progress), progress)
        if odds:
            from colossi.site.chances import chances

            processes = min(len(os.sched_getaffinity(0)), 1 + odds // 100)
            lives = chances(found, odds, 0, processes, lambda done: progress("lives of the plan", done, odds))
    if page is not None:
        from colossi.terminal.gantt import write_page

        with writing(page):
            write_page(found, page)
    if export is not None:
        from colossi.terminal.plan_files import write_files

        with writing(export):
            write_files(found, export)
    if as_json:
        print_json(shown.as_json(found) | ({"odds": drawn.as_json(lives)} if odds else {}))
    else:
        print_rich(shown.render(found))
        if odds:
            print_rich(drawn.render(lives))
    for path in (page, export):
        if path is not None:
            say(f"written: {path}\n")
