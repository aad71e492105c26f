"""
The command line: one command for each verb. It parses, calls one function and prints.

Every heavy import stands inside the command that needs it, so that `colossi --help` answers at once.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colossi.errors import BadInput, ColossiError

if TYPE_CHECKING:
    from colossi.ledger.report import Report
    from colossi.ledger.run import Run

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
        _print_json(facts | ({"ranks": ranks_as_json(spec)} if ranks else {}))
    else:
        _print_rich(render(facts))
        if ranks:
            _print_rich(draw(spec))


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
        _print_json(table.as_json()) if as_json else _print_rich(shown.render(table))
        return
    if csv is not None or plot is not None:
        raise BadInput("--csv and --plot are for --sweep", "--sweep cluster.gpus=1024,2048")
    found = [forecast_of(read_spec(file, overrides, needs=("training",))) for file in spec_files]
    if as_json:
        _print_json([each.as_json() for each in found] if len(found) > 1 else found[0].as_json())
    else:
        for each in found:
            _print_rich(render(each))


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
    _print_json(found.as_json()) if as_json else _print_rich(render(found))


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
            _print_json([variant.as_json() for variant in found])
        else:
            _print_rich(simulation.render_comparison(found))
            _say(f"drawn in {page}\n")
        return
    simulation.write_page(outcome, folder / "simulation.html")
    if as_json:
        _print_json(outcome.as_json())
    else:
        _print_rich(simulation.render(outcome))
        _say(f"drawn in {folder / 'simulation.html'}; the ledger of seed 1: colossi report {folder}\n")


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
        _print_json({"name": name, "path": str(path), **profile.as_json()})
    else:
        _print_rich(render(profile, name, path))


@app.command()
def train(
    spec_file: SpecFile,
    run_folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The run folder; runs/NAME when left out.")
    ] = None,
    overrides: Overrides = None,
    chaos: Annotated[
        str,
        typer.Option(
            metavar="FAULTS", help="Faults on purpose: 'kill worker 1 at step 20; ...', or random:SEED:RATE."
        ),
    ] = "",
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="What runs it: local or slurm; as the spec says if left out.")
    ] = "",
    readmit: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Use a node again that is quarantined; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the model of a spec through all failures; the same command resumes a run that was stopped."""
    from colossi.engines.chaos import Chaos
    from colossi.engines.local import run_here
    from colossi.engines.train import begin, is_finished
    from colossi.ledger.run import Run, refuse_another_run
    from colossi.spec import read_spec
    from colossi.terminal.data import describe
    from colossi.terminal.live import Display
    from colossi.terminal.progress import Progress

    faults = Chaos.parse(chaos)
    chosen = [f"cluster.engine={engine}"] if engine else []
    spec = read_spec(spec_file, [*(overrides or []), *chosen], needs=("data", "training"))
    if on_slurm := spec.cluster.engine == "slurm":
        from colossi.engines import slurm

        slurm.refuse_what_cannot_be(faults)
    run = Run(run_folder or Path("runs") / spec.name)
    refuse_another_run(run.folder, spec)
    if not is_finished(run, spec):
        with Progress() as progress:
            _, corpus = begin(run.folder, spec, progress)
        for source in corpus.report:
            _say(describe(source))
        job = slurm.submit(run, spec, readmit or []) if on_slurm else None
        if job:
            _say(f"Slurm job {job.number}: {run.folder / 'slurm.sh'}\n")
        with Display(spec.name, history=run.events()) as display:
            if job:
                slurm.follow(run, job, display.update)
            else:
                run_here(run, spec, faults, display.update, readmit or [])
    elif readmit:
        raise BadInput(f"--readmit {readmit[0]}: {run.folder} is finished", "raise training.steps to go on")
    if as_json:
        _print_json(_report_of(run).as_json())
    else:
        _say(
            f"{run.folder}: {'finished' if is_finished(run, spec) else 'stopped; the same command goes on'}. "
        )
        _say(f"Next: colossi chat {run.folder}, colossi report {run.folder}\n")


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

    spec = read_spec(spec_file, overrides, needs=("training",))
    check_traceable(spec)
    chosen = chosen_ranks(ranks, spec.cluster.workers)
    if perfetto is not None and not perfetto.parent.is_dir():
        raise BadInput(f"{perfetto}: no folder {perfetto.parent}", "give a file in a folder that is there")
    with Progress() as progress:
        from colossi.train.trace import trace_ranks

        traces = trace_ranks(spec, chosen, progress)
    if perfetto is not None:
        try:
            save(traces, perfetto, durations(spec))
        except OSError as error:
            raise BadInput(
                f"{perfetto}: cannot be written: {error.strerror}", "give a file in a folder"
            ) from None
    facts = step.describe(spec, traces)
    _print_json(facts) if as_json else _print_rich(step.render(facts))


@app.command()
def launch(
    spec_file: SpecFile,
    engine: Annotated[str, typer.Option(metavar="NAME", help="What runs it: kubernetes.")] = "kubernetes",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests, make nothing.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Start a run on a Kubernetes cluster, or print the manifests that would."""
    import secrets

    from colossi.engines.manifests import manifests, to_yaml
    from colossi.spec import read_spec

    if engine != "kubernetes":
        raise BadInput(f"--engine {engine}: launch knows kubernetes only", "colossi train has the others")
    spec = read_spec(spec_file, overrides, needs=("data", "training", "kubernetes"))
    documents = manifests(spec, spec.name, secrets.token_hex(32))
    if dry_run and as_json:
        _print_json({"apiVersion": "v1", "kind": "List", "items": documents})
    elif dry_run:
        sys.stdout.write(to_yaml(documents))
    else:
        from colossi.engines.kubernetes import connect, drive

        drive(connect(), documents, lambda lost: _say(f"node {lost.node} lost: {lost.why}\n"))
        if as_json:
            _print_json({"jobset": spec.name, "state": "Completed"})


@app.command()
def evaluate(
    run_folder: RunFolder,
    as_json: AsJson = False,
) -> None:
    """Score a run on the held-out questions of its reasoning tasks, with reasoning-gym's own verifiers."""
    from colossi.serve.evaluate import evaluate_run
    from colossi.terminal.evaluation import render
    from colossi.terminal.progress import Progress

    with Progress() as progress:
        found = evaluate_run(run_folder, progress)
    _print_json(found.as_json()) if as_json else _print_rich(render(found))


@app.command()
def chat(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="A run, or a Hugging Face folder.")],
    prompt: Annotated[str | None, typer.Option(help="Answer this and exit; - reads it from stdin.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from this mass of likeliest tokens.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
) -> None:
    """Talk to a model in the terminal."""
    from colossi.serve.generate import Sampling
    from colossi.serve.load import load
    from colossi.terminal.talk import talk

    talk(load(folder), Sampling(temperature, top_p, seed), tokens, prompt)


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
    _print_json(found.as_json()) if as_json else sys.stdout.write("\n".join([*found.lines(), ""]))
    if found.broken is not None:
        raise typer.Exit(1)


@app.command("report")
def report_command(
    run_folder: RunFolder,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write the loss curve to this HTML file.")] = None,
) -> None:
    """Say what happened in a run: losses, speed, goodput and where the time went."""
    from colossi.ledger.run import open_run
    from colossi.terminal import curve, summary

    run = open_run(run_folder)
    found = _report_of(run)
    forecast_seconds = _forecast_step(run)
    if html is not None:
        try:
            curve.save_html(found, html, run_folder.name)
        except OSError as error:
            raise BadInput(
                f"{html}: cannot be written: {error.strerror}", "give a file in a folder"
            ) from None
    if as_json:
        _print_json(found.as_json() | {"forecast_step_seconds": forecast_seconds})
    else:
        _print_rich(summary.render(found, run_folder.name, forecast_seconds=forecast_seconds))


def _forecast_step(run: "Run") -> float | None:
    """What a step should take, where the run's spec names a profile; None where it cannot be said."""
    from colossi.plan.forecast import forecast as forecast_of

    spec = run.spec()
    if spec.cluster.profile is None:
        return None
    try:
        return forecast_of(spec).step_seconds
    except ColossiError as error:  # a report is read elsewhere too, where nothing was measured
        _say(f"no forecast: {error}\n")
        return None


def _report_of(run: "Run") -> "Report":
    from colossi.ledger.report import report

    return report(run.events())


def _say(text: str) -> None:
    sys.stderr.write(text)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _print_rich(value: Any) -> None:
    from rich.console import Console

    Console().print(value)


def main() -> None:
    """Run a command; our errors become a line and a hint, anything else is a bug with its traceback."""
    try:
        app()
    except ColossiError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
