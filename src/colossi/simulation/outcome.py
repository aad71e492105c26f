"""
`colossi simulate`: the folder of a simulated run, its seeds, and policies beside each other.

The folder is that of a run: the spec as resolved, and the ledger of the first seed, so that `report` reads it
as any other. What became of each seed is in `seeds.jsonl`.
"""

import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colossi.errors import RunError
from colossi.files import write_whole
from colossi.ledger.clock import Account, account
from colossi.ledger.events import Event
from colossi.ledger.report import Report, report
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger
from colossi.plan.forecast import DAY, Forecast, cost
from colossi.plan.sweep import axis_of
from colossi.plan.translate import hardware_of
from colossi.simulation.scenario import Scenario, complete_spec, scenario_of
from colossi.simulation.seeds import Life, Spread, interval, live, lives
from colossi.spec.read import apply_override, build_spec, read_toml
from colossi.spec.spec import Spec
from colossi.world.machinery import nodes_of_site
from colossi.world.power import Power, power_of

Tell = Callable[[int, int], None]
NOTE = "simulation.json"  # in the folder of a simulated run: for how many days


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one spec over all seeds."""

    spec: Spec
    scenario: Scenario
    forecast: Forecast
    lives: list[Life]
    first: Report | None = None  # of seed 1
    power: Power | None = None  # of seed 1; none where nobody knows what its machines draw

    @property
    def ettr(self) -> Spread:
        return Spread.of([life.ettr for life in self.lives])

    @property
    def goodput(self) -> Spread:
        return Spread.of([life.goodput for life in self.lives])

    @property
    def tokens(self) -> Spread:
        return Spread.of([life.tokens for life in self.lives])

    @property
    def days(self) -> Spread:
        return Spread.of([life.days for life in self.lives])

    @property
    def spares_used(self) -> Spread:
        return Spread.of([life.spares_used for life in self.lives])

    @property
    def dollars(self) -> Spread:
        """Until all tokens are trained."""
        step, good = self.forecast.step, self.forecast.goodput
        return Spread.of([cost(self.spec, life.days * DAY, step, good)[0] for life in self.lives])

    @property
    def interruptions(self) -> dict[str, Spread]:
        """By component, the most frequent first, then all together."""
        names = {name: None for life in self.lives for name in life.interruptions}
        spreads = {
            name: Spread.of([life.interruptions.get(name, 0) for life in self.lives]) for name in names
        }
        ordered = dict(sorted(spreads.items(), key=lambda pair: (-pair[1].mean, pair[0])))
        return ordered | {"total": Spread.of([sum(life.interruptions.values()) for life in self.lives])}

    @property
    def lost_hours(self) -> dict[str, Spread]:
        return {
            part: Spread.of([life.lost_hours[part] for life in self.lives])
            for part in self.lives[0].lost_hours
        }

    def as_json(self) -> dict[str, Any]:
        plain = {
            key: getattr(self, key).as_json()
            for key in ("ettr", "goodput", "tokens", "days", "spares_used", "dollars")
        }
        tables = {
            key: {name: spread.as_json() for name, spread in getattr(self, key).items()}
            for key in ("interruptions", "lost_hours")
        }
        return {
            "name": self.spec.name,
            "gpus": self.spec.cluster.workers,
            "simulated_days": self.scenario.seconds / DAY,
            "seeds": len(self.lives),
            "step_seconds": self.scenario.step_seconds,
            "checkpoint_every": self.scenario.checkpoint_every,
            "closed_form_ettr": self.forecast.goodput.ettr,
            **plain,
            **tables,
            "power": None if self.power is None else self.power.as_json(),
            "per_seed": [life.as_json() for life in self.lives],
        }


def simulate(spec: Spec, days: float, seeds: int, folder: Path | None, tell: Tell) -> Outcome:
    """All seeds, and in the folder, if one is given, the ledger of the first."""
    spec, forecasted = complete_spec(spec)
    scenario = scenario_of(spec, days * DAY, forecasted)
    if folder is None:
        return Outcome(spec, scenario, forecasted, lives(scenario, seeds, None, tell))
    run, kept = Run(folder), _prepare(folder, spec, days)
    if run.ledger_file.exists():
        history = run.events()
    else:
        _, history = live(scenario, 1)
        _write_ledger(run.ledger_file, history)
    power = power_of_run(spec, forecasted, account(history))
    return Outcome(spec, scenario, forecasted, lives(scenario, seeds, kept, tell), report(history), power)


def power_of_run(spec: Spec, found: Forecast, spent: Account) -> Power | None:
    """What the servers of a simulated run draw, spares included; of a complete spec."""
    if spec.cluster.profile is not None:
        return None
    every = spec.checkpoint.every
    return power_of(
        spent,
        {part: float(seconds) for part, seconds in found.step.parts.items()},
        hardware_of(spec.cluster)[1],
        nodes_of_site(spec),
        spec.power,
        spec.prices,
        checkpoint_interval=every * found.step_seconds if every else None,
    )


def _prepare(folder: Path, spec: Spec, days: float) -> Path:
    """The folder, for this spec and no other; the file of its seeds."""
    run, said = Run(folder), json.dumps({"days": days}) + "\n"
    note = folder / NOTE
    if folder.exists() and (not folder.is_dir() or (_has_files(folder) and not note.is_file())):
        raise RunError(f"{folder}: holds something else than a simulation", "give another folder with --run")
    if note.is_file() and (
        note.read_text(encoding="utf-8") != said
        or (run.spec_file.exists() and run.spec_file.read_text(encoding="utf-8") != spec.to_toml())
    ):
        raise RunError(
            f"{folder}: has a simulation of another spec, or of another number of days",
            f"give another folder with --run, or remove {folder}",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(note, said)  # the first, as it says whose the others are
    write_whole(run.spec_file, spec.to_toml())
    return folder / "seeds.jsonl"


def _has_files(folder: Path) -> bool:
    """But for what a kill has left."""
    return any(not file.name.startswith("tmp-") for file in folder.iterdir())


def _write_ledger(path: Path, history: Sequence[Event]) -> None:
    """Beside it, then renamed: a ledger that is there is whole."""
    beside = path.with_name(f"tmp-{path.name}-{os.getpid()}")
    with Ledger.create_or_open(beside) as ledger:
        ledger.append(*history)
    beside.replace(path)


# --- policies beside each other ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variant:
    """One policy, and how it does against the first on the same failures."""

    settings: tuple[str, ...]  # "table.key=value"
    outcome: Outcome
    gain: float  # in ETTR
    margin: float  # half of its 95% confidence interval

    def as_json(self) -> dict[str, Any]:
        chosen = ("ettr", "goodput", "days", "dollars", "spares_used")
        return {
            "settings": list(self.settings),
            "ettr_gain": self.gain,
            "ettr_gain_margin": self.margin if self.margin < 1e300 else None,
        } | {key: getattr(self.outcome, key).as_json() for key in chosen}


def compare(
    file: Path, overrides: Sequence[str], changes: Sequence[str], days: float, seeds: int, tell: Tell
) -> list[Variant]:
    """The spec with each combination of these values ("table.key=a,b"), all on the same failures."""
    found: list[Variant] = []
    combinations = variants(file, overrides, changes)
    for number, (settings, spec) in enumerate(combinations):
        outcome = simulate(spec, days, seeds, None, _after(number * seeds, len(combinations) * seeds, tell))
        first = found[0].outcome if found else outcome
        pairs = zip(outcome.lives, first.lives, strict=True)
        gain, margin = interval([life.ettr - other.ettr for life, other in pairs])
        found.append(Variant(settings, outcome, gain, margin))
    return found


def variants(
    file: Path, overrides: Sequence[str], changes: Sequence[str]
) -> list[tuple[tuple[str, ...], Spec]]:
    """The spec with each combination of values ("table.key=a,b"); all are read before any work is done."""
    found = []
    for settings in itertools.product(*(_settings(change) for change in changes)):
        document = read_toml(file)
        for override in (*overrides, *settings):
            apply_override(document, override)
        found.append((settings, build_spec(document, f"{file}, with --set {' '.join(settings)}")))
    return found


def _after(done: int, total: int, tell: Tell) -> Tell:
    """Tell of one part of a larger whole."""
    return lambda one, _: tell(done + one, total)


def _settings(change: str) -> list[str]:
    """ "table.key=a,b" as two settings."""
    key, values = axis_of(change, "--compare", "--compare failures.restart_seconds=480,60")
    return [f"{key}={value}" for value in values]
