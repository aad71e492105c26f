"""Commands for those who build: the cluster that a site holds."""

from pathlib import Path
from typing import Annotated

import typer

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich


@app.command()
def design(
    spec_file: SpecFile,
    overrides: Overrides = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures and hand-over files into this folder.")
    ] = None,
    pod: Annotated[
        int, typer.Option(metavar="N", help="Whose cables' stickers are printed: labels/pod-N.pdf.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Design the cluster of a site: every rack, switch and cable, power, cooling, cost."""
    from colossi.site.cluster import design as design_of
    from colossi.site.summary import facts_of
    from colossi.spec import read_spec
    from colossi.terminal.design import render

    spec = read_spec(spec_file, overrides, needs=("site",))
    assert spec.site is not None
    found = design_of(spec)
    facts = facts_of(found, spec.site)
    if export is not None:
        from colossi.site.exports.folder import write_all
        from colossi.terminal.progress import Progress

        with Progress() as progress:
            facts["export"] = [str(path) for path in write_all(found, export, pod, progress)]
    print_json(facts) if as_json else print_rich(render(facts))
