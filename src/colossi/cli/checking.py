"""Commands of the building site: test nodes, and say how the build stands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colossi.cli.app import AsJson, Overrides, app, print_json, print_rich
from colossi.errors import BadInput

if TYPE_CHECKING:
    from colossi.acceptance.rules import Bound


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
    allowed = _bound(bound)
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
        _check_machine(run_folder or Path("."), as_json)
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
        outcome = check_through(run, spec, progress, named=nodes or [], readmit=readmit or [], bound=allowed)
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


def _check_machine(folder: Path, as_json: bool) -> None:
    """All checks of one node, here, judged by limits alone: there is nobody to compare with."""
    import socket

    from colossi.acceptance.checks import NAMES, check_node
    from colossi.acceptance.gpus import device_name
    from colossi.acceptance.judging import by_limits
    from colossi.acceptance.result import reasons, verdict
    from colossi.spec.acceptance import acceptance_of
    from colossi.terminal.checks import render_machine
    from colossi.terminal.progress import Progress

    if not folder.is_dir():
        raise BadInput(f"--run {folder}: no such folder", "its disk is tested: give one that is there")
    limits, results, name = acceptance_of(device=device_name()), [], socket.gethostname()
    with Progress() as progress:
        for number, (_, found) in enumerate(check_node(folder)):
            results += [by_limits(result, limits) for result in found]
            progress("checks", number + 1, len(NAMES))
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
