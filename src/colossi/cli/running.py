"""Commands of a run: train it, follow it, test it, talk to it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colossi.cli.app import AsJson, Overrides, RunFolder, SpecFile, app, print_json, print_rich, say
from colossi.errors import BadInput, ColossiError

if TYPE_CHECKING:
    from colossi.ledger.events import Event
    from colossi.ledger.report import Report
    from colossi.ledger.run import Run


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
    metrics: Annotated[
        str,
        typer.Option(metavar="PORT", help="Answer Prometheus on this port of this machine, or on HOST:PORT."),
    ] = "",
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
            say(describe(source))
        with _metrics(run, metrics):
            job = slurm.submit(run, spec, readmit or []) if on_slurm else None
            if job:
                say(f"Slurm job {job.number}: {run.folder / 'slurm.sh'}\n")
            with Display(spec.name, history=run.events()) as display:
                if job:
                    slurm.follow(run, job, display.update)
                else:
                    run_here(run, spec, faults, display.update, readmit or [])
    elif readmit:
        raise BadInput(f"--readmit {readmit[0]}: {run.folder} is finished", "raise training.steps to go on")
    if as_json:
        print_json(_report_of(run).as_json())
    else:
        say(
            f"{run.folder}: {'finished' if is_finished(run, spec) else 'stopped; the same command goes on'}. "
        )
        say(f"Next: colossi chat {run.folder}, colossi report {run.folder}\n")


@contextmanager
def _metrics(run: "Run", address: str) -> Iterator[None]:
    """For Prometheus, where an address is given."""
    if not address:
        yield
        return
    from colossi.web.metrics import serve_metrics

    end = serve_metrics(run, address)
    try:
        yield
    finally:
        end()


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
        print_json({"apiVersion": "v1", "kind": "List", "items": documents})
    elif dry_run:
        sys.stdout.write(to_yaml(documents))
    else:
        from colossi.engines.kubernetes import connect, drive

        drive(connect(), documents, lambda lost: say(f"node {lost.node} lost: {lost.why}\n"))
        if as_json:
            print_json({"jobset": spec.name, "state": "Completed"})


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
    print_json(found.as_json()) if as_json else print_rich(render(found))


@app.command()
def chat(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FOLDER", help="A run, a Hugging Face folder or a .gguf file.")
    ],
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


@app.command("report")
def report_command(
    run_folder: RunFolder,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write the loss curve to this HTML file.")] = None,
) -> None:
    """Say what happened in a run: losses, speed, goodput and where the time went."""
    from colossi.ledger.report import report
    from colossi.ledger.run import open_run
    from colossi.terminal import curve, summary
    from colossi.terminal.saving import writing

    run = open_run(run_folder)
    history = run.events()
    found = report(history)
    forecast_seconds = _forecast_step(run)
    power = _power_of(run, history)
    if html is not None:
        with writing(html):
            curve.save_html(found, html, run_folder.name)
    if as_json:
        print_json(found.as_json() | {"forecast_step_seconds": forecast_seconds, "power": power})
    else:
        print_rich(summary.render(found, run_folder.name, forecast_seconds=forecast_seconds))
        if power:
            print_rich(
                f"power at most {power['peak_mw']:,.1f} MW, {power['mean_mw']:,.1f} on average: "
                f"{power['energy_mwh']:,.0f} MWh, ${power['energy_usd'] / 1e6:,.2f} million"
            )


def _forecast_step(run: "Run") -> float | None:
    """What a step should take, where the run's spec names a profile; None where it cannot be said."""
    from colossi.plan.forecast import forecast as forecast_of

    spec = run.spec()
    if spec.cluster.profile is None:
        return None
    try:
        return forecast_of(spec).step_seconds
    except ColossiError as error:  # a report is read elsewhere too, where nothing was measured
        say(f"no forecast: {error}\n")
        return None


def _power_of(run: "Run", history: "list[Event]") -> dict[str, Any] | None:
    """What the machines of a simulated run drew; of real ones nobody has measured it."""
    from colossi.ledger.clock import account
    from colossi.simulation.outcome import NOTE, power_of_run
    from colossi.simulation.scenario import complete_spec

    if not (run.folder / NOTE).is_file():
        return None
    power = power_of_run(*complete_spec(run.spec()), account(history))
    return None if power is None else power.as_json()


def _report_of(run: "Run") -> "Report":
    from colossi.ledger.report import report

    return report(run.events())
