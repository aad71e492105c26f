"""
The run folder: the interface between the commands, documented in docs/run-folder.md.

    spec.toml           complete, as resolved          ledger.sqlite   everything that happened
    tokenizer.json      of the data                    checkpoints/step-00000100/
    questions.json      held out for evaluation        logs/rank-0.log
    corpus              where the prepared tokens are

Knows names of files and who may write over whom; not what is in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colossi.errors import RunError
from colossi.files import write_whole
from colossi.ledger.events import Event
from colossi.ledger.store import Ledger
from colossi.spec import Spec, read_spec

# What may change when a run goes on; anything else would make it another run.
MAY_CHANGE = {
    "name": None,
    "layout": None,
    "checkpoint": None,
    "cluster": None,
    "kubernetes": None,
    "training": {"steps", "tokens", "loss_limit", "compile"},
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. Nothing is read or made before it is asked for."""

    folder: Path

    @property
    def spec_file(self) -> Path:
        return self.folder / "spec.toml"

    @property
    def ledger_file(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def questions_file(self) -> Path:
        return self.folder / "questions.json"

    @property
    def corpus_file(self) -> Path:
        return self.folder / "corpus"

    def corpus_folder(self) -> Path:
        """Where the prepared tokens are; a relative path counts from the run folder."""
        return (self.folder / self.corpus_file.read_text(encoding="utf-8").strip()).resolve()

    def set_aside(self, step: int) -> list[str]:
        """The checkpoints of all steps above this one are none any more; their names."""
        doubted = [folder for folder in complete(self.checkpoints) if step_of(folder) > step]
        for folder in doubted:
            (folder / MARKER).unlink(missing_ok=True)
        return [folder.name for folder in doubted]

    def spec(self, needs: tuple[str, ...] = ()) -> Spec:
        """The spec that the run was begun with; `needs` as `read_spec` has them."""
        return read_spec(self.spec_file, needs=needs)

    def ledger(self) -> Ledger:
        """Its ledger, open for reading and appending."""
        return Ledger.create_or_open(self.ledger_file)

    def events(self) -> list[Event]:
        """All that has happened so far, in order."""
        with self.ledger() as ledger:
            return [event for _, event in ledger.events()]


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / "spec.toml").is_file()


def open_run(folder: Path) -> Run:
    """A run that exists, or a one-line error."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder", "colossi train SPEC makes a run in runs/NAME")
    if not is_run(folder):
        raise RunError(f"{folder}: not a run (no spec.toml in it)", "give a folder made by colossi train")
    return Run(folder)


def begin_run(folder: Path, spec: Spec) -> Run:
    """The folder of a run that starts or goes on with this spec; a run of another spec is refused."""
    refuse_another_run(folder, spec)
    run = Run(folder)
    for each in (folder, run.checkpoints, run.logs):
        each.mkdir(parents=True, exist_ok=True)
    write_whole(run.spec_file, spec.to_toml())
    return run


def refuse_another_run(folder: Path, spec: Spec) -> None:
    """A folder that holds something else than a run of this spec is refused; nothing is written."""
    if is_run(folder):
        refuse_another(folder, Run(folder).spec(("cluster",)), spec)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: not empty, and not a run", "give another folder with --run")


def refuse_another(folder: Path, begun: Spec, now: Spec) -> None:
    """A run goes on only with the spec that it was begun with, but for what MAY_CHANGE."""
    old, new = begun.model_dump(mode="json"), now.model_dump(mode="json")
    for table in old.keys() | new.keys():
        allowed = MAY_CHANGE.get(table, set())
        if allowed is None:
            continue
        for key, before, after in _differences(old.get(table), new.get(table), table):
            if key.removeprefix(f"{table}.") not in allowed:
                raise RunError(
                    f"{folder}: begun with {key} = {before!r}, and the spec now says {after!r}",
                    f"train in another folder with --run, or remove {folder}",
                )


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Every key whose value is not the same, with both values; lists by the place in them."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield key, old, new
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from _differences(old.get(name), new.get(name), f"{key}.{name}")


MARKER = "COMPLETE"  # in a checkpoint's folder, written last


def checkpoint_name(step: int) -> str:
    """Steps sort as text."""
    return f"step-{step:08}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint folder's name says."""
    return int(folder.name.removeprefix("step-"))


def complete(checkpoints: Path) -> list[Path]:
    """The checkpoints with a marker, newest first; that they are undamaged is not checked here."""
    return sorted((path.parent for path in checkpoints.glob(f"step-*/{MARKER}")), reverse=True)
