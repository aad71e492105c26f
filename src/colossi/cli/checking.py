"""Commands of the building site: test nodes, and say how the build stands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colossi.cli.app import AsJson, Overrides, RunFolder, app, print_json, print_rich
from colossi.errors import BadInput

if TYPE_CHECKING:
    from colossi.acceptance.rules import Bound
    from colossi.spec import Spec


@app.command()
def check(
    spec_file: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="A spec, to test all nodes of its cluster; else this machine."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Who gives the nodes: local or slurm; as the spec says if left out."
        ),
    ] = "",
    run_folder: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="DIR", help="Where the results are kept, and what disk is tested; runs/NAME."
        ),
    ] = None,
    nodes: Annotated[
        list[str] | None, typer.Option("--node", metavar="NODE", help="Only this node; may be repeated.")
    ] = None,
    readmit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE", help="Test a node that is out, and let it back if it passes; may be repeated."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Only these checks, such as disk or pairs; may be repeated."),
    ] = None,
    bound: Annotated[
        str,
        typer.Option(
            metavar="BOUND", help='How many may be out at once: a share such as "10%", or a number.'
        ),
    ] = "10%",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Test this machine, or every node of a cluster; who fails is taken out, and says why."""
    allowed, groups = _bound(bound), _groups(only or [])
    if spec_file is None:
        for option, given in (
            ("--engine", engine),
            ("--node", nodes),
            ("--readmit", readmit),
            ("--set", overrides),
        ):
            if given:
                raise BadInput(
                    f"{option}: without a spec only this machine is tested", "colossi check SPEC ..."
                )
        _check_machine(run_folder or Path("."), groups, as_json)
        return
    from colossi.engines.checking import check_through
    from colossi.ledger.run import begin_run
    from colossi.spec import read_spec
    from colossi.terminal.checks import render_fleet
    from colossi.terminal.progress import Progress

    chosen = [f"cluster.engine={engine}"] if engine else []
    spec = read_spec(spec_file, [*(overrides or []), *chosen], needs=("cluster",))
    run = begin_run(run_folder or Path("runs") / spec.name, spec)
    with Progress() as progress:
        outcome = check_through(
            run, spec, progress, named=nodes or [], readmit=readmit or [], groups=groups, bound=allowed
        )
    if as_json:
        print_json(outcome.as_json())
    else:
        done = {
            "was not tested": outcome.skipped,
            "is taken out": outcome.out,
            "failed and is not taken out": outcome.left,
            "is back": outcome.returned,
            "does not come back": outcome.refused,
        }
        print_rich(render_fleet(spec.name, outcome.results, outcome.racks, done))
    if outcome.failed() or outcome.refused or not outcome.results:
        raise typer.Exit(1)


def _bound(text: str) -> "Bound":
    from colossi.acceptance.rules import Bound

    try:
        return Bound.of(text)
    except ValueError as error:
        raise BadInput(f"--bound {error}") from None


def _groups(only: list[str]) -> tuple[str, ...]:
    from colossi.acceptance.checks import GROUPS

    for group in only:
        if group not in GROUPS:
            raise BadInput(f"--only {group}: no such group of checks", f"there are {', '.join(GROUPS)}")
    return tuple(only) or GROUPS


def _check_machine(folder: Path, groups: tuple[str, ...], as_json: bool) -> None:
    """All checks of one node, here, judged by limits alone: there is nobody to compare with."""
    import socket

    from colossi.acceptance.checks import CHECKS, check_node
    from colossi.acceptance.gpus import device_name
    from colossi.acceptance.judging import by_limits
    from colossi.acceptance.result import group_of, reasons, verdict
    from colossi.spec.acceptance import acceptance_of
    from colossi.terminal.checks import render_machine
    from colossi.terminal.progress import Progress

    if not folder.is_dir():
        raise BadInput(f"--run {folder}: no such folder", "its disk is tested: give one that is there")
    limits, results, name = acceptance_of(device=device_name()), [], socket.gethostname()
    with Progress() as progress:
        total = sum(group_of(check.name) in groups for check in CHECKS)
        for number, (_, found) in enumerate(check_node(folder, groups)):
            results += [by_limits(result, limits) for result in found]
            progress("checks", number + 1, total)
    status = verdict(results)
    if as_json:
        why = reasons(results) if status == "fail" else ""
        print_json(
            {"node": name, "verdict": status, "why": why, "results": [each.as_json() for each in results]}
        )
    else:
        print_rich(render_machine(name, results))
    if status == "fail":
        raise typer.Exit(1)


@app.command()
def status(
    run_folder: RunFolder,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The plan.csv of colossi schedule --export, to hold it against."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how a build stands: pods and nodes by state, yield, and what was accepted when."""
    import time

    from colossi.errors import DataError
    from colossi.ledger.build import due_of, standing
    from colossi.ledger.run import open_run
    from colossi.terminal.build import render

    run = open_run(run_folder)
    spec = run.spec(("cluster",))
    due = {}
    if plan is not None:
        try:
            due = due_of(plan.read_text(encoding="utf-8"), str(plan))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{plan}: cannot be read ({error})", "colossi schedule SPEC --export DIR"
            ) from None
    pods, number = _pods_of(spec)
    now = time.time()
    found = standing(run.events(), pods, number, due, now)
    print_json(found.as_json()) if as_json else print_rich(render(spec.name, found, now))


def _pods_of(spec: "Spec") -> tuple[dict[str, str], int]:
    """Node -> pod by the design of the spec's site, where it has one; and how many nodes there shall be."""
    if spec.site is None:
        return {}, spec.cluster.nodes + spec.cluster.spares
    from colossi.site.cluster import design

    built = design(spec)
    devices, racks = built.devices, built.racks
    pods = {
        built.device_name(device): f"pod-{racks.pod[devices.rack[device]]:03d}"
        for device in built.devices_of("node").tolist()
    }
    return pods, len(pods)
