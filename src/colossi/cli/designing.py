"""Commands for those who build: the cluster that a site holds."""

from colossi.cli.app import AsJson, Overrides, SpecFile, app, print_json, print_rich


@app.command()
def design(spec_file: SpecFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Design the cluster of a site: every rack, switch and cable, power, cooling, cost."""
    from colossi.site.cluster import design as design_of
    from colossi.site.summary import facts_of
    from colossi.spec import read_spec
    from colossi.terminal.design import render

    spec = read_spec(spec_file, overrides, needs=("site",))
    assert spec.site is not None
    found = design_of(spec)
    facts = facts_of(found, spec.site)
    print_json(facts) if as_json else print_rich(render(facts))
