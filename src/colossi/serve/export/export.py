"""
One model written in one format, whole or not at all.

What is written stands beside its final place under a name that ends in `.partial`, and is renamed when it is
complete: a folder or file that has its name is whole.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colossi.errors import BadInput
from colossi.files import sync_folder
from colossi.serve.export.gguf_write import write_gguf
from colossi.serve.export.huggingface import write_huggingface
from colossi.serve.export.llama import refusal
from colossi.serve.export.source import Source, open_source
from colossi.spec.size import count_parameters

FORMATS = {"hf": ("f32", "f16"), "gguf": ("f32", "f16", "q8_0")}  # format -> number types
BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}  # for a weight; q8_0: 32 of them and a 2-byte scale
SPARE_BYTES = 64 << 20  # for all that is no weight

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    source: str
    path: Path
    format: str
    type: str
    step: int | None
    nbytes: int

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        return {
            "source": self.source,
            "path": str(self.path),
            "format": self.format,
            "type": self.type,
            "step": self.step,
            "bytes": self.nbytes,
        }


def export(path: Path, format_: str, type_: str, out: Path | None, progress: Progress) -> Exported:
    """Write the model of a run, folder or file in another format; what exists is never written over."""
    if format_ not in FORMATS:
        raise BadInput(f"--format {format_}: no such format", f"use {' or '.join(FORMATS)}")
    if type_ not in FORMATS[format_]:
        raise BadInput(f"--type {type_}: {format_} has no such type", f"use {', '.join(FORMATS[format_])}")
    source = open_source(path)
    if format_ == "gguf" and (why := refusal(source.model, type_)):
        raise BadInput(f"{source.origin}: {why[0]}", why[1])
    target = _target(path, source, format_, type_, out)
    if target.exists():
        raise BadInput(f"{target}: exists", "remove it, or give another place with --out")
    _check_room(target, source, type_)
    with whole(target) as partial:
        if format_ == "gguf":
            write_gguf(partial, source, type_, target.stem, progress)
        else:
            partial.mkdir()
            write_huggingface(partial, source, type_, progress)
    return Exported(source.origin, target, format_, type_, source.step, _size(target))


def _target(path: Path, source: Source, format_: str, type_: str, out: Path | None) -> Path:
    """The folder that is written, or the file: by default beside the source, named after it and its step.

    `out` is the folder of hf; of gguf it is the folder that the file goes to, or, ending in .gguf, the file.
    """
    name = path.resolve().name.removesuffix(".gguf").removesuffix("-hf")
    name += f"-step-{source.step}" if source.step is not None else ""
    if format_ == "hf":
        return out or path.parent / f"{name}-hf"
    if out is not None and out.suffix == ".gguf":
        return out
    return (out or path.parent) / f"{name}-{type_}.gguf"


def _check_room(target: Path, source: Source, type_: str) -> None:
    counts = count_parameters(source.model)
    output = counts.embedding if source.model.tied_embeddings else 0  # written out
    need = (counts.total + output) * BYTES[type_] + SPARE_BYTES
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < need:
        raise BadInput(
            f"{target}: needs {need / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free there",
            "make room, give another place with --out, or take a smaller --type",
        )


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A name to write under; it becomes the target when all went well, and is gone when not."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of an export that was killed
        yield partial
        if partial.is_dir():
            mode = partial.stat().st_mode & 0o666
            for path in partial.iterdir():
                path.chmod(mode)  # safetensors writes for its owner alone
                _flush(path)
        _flush(partial)
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise BadInput(
            f"{target}: cannot be written: {error.strerror}", "give another place with --out"
        ) from None
    finally:
        _remove(partial)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size
