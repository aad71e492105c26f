"""
The planner's constants, fitted to published runs.

All runs that can be expressed are columns of one case; constants are logarithms within bounds that physics,
definitions or measurements of kernels set.
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from published import Published, published_runs

from colossi.errors import SpecError
from colossi.plan.case import Case, stack
from colossi.plan.efficiency import Architecture, Efficiency, Fitted
from colossi.plan.step import step
from colossi.plan.translate import case_of, hardware_of
from colossi.spec import build_spec

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
