"""What to train on: the sources, the tokenizer, and which tokens the loss counts.

Knows the tables only. Whether a file exists or a task is known is found out by `colossi.data`.
"""

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator

from colossi.spec.table import Table

UNITS = ("words", "subwords", "bytes")
WEIGHT_HELP = "Share of the samples drawn from this source, relative to the other sources."
SKIP_HELP = "Skip and count input that cannot be read, instead of stopping at it."

Weight = Annotated[float, Field(gt=0, description=WEIGHT_HELP)]
SkipBad = Annotated[bool, Field(description=SKIP_HELP)]


class FilesSource(Table):
    """A file, a folder or a glob of txt, md, py, jsonl and parquet."""

    kind: Literal["files"] = Field(description='Always "files".')
    path: str = Field(min_length=1, description="A file, a folder (read with its subfolders) or a glob.")
    column: str = Field(
        default="text",
        min_length=1,
        description="The column that holds the text of a jsonl or parquet row; a row may hold `messages`, "
        "a list of {role, content}, instead.",
    )
    weight: Weight = 1.0
    skip_bad: SkipBad = False


class PythonStdlibSource(Table):
    """The library sources of the running interpreter: always there, no download."""

    kind: Literal["python-stdlib"] = Field(description='Always "python-stdlib".')
    weight: Weight = 1.0
    skip_bad: SkipBad = False


class ReasoningSource(Table):
    """A task of the reasoning-gym library, as chats of one question and its answer."""

    kind: Literal["reasoning"] = Field(description='Always "reasoning".')
    task: str = Field(min_length=1, description="The name of the task, for example chain_sum.")
    samples: PositiveInt = Field(
        description="Items drawn for training; those whose question is held out are left out."
    )
    seed: int = Field(default=0, ge=0, description="Item i is drawn from seed + i.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the task's own configuration, for example max_terms."
    )
    weight: Weight = 1.0

    @field_validator("options")
    @classmethod
    def _size_and_seed_are_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key, instead in (("seed", "seed"), ("size", "samples")):
            if key in options:
                raise ValueError(f"options.{key} is not for you to set: use the source's own key {instead}")
        return options


class HuggingFaceSource(Table):
    """A dataset streamed through the `datasets` library: a name on the hub or a local folder."""

    kind: Literal["huggingface"] = Field(description='Always "huggingface".')
    name: str = Field(min_length=1, description="The name of the dataset on the hub, or a local folder.")
    config: str | None = Field(default=None, description="The configuration (subset) of the dataset.")
    split: str = Field(default="train", min_length=1, description="The split to read.")
    column: str = Field(
        default="text",
        min_length=1,
        description="The column that holds the text; a row may hold `messages` instead.",
    )
    documents: PositiveInt | None = Field(default=None, description="Read at most this many documents.")
    weight: Weight = 1.0
    skip_bad: SkipBad = False


Source = Annotated[
    FilesSource | PythonStdlibSource | ReasoningSource | HuggingFaceSource, Field(discriminator="kind")
]


class DataSpec(Table):
    """`[data]`: what to train on."""

    sources: tuple[Source, ...] = Field(min_length=1, description="Where the documents come from.")
    tokenizer: str = Field(
        default="subwords",
        description='"subwords" (byte-pair encoding), "words" (frequent words whole, others byte by byte), '
        '"bytes", or the path of a tokenizer.json.',
    )
    held_out: int = Field(
        default=200, ge=0, description="Questions of each reasoning task that are kept for evaluation."
    )
    loss_on: Literal["answers", "everything"] = Field(
        default="answers",
        description="Which tokens of a chat the loss counts: the assistant's words and the separator that "
        "closes them, or all. Every token of a text document counts.",
    )

    @field_validator("tokenizer")
    @classmethod
    def _units_or_a_file(cls, tokenizer: str) -> str:
        if tokenizer not in UNITS and PurePath(tokenizer).suffix != ".json":
            raise ValueError(
                f'{tokenizer!r} is no tokenizer: use "words", "subwords", "bytes" or a path to tokenizer.json'
            )
        return tokenizer
