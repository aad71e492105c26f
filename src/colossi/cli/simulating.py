"""Commands of the simulated fleet: its life for months, and storms of faults."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich, say


@app.command()
def simulate(
    spec_file: SpecFile,
    overrides: Overrides = None,
    days: Annotated[float, typer.Option(min=0.01, help="How long the fleet is watched.")] = 54.0,
    seeds: Annotated[int, typer.Option(min=1, help="How many lives, each with failures of its own.")] = 100,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="Where it is kept; runs/NAME-simulated if left out."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", metavar="TABLE.KEY=A,B,C", help="Policies beside each other, on the same failures."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Live through months of the fleet's failures, many times, under the very controller of real runs."""
    from colossi.simulation.outcome import compare, simulate
    from colossi.spec import read_spec
    from colossi.terminal import simulation
    from colossi.terminal.progress import Progress

    spec = read_spec(spec_file, overrides, needs=("training",))
    folder = run_folder or Path("runs") / f"{spec.name}-simulated"
    with Progress() as progress:

        def tell(done: int, total: int) -> None:
            progress("seeds", done, total)

        if changes:
            found = compare(spec_file, overrides or [], changes, days, seeds, tell)
        else:
            outcome = simulate(spec, days, seeds, folder, tell)
    if changes:
        page = folder.with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        simulation.write_comparison(found, page)
        if as_json:
            print_json([variant.as_json() for variant in found])
        else:
            print_rich(simulation.render_comparison(found))
            say(f"drawn in {page}\n")
        return
    simulation.write_page(outcome, folder / "simulation.html")
    if as_json:
        print_json(outcome.as_json())
    else:
        print_rich(simulation.render(outcome))
        say(f"drawn in {folder / 'simulation.html'}; the ledger of seed 1: colossi report {folder}\n")


@app.command()
def torture(
    hours: Annotated[float | None, typer.Option(min=0, help="Go on for so long.")] = None,
    storms: Annotated[int | None, typer.Option(min=1, help="How many; 1,000 without --hours.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first storm's; the next ones count on.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Try the controller in simulated storms of faults; a broken promise prints a seed that replays it."""
    from colossi.terminal.progress import Progress
    from colossi.torture.many import torture as torture_here

    with Progress() as progress:
        found = torture_here(seed, storms, hours, progress, None if as_json else sys.stdout.write)
    print_json(found.as_json()) if as_json else sys.stdout.write("\n".join([*found.lines(), ""]))
    if found.broken is not None:
        raise typer.Exit(1)
