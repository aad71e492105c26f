"""Commands that need no run: what would be, on machines that need not exist."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich
from colossi.errors import BadInput

if TYPE_CHECKING:
    pass


@app.command()
def info(
    spec_file: SpecFile,
    overrides: Overrides = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="Also draw which worker holds what.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how large the model of a spec is: parameters, FLOPs per token, memory."""
    from colossi.spec import read_spec
    from colossi.terminal.info import describe, render
    from colossi.terminal.ranks import as_json as ranks_as_json
    from colossi.terminal.ranks import draw

    spec = read_spec(spec_file, overrides)
    facts = describe(spec)
    if as_json:
        print_json(facts | ({"ranks": ranks_as_json(spec)} if ranks else {}))
    else:
        print_rich(render(facts))
        if ranks:
            print_rich(draw(spec))


@app.command()
def forecast(
    spec_files: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="One or several specs.")],
    overrides: Overrides = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.KEY=A,B,C", help="Try several values of a key; at most two of these."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the sweep's table to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the sweep's plot to this HTML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run will do: step time, speed, memory, goodput, days, cost, energy."""
    from colossi.plan.forecast import forecast as forecast_of
    from colossi.spec import read_spec
    from colossi.terminal.forecast import render

    if sweep:
        from colossi.plan.sweep import sweep_of
        from colossi.terminal import sweep as shown

        table = sweep_of(spec_files, overrides or [], sweep)
        if csv is not None:
            shown.write_csv(table, csv)
        if plot is not None:
            shown.write_plot(table, plot)
        print_json(table.as_json()) if as_json else print_rich(shown.render(table))
        return
    if csv is not None or plot is not None:
        raise BadInput("--csv and --plot are for --sweep", "--sweep cluster.gpus=1024,2048")
    found = [forecast_of(read_spec(file, overrides, needs=("training",))) for file in spec_files]
    if as_json:
        print_json([each.as_json() for each in found] if len(found) > 1 else found[0].as_json())
    else:
        for each in found:
            print_rich(render(each))


@app.command()
def plan(
    spec_file: SpecFile,
    overrides: Overrides = None,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search all layouts of a run on a cluster of the catalogue, and say what limits the best."""
    from colossi.plan.plan import plan as plan_of
    from colossi.spec import read_spec
    from colossi.terminal.plan import render

    found = plan_of(read_spec(spec_file, overrides, needs=("training",)), top)
    print_json(found.as_json()) if as_json else print_rich(render(found))


@app.command()
def calibrate(
    name: Annotated[str, typer.Option(metavar="NAME", help="What specs call the profile.")] = "here",
    as_json: AsJson = False,
) -> None:
    """Measure this device with the trainer's own kernels, for `[cluster] profile`."""
    from colossi.engines.standby import worker_settings
    from colossi.plan.profile import check_name
    from colossi.terminal.calibration import render
    from colossi.terminal.progress import Progress
    from colossi.train.calibrate import calibrate as calibrate_here

    check_name(name)
    with Progress() as progress:
        path, profile = calibrate_here(name, worker_settings, progress)
    if as_json:
        print_json({"name": name, "path": str(path), **profile.as_json()})
    else:
        print_rich(render(profile, name, path))


@app.command("trace")
def trace_command(
    spec_file: SpecFile,
    ranks: Annotated[
        str, typer.Option(metavar="A,B", help="Which ranks; the first and the last when left out.")
    ] = "",
    perfetto: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every operation to this file for Perfetto.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the real step of a rank without numbers and without the others: FLOPs, collectives, memory."""
    from colossi.spec import read_spec
    from colossi.spec.ranks import chosen_ranks
    from colossi.spec.trainable import check_traceable
    from colossi.terminal import step
    from colossi.terminal.durations import durations
    from colossi.terminal.perfetto import save
    from colossi.terminal.progress import Progress
    from colossi.terminal.saving import writing

    spec = read_spec(spec_file, overrides, needs=("training",))
    check_traceable(spec)
    chosen = chosen_ranks(ranks, spec.cluster.workers)
    if perfetto is not None and not perfetto.parent.is_dir():
        raise BadInput(f"{perfetto}: no folder {perfetto.parent}", "give a file in a folder that is there")
    with Progress() as progress:
        from colossi.train.trace import trace_ranks

        traces = trace_ranks(spec, chosen, progress)
    if perfetto is not None:
        with writing(perfetto):
            save(traces, perfetto, durations(spec))
    facts = step.describe(spec, traces)
    print_json(facts) if as_json else print_rich(step.render(facts))
