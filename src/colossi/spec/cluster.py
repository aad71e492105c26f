"""`[cluster]`: the machines that the run is given."""

from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.table import Table

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of a profile


class ClusterSpec(Table):
    """Nodes and the workers on them; a worker is one process with one GPU, or with its share of the cores."""

    nodes: int = Field(default=1, ge=1, description="machines; the local engine runs them all on this one")
    workers_per_node: int = Field(default=1, ge=1, description="processes on a node, one for each GPU")
    spares: int = Field(
        default=0, ge=0, description="further nodes that stand by, to take the place of one that is lost"
    )
    wait_seconds: float = Field(
        default=600.0, gt=0, description="for nodes without which it cannot go on, before the run gives up"
    )
    gpu: str | None = Field(
        default=None, description="planning: an accelerator of the catalogue, such as H100-SXM"
    )
    node: str | None = Field(
        default=None, description="planning: a server of the catalogue; left out: the usual one of `gpu`"
    )
    profile: str | None = Field(
        default=None,
        pattern=NAME,
        description="planning: workers as `colossi calibrate` has measured them, by the profile's name",
    )
    gpus: int | None = Field(
        default=None, ge=1, description="planning: how many, instead of nodes * workers_per_node"
    )
    engine: Literal["local", "slurm"] = Field(
        default="local", description="who gives the nodes: this machine, or Slurm"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda where there is one, else cpu"
    )

    @model_validator(mode="after")
    def _one_machine(self) -> Self:
        if self.profile is not None and (self.gpu or self.node):
            key = "gpu" if self.gpu else "node"
            raise ValueError(
                f"profile = {self.profile!r} and {key} = {getattr(self, key)!r} both say what a worker is: "
                "remove one of them"
            )
        return self

    @property
    def workers(self) -> int:
        """Processes in the run."""
        return self.gpus if self.gpus is not None else self.nodes * self.workers_per_node
