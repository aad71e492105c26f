"""Commands of the simulated fleet: its life for months, and storms of faults."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich, say
from colossi.errors import BadInput


@app.command()
def simulate(
    spec_file: SpecFile,
    overrides: Overrides = None,
    days: Annotated[
        float | None, typer.Option(min=0.01, help="How long the fleet is watched; 54 if left out.")
    ] = None,
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
    while_building: Annotated[
        bool, typer.Option("--while-building", help="Pods of the [site] join the run as they are accepted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Live through months of the fleet's failures, many times, under the very controller of real runs."""
    from colossi.simulation.outcome import compare, simulate
    from colossi.spec import read_spec
    from colossi.terminal import simulation
    from colossi.terminal.progress import Progress

    if while_building:
        if days is not None or run_folder is not None:
            option = "--days" if days is not None else "--run"
            raise BadInput(f"{option}: a run that grows is watched until its end", f"leave {option} out")
        _grow(spec_file, overrides or [], changes or [], seeds, as_json)
        return
    days = 54.0 if days is None else days
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


def _grow(spec_file: Path, overrides: list[str], changes: list[str], seeds: int, as_json: bool) -> None:
    """Train while the cluster is built."""
    from colossi.simulation.building import compare_growth, grow
    from colossi.spec import read_spec
    from colossi.terminal import growth
    from colossi.terminal.progress import Progress

    spec = read_spec(spec_file, overrides, needs=("model", "training", "site", "construction"))
    with Progress() as progress:
        if changes:
            found = compare_growth(spec_file, overrides, changes, seeds, progress)
        else:
            found = [(grow(spec, seeds, progress), 0.0, 0.0)]
    if not as_json:
        print_rich(growth.render(found))
    elif changes:
        print_json([one.as_json() | {"days_gained": gain, "margin": m} for one, gain, m in found])
    else:
        print_json(found[0][0].as_json())


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
