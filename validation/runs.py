"""
Forecasts beside published runs, misses first.

    python validation/runs.py                    # every group: error, worst rows
    python validation/runs.py --held-out         # constants fitted anew without each group in turn
    python validation/runs.py --calculon DIR     # and Calculon's errors on the rows that it can express
    python validation/runs.py --fit              # fit them to all, and write the catalogue's efficiency.toml

Errors are of step times, |forecast / measured - 1|. "Held out" means that the constants come from all other
publishers' runs; a publisher's rows are never split.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from calculons import calculon, expressible
from fitting import MEASURED, NAMES, START, Array, Table, fit, pack, unpack

from colossi.plan.efficiency import Architecture, Fitted, published
from colossi.plan.memory import memory
from colossi.plan.step import step

CATALOGUE = Path(__file__).parents[1] / "src/colossi/spec/catalogue/efficiency.toml"


def held_out(table: Table, start: Array) -> Array:
    """Forecasts of each publisher's runs with constants from all others'."""
    seconds = np.empty(len(table.seconds))
    for group in dict.fromkeys(table.group):
        rows = np.flatnonzero(table.group == group)
        others = np.flatnonzero(table.group != group)
        seconds[rows] = table.forecast(fit(table, others, start, 40), rows)
    return seconds


def score(errors: Array) -> dict[str, float]:
    size = np.abs(errors)
    return {
        "rows": len(size),
        "mean": float(size.mean()),
        "median": float(np.median(size)),
        "p90": float(np.quantile(size, 0.9)),
        "worst": float(size.max()),
        "bias": float(np.median(errors)),
    }


def by_group(table: Table, seconds: Array) -> dict[str, dict[str, float]]:
    errors = seconds / table.seconds - 1
    groups = dict.fromkeys(table.group)
    return {group: score(errors[table.group == group]) for group in groups} | {"all": score(errors)}


def to_toml(fitted: Fitted) -> str:
    lines = [
        "# Fitted by `python validation/runs.py --fit` to the runs of published_runs.csv; what each means",
        "# is in plan/efficiency.py. CDNA 3 is not among them: shares of SemiAnalysis, December 2024.",
        "[efficiency]",
    ]
    lines += [f"{name} = {getattr(fitted.efficiency, name):.4g}" for name in NAMES]
    other = {"cdna3": Architecture(0.48, 0.35, 0.30, 750 / 1307e12)}
    for kind, shares in (fitted.architectures | other).items():
        lines += ["", f"[architecture.{kind}]"]
        lines += [f"{name} = {value:.4g}" for name, value in asdict(shares).items()]
    return "\n".join(lines) + "\n"


def print_table(title: str, groups: dict[str, dict[str, float]]) -> None:
    say(f"\n{title}\n{'group':18}{'rows':>5}{'mean':>8}{'median':>8}{'p90':>8}{'worst':>8}{'bias':>8}\n")
    for group, s in groups.items():
        say(
            f"{group:18}{s['rows']:5.0f}{s['mean']:8.1%}{s['median']:8.1%}{s['p90']:8.1%}{s['worst']:8.1%}"
            f"{s['bias']:+8.1%}\n"
        )


def worst(table: Table, seconds: Array, count: int) -> list[dict[str, Any]]:
    errors = seconds / table.seconds - 1
    order = np.argsort(-np.abs(np.log(seconds / table.seconds)))[:count]
    keys = (
        "id",
        "model",
        "gpu",
        "gpus",
        "precision",
        "tp",
        "pp",
        "vpp",
        "cp",
        "ep",
        "micro_batch",
        "global_batch",
    )
    return [
        {key: table.runs[i].row[key] for key in keys}
        | {"measured": table.seconds[i], "forecast": float(seconds[i]), "error": float(errors[i])}
        for i in order
    ]


def trends(table: Table, seconds: Array) -> list[dict[str, Any]]:
    """Growth of the step time over each weak-scaling series, of fourfold or more."""
    first, last = table.pairs(np.arange(len(table.seconds)))
    starts = [i for i in first if i not in set(last)]
    after = dict(zip(first, last, strict=True))
    found = []
    for start in starts:
        end = start
        while end in after:
            end = after[end]
        a, b = table.runs[start].row, table.runs[end].row
        if float(b["gpus"]) >= 4 * float(a["gpus"]):
            found.append(
                {key: a[key] for key in ("group", "model", "precision", "layers")}
                | {"gpus": f"{a['gpus']}-{b['gpus']}"}
                | {"measured": table.seconds[end] / table.seconds[start] - 1}
                | {"forecast": float(seconds[end] / seconds[start] - 1)}
            )
    return found


def draw(table: Table, seconds: Array, path: Path) -> None:
    """Forecast against measured, a colour for each publisher."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 6))
    ends = [min(table.seconds) / 1.5, max(table.seconds) * 1.5]
    axes.plot(ends, ends, color="0.6", linewidth=0.8)
    axes.fill_between(ends, [0.9 * x for x in ends], [1.1 * x for x in ends], color="0.92", linewidth=0)
    for group in dict.fromkeys(table.group):
        rows = table.group == group
        axes.scatter(table.seconds[rows], seconds[rows], s=9, label=group)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured step [s]",
        ylabel="forecast step [s]",
        xlim=ends,
        ylim=ends,
    )
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def beside_calculon(table: Table, ours: dict[str, Array], folder: Path) -> dict[str, Any]:
    """Its errors and ours on the rows that it can express, and gives an answer to."""
    theirs, found = calculon(folder), {}
    for i, run in enumerate(table.runs):
        if expressible(run):
            answer = theirs(run)
            if isinstance(answer, str):
                say(f"  Calculon has no answer to {run.row['id']}: {answer}\n")
            else:
                found[i] = answer
    rows = np.array(list(found))
    forecasts = {"Calculon": np.array(list(found.values()))} | {name: s[rows] for name, s in ours.items()}
    errors = {name: forecast / table.seconds[rows] - 1 for name, forecast in forecasts.items()}
    groups = table.group[rows]
    return {
        name: {g: score(e[groups == g]) for g in dict.fromkeys(groups)} | {"all": score(e)}
        for name, e in errors.items()
    }


def not_fitting(table: Table) -> dict[str, int]:
    """Runs that did run and are said to need more memory than there was, by publisher.

    Only those that say what is computed again: the others may also offload, and do not say that either.
    """
    over = np.broadcast_to(memory(table.case).total, table.seconds.shape) > table.case.machine.memory
    over = over & np.array([run.row["recompute"] != "" for run in table.runs])
    return {group: int(over[table.group == group].sum()) for group in dict.fromkeys(table.group)}


def memory_errors(table: Table) -> dict[str, dict[str, float]]:
    """Of memory, where it was measured."""
    total = np.broadcast_to(memory(table.case).total, table.seconds.shape) / 2**30
    found: dict[str, list[float]] = {}
    for run, gib in zip(table.runs, total, strict=True):
        if run.memory_gib:
            found.setdefault(run.group, []).append(gib / run.memory_gib - 1)
    return {group: score(np.array(errors)) for group, errors in found.items()}


def say(text: str) -> None:
    sys.stdout.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Forecasts beside published runs.")
    parser.add_argument(
        "--fit", action="store_true", help="fit the constants, and write the catalogue's file"
    )
    parser.add_argument("--held-out", action="store_true", help="also fit without each group in turn")
    parser.add_argument("--worst", type=int, default=15, help="rows to show")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw forecast against measured (SVG)")
    parser.add_argument("--calculon", type=Path, metavar="DIR", help="a checkout of Calculon")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()

    start = pack(Fitted(START, MEASURED))
    if chosen.fit:
        table = Table.read(Fitted(START, MEASURED))
        x = fit(table, np.arange(len(table.seconds)), start)
        CATALOGUE.write_text(to_toml(unpack(x)), encoding="utf-8")
        published.cache_clear()
    fitted = published()
    table = Table.read(fitted)
    seconds = np.array(step(table.case, fitted.efficiency).seconds)
    result: dict[str, Any] = {
        "groups": by_group(table, seconds),
        "refused": [{"id": run.row["id"], "why": why} for run, why in table.refused],
        "memory": memory_errors(table),
        "not_fitting": not_fitting(table),
        "trends": trends(table, seconds),
        "worst": worst(table, seconds, chosen.worst),
    }
    ours = {"colossi": seconds}
    if chosen.held_out:
        ours["colossi, held out"] = held_out(table, start)
        result["held_out"] = by_group(table, ours["colossi, held out"])
    if chosen.calculon:
        result["beside_calculon"] = beside_calculon(table, ours, chosen.calculon)
    if chosen.plot:
        draw(table, seconds, chosen.plot)
    if chosen.json:
        say(json.dumps(result) + "\n")
        return
    say(f"{len(table.seconds)} runs expressed, {len(table.refused)} refused\n")
    for run, why in table.refused:
        say(f"  {run.row['id']}: {why}\n")
    print_table("step time: all constants fitted to all of these", result["groups"])
    if chosen.held_out:
        print_table("held out: constants from all other publishers", result["held_out"])
    for name, groups in result.get("beside_calculon", {}).items():
        print_table(f"{name}, on the rows that Calculon can express", groups)
    print_table("memory", result["memory"])
    over = ", ".join(f"{group} {count}" for group, count in result["not_fitting"].items() if count)
    say(
        f"\nsay what they recompute, ran, and would not fit: {sum(result['not_fitting'].values())} ({over})\n"
    )
    say("\nweak scaling: growth of the step time\n")
    for row in result["trends"]:
        off = row["forecast"] - row["measured"]
        say(
            f"{row['group']:13}{row['model']:22}{row['precision']:9}{row['gpus']:>12} GPUs"
            f"{row['measured']:+8.1%} measured{row['forecast']:+8.1%} forecast{100 * off:+6.1f} points\n"
        )
    say("\nworst first\n")
    for row in result["worst"]:
        say(
            "  "
            + " ".join(f"{v:.3g}" if isinstance(v, float) else str(v or "-") for v in row.values())
            + "\n"
        )


if __name__ == "__main__":
    main()
