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
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from calculons import calculon, expressible
from numpy.typing import NDArray
from published import Published, published_runs

from colossi.errors import SpecError
from colossi.plan.case import Case, stack
from colossi.plan.efficiency import Architecture, Efficiency, Fitted, published
from colossi.plan.memory import memory
from colossi.plan.step import step
from colossi.plan.translate import case_of, hardware_of
from colossi.spec import build_spec

CATALOGUE = Path(__file__).parents[1] / "src/colossi/spec/catalogue/efficiency.toml"
Array = NDArray[np.float64]

# Of measured devices alone, where `colossi calibrate` fits them; here they stay as they are.
MEASURED_ELSEWHERE = (
    *("product_width", "product_rows", "score_seconds", "reduce_rounds", "host_shard", "shard_passes"),
    *("loss_passes", "optimizer_passes", "muon_share", "muon_passes", "host_muon"),
)
NAMES = tuple(field.name for field in fields(Efficiency) if field.name not in MEASURED_ELSEWHERE)
# Bounds that physics or the definition sets; all else may be within six times its starting value.
BOUNDS = {
    "product_wave": (0.05, 1.0),
    "product_8bit": (0.5, 1.0),
    "product_4bit": (0.4, 1.0),
    # Read and write: permute, sort by expert, sort back, unpermute are 8; weights and padding 4 more.
    "router_passes": (4.0, 12.0),
    "product_grouped": (0.85, 1.0),  # large groups: as one product, but for its launch
    "host_layer": (1e-5, 4e-3),
    "host_experts": (1e-5, 8e-3),
    "grouped_8bit": (0.3, 1.0),
    "attention_backward": (0.5, 1.1),
    "memory_share": (0.5, 0.95),
    "unfused_passes": (1.0, 4.0),
    "link_share": (0.5, 1.0),
    "nic_share": (0.5, 1.0),
    "tensor_exposed": (0.02, 1.0),
    "expert_exposed": (0.05, 1.0),
    "pipeline_exposed": (0.02, 1.0),
    "data_exposed": (0.01, 0.6),
    "overlap_slowdown": (0.02, 0.6),
    "jitter": (1e-4, 0.02),
    "power": (0.1, 1.0),
}
ARCHITECTURES = ("ampere", "hopper", "blackwell", "blackwell-ultra")
# Shares of the dense peak that kernels alone were measured at, which the fit may leave by a fourth. Products:
# AIConfigurator's tables (A100 0.84, H100 0.78, B200 0.65). Attention: papers of FlashAttention-2 and -3,
# causal (A100 0.6 to 0.7, H100 0.35 and 0.6 to 0.75); cuDNN on B200 about 0.6.
MEASURED = {
    "ampere": Architecture(0.84, 0.60, 0.60, 400 / 312e12),
    "hopper": Architecture(0.74, 0.62, 0.36, 700 / 989e12),
    "blackwell": Architecture(0.62, 0.58, 0.58, 1000 / 2250e12),
    # Twice the exponentials of Blackwell (NVIDIA, "Inside NVIDIA Blackwell Ultra", 2025), products as there.
    "blackwell-ultra": Architecture(0.62, 0.72, 0.72, 1000 / 2250e12),
}
START = replace(Efficiency(), product_4bit=0.8)
SHARES = [(kind, key) for kind in ARCHITECTURES for key in ("product", "flash", "flash_2")]


@dataclass(frozen=True)
class Table:
    """All runs that can be expressed, as columns."""

    runs: list[Published]
    case: Case
    kind: NDArray[np.int64]  # of GPU, in ARCHITECTURES
    watts: Array  # over those that the architecture's shares are for
    second_flash: NDArray[np.bool_]
    seconds: Array
    group: NDArray[np.str_]
    refused: list[tuple[Published, str]]

    @classmethod
    def read(cls, fitted: Fitted) -> "Table":
        runs, cases, kinds, watts, second, refused = [], [], [], [], [], []
        for run in published_runs():
            try:
                spec = build_spec(run.document, run.row["id"])
                cases.append(case_of(spec, fitted))
            except SpecError as error:
                refused.append((run, str(error)))
                continue
            device, _ = hardware_of(spec.cluster)
            runs.append(run)
            kinds.append(ARCHITECTURES.index(device.architecture))
            watts.append(device.power / cases[-1].machine.peak_16 / MEASURED[device.architecture].watts)
            assert spec.training is not None
            second.append(spec.training.attention == "flash-2")
        return cls(
            runs,
            stack(cases),
            np.array(kinds),
            np.array(watts),
            np.array(second),
            np.array([run.step_seconds for run in runs], float),
            np.array([run.group for run in runs]),
            refused,
        )

    def pairs(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Runs that differ in the number of GPUs alone, with as many sequences for each: weak scaling."""
        same = (
            "group",
            "model",
            "gpu",
            "precision",
            "tp",
            "pp",
            "vpp",
            "cp",
            "ep",
            "micro_batch",
            "seq_len",
            "layers",
        )
        series: dict[tuple[Any, ...], list[int]] = {}
        for i in rows:
            row = self.runs[i].row
            each = float(row["global_batch"]) / float(row["gpus"])
            series.setdefault(
                (*(row[key] for key in same), row["source"], row["recompute"], each), []
            ).append(i)
        found = []
        for members in series.values():
            ordered = sorted(members, key=lambda i: float(self.runs[i].row["gpus"]))
            found += [(a, b) for a, b in pairwise(ordered) if self._gpus(a) < self._gpus(b)]
        return np.array([a for a, _ in found], int), np.array([b for _, b in found], int)

    def _gpus(self, i: int) -> float:
        return float(self.runs[i].row["gpus"])

    def forecast(self, x: Array, rows: Any = slice(None)) -> Array:
        """Step seconds with the constants of a vector of logarithms."""
        fitted = unpack(x)
        shares = np.array(
            [
                [getattr(fitted.architectures[k], n) for n in ("product", "flash", "flash_2")]
                for k in ARCHITECTURES
            ]
        )
        kind = self.kind[rows]
        product = shares[kind, 0] * self.watts[rows] ** fitted.efficiency.power
        flash = np.where(self.second_flash[rows], shares[kind, 2], shares[kind, 1])
        case = self.case.take(rows)
        machine = replace(case.machine, product_share=product, attention_share=flash)
        seconds: Array = step(replace(case, machine=machine), fitted.efficiency).seconds
        return seconds


def pack(fitted: Fitted) -> Array:
    """Logarithms of the constants, in one vector."""
    shares = [getattr(fitted.architectures[kind], key) for kind, key in SHARES]
    return np.log([*(getattr(fitted.efficiency, name) for name in NAMES), *shares])


def unpack(x: Array) -> Fitted:
    values = np.exp(x)
    efficiency = Efficiency(**dict(zip(NAMES, map(float, values), strict=False)))
    shares = dict(zip(SHARES, map(float, values[len(NAMES) :]), strict=True))
    kinds = {
        kind: Architecture(
            *(shares[kind, key] for key in ("product", "flash", "flash_2")), MEASURED[kind].watts
        )
        for kind in ARCHITECTURES
    }
    return Fitted(efficiency, kinds)


def fit(table: Table, rows: NDArray[np.int64], start: Array, evaluations: int = 60) -> Array:
    """Constants that bring the logarithms of the ratios near to zero; large misses count by their size only.

    Weak scaling counts too: how the step time grows between runs that differ in the number of GPUs alone.
    A publisher's weight grows with the fourth root of its rows' number, less than the rows themselves.
    """
    from scipy.optimize import least_squares

    low, high = start - np.log(6), start + np.log(6)
    for name, (least, most) in BOUNDS.items():
        low[NAMES.index(name)], high[NAMES.index(name)] = np.log((least, most))
    shares = slice(len(NAMES), None)
    low[shares], high[shares] = start[shares] - np.log(1.25), start[shares] + np.log(1.25)
    first = np.clip(start, low + 1e-6, high - 1e-6)
    counts = {group: np.sum(table.group[rows] == group) for group in set(table.group[rows])}
    weight = np.array([counts[group] ** -0.25 for group in table.group[rows]])

    one, other = (np.searchsorted(rows, each) for each in table.pairs(rows))

    def misses(x: Array) -> Array:
        ratio = np.log(table.forecast(x, rows) / table.seconds[rows])
        return np.concatenate([3 * weight * ratio, 5 * (ratio[other] - ratio[one]), 0.04 * (x - first)])

    found = least_squares(
        misses, first, bounds=(low, high), loss="soft_l1", f_scale=0.06, max_nfev=evaluations, diff_step=1e-3
    )
    vector: Array = found.x
    return vector


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
