"""
The whole spec: one document, its tables, and the rules between them.

A table alone knows what it can be; this file knows what two of them can be together. Every rule raises one
sentence that names the keys, their values and what to write instead.
"""

from typing import Self

import tomli_w
from pydantic import Field, model_validator

from colossi.spec.checkpoint import CheckpointSpec
from colossi.spec.cluster import ClusterSpec
from colossi.spec.construction import ConstructionSpec
from colossi.spec.data import DataSpec
from colossi.spec.fabric import FabricSpec
from colossi.spec.failures import FailuresSpec
from colossi.spec.fit import divisors_near, multiples_near
from colossi.spec.kubernetes import KubernetesSpec
from colossi.spec.layout import AXES, LayoutSpec
from colossi.spec.model import ModelSpec
from colossi.spec.power import PowerSpec
from colossi.spec.prices import PricesSpec
from colossi.spec.site import SiteSpec
from colossi.spec.table import Table
from colossi.spec.training import TrainingSpec


class Spec(Table):
    """What you want. A command reads the tables that it needs; the others may be left out."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="of the run and of its folder: letters, digits, dots, dashes and underscores",
    )
    # Left out by those who only build: a command that needs it says so at the door (read_spec's `needs`).
    model: ModelSpec = Field(default=None, validate_default=False)  # type: ignore[assignment]
    data: DataSpec | None = None
    training: TrainingSpec | None = None
    layout: LayoutSpec = LayoutSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    failures: FailuresSpec | None = None
    cluster: ClusterSpec = ClusterSpec()
    fabric: FabricSpec | None = None
    kubernetes: KubernetesSpec | None = None
    prices: PricesSpec = PricesSpec()
    power: PowerSpec = PowerSpec()
    site: SiteSpec | None = None
    construction: ConstructionSpec | None = None

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill in what the workers leave open, then hold the tables against each other."""
        if not self.has_layout:
            return self
        layout = resolve_replicate(self.layout, self.cluster)
        if self.model is None:
            return self
        check_model_fits_layout(self.model, layout)
        if self.training is not None:
            layout = resolve_micro_batch(layout, self.training)
            check_sequence(self.model, self.training, layout)
            check_pipeline(layout, self.training)
        object.__setattr__(self, "layout", layout)  # the one moment before the spec is frozen
        return self

    @property
    def has_layout(self) -> bool:
        """Whether it says how the run is divided, and does not only name machines to plan for."""
        return "layout" in self.model_fields_set or not (self.cluster.gpu or self.cluster.node)

    def to_toml(self) -> str:
        """The complete document, as resolved; reading it gives an equal Spec."""
        open_ = set() if self.has_layout else {"layout"}
        return tomli_w.dumps(self.model_dump(exclude_none=True, exclude=open_))


def data_parallel(layout: LayoutSpec) -> int:
    """Number of workers among which the sequences of a batch are dealt out."""
    assert layout.replicate is not None
    return layout.replicate * layout.shard * (layout.expert if layout.expert_tensor is None else 1)


def resolve_replicate(layout: LayoutSpec, cluster: ClusterSpec) -> LayoutSpec:
    """replicate = workers / (the product of the other axes), or a check that the given one says the same."""
    copy, axes = layout.copy_ranks, _axes_in_use(layout)
    workers = cluster.workers
    if layout.replicate is None:
        if workers % copy:
            raise ValueError(
                f"layout.{axes} = {copy} does not divide {_workers_said(cluster)} = "
                f"{workers}: use {multiples_near(copy, workers)} workers, or a smaller layout"
            )
        return layout.model_copy(update={"replicate": workers // copy})
    if layout.replicate * copy != workers:
        raise ValueError(
            f"layout.{axes} = {layout.replicate * copy} is not "
            f"{_workers_said(cluster)} = {workers}: leave out replicate, or make the products equal"
        )
    return layout


def _workers_said(cluster: ClusterSpec) -> str:
    return "cluster.gpus" if cluster.gpus is not None else "cluster.nodes * workers_per_node"


def _axes_in_use(layout: LayoutSpec) -> str:
    """The axes with more than one worker, as a product."""
    return " * ".join(axis for axis in AXES if (getattr(layout, axis) or 1) > 1) or "replicate"


def resolve_micro_batch(layout: LayoutSpec, training: TrainingSpec) -> LayoutSpec:
    """micro_batch = a worker's share of the global batch when left out; it must divide that share."""
    ranks, batch = data_parallel(layout), training.global_batch
    if batch % ranks:
        raise ValueError(
            f"training.global_batch = {batch} cannot be dealt out to layout.replicate * shard * expert = "
            f"{ranks} workers: use {multiples_near(ranks, batch)}"
        )
    share = batch // ranks
    if layout.micro_batch is None:
        return layout.model_copy(update={"micro_batch": share})
    if share % layout.micro_batch:
        raise ValueError(
            f"layout.micro_batch = {layout.micro_batch} does not divide a worker's share of {share} "
            f"sequences: use {divisors_near(share, layout.micro_batch)}"
        )
    return layout


def check_model_fits_layout(model: ModelSpec, layout: LayoutSpec) -> None:
    """Every matrix must be cut into equal parts along the axes that cut it; every stage has a block."""
    if layout.stages > model.layers and layout.stages != model.layers + 2:
        raise ValueError(
            f"layout.pipeline * interleave = {layout.stages} stages for model.layers = "
            f"{model.layers} blocks: use at most {model.layers}"
        )
    for key, size, axes, parts in (
        ("model.heads", model.heads, "layout.tensor", layout.tensor),
        ("model.kv_heads", model.kv_heads, "layout.tensor", layout.tensor),
        ("model.ffn_hidden", model.ffn_hidden, "layout.tensor", layout.tensor),
        ("model.shared_expert_ffn", model.shared_expert_ffn, "layout.tensor", layout.tensor),
        ("model.vocabulary", model.vocabulary, "layout.tensor", layout.tensor),
        ("model.experts", model.experts, "layout.expert", layout.expert),
    ):
        if size % parts:
            raise ValueError(
                f"{key} = {size} does not divide by {axes} = {parts}: use {divisors_near(size, parts)} "
                f"there, or {key.split('.')[1]} = {multiples_near(parts, size)}"
            )


def check_sequence(model: ModelSpec, training: TrainingSpec, layout: LayoutSpec) -> None:
    """A sequence must not be longer than the model is meant for, and fall into equal chunks."""
    length = training.sequence_length
    if length > model.max_positions:
        raise ValueError(
            f"training.sequence_length = {length} is above model.max_positions = "
            f"{model.max_positions}: use at most that, or raise max_positions"
        )
    chunks = 2 * layout.context
    if layout.context > 1 and length % chunks:
        raise ValueError(
            f"training.sequence_length = {length} cannot be cut into 2 * layout.context = {chunks} chunks: "
            f"use {multiples_near(chunks, length)}"
        )


def check_pipeline(layout: LayoutSpec, training: TrainingSpec) -> None:
    """A schedule needs so many micro-batches that every stage has something to do."""
    if layout.pipeline == 1:
        return
    assert layout.micro_batch is not None
    share = training.global_batch // data_parallel(layout)
    count, ranks = share // layout.micro_batch, layout.pipeline
    least = 2 * ranks - 1 if layout.schedule == "zero-bubble-v" else ranks
    in_rounds = layout.schedule == "zero-bubble" or (layout.schedule == "1f1b" and layout.interleave > 1)
    if count < least or (in_rounds and count % ranks):
        wanted = f"a multiple of layout.pipeline = {ranks}" if in_rounds else f"at least {least}"
        raise ValueError(
            f"layout.micro_batch = {layout.micro_batch} makes {count} micro-batches of a worker's share of "
            f"{share} sequences, and the pipeline's schedule needs {wanted}: lower micro_batch, or raise "
            "training.global_batch"
        )
    if layout.schedule != "1f1b" and training.compile:
        raise ValueError(
            f"layout.schedule = '{layout.schedule}' divides the backward pass, which torch.compile cannot: "
            "leave out training.compile, or use schedule = '1f1b'"
        )
