"""`[kubernetes]`: where on a Kubernetes cluster the run's pods are asked for."""

from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.table import Table

NAME = r"^[a-z0-9][a-z0-9.-]*$"  # a DNS subdomain (RFC 1123), as most names in Kubernetes
LABEL = r"^[a-z0-9][a-z0-9-]*$"  # a DNS label, as namespaces


class KubernetesSpec(Table):
    """What `colossi launch` puts into the manifests; no other command reads it."""

    image: str = Field(pattern=r"^\S+$", description="container image with colossi in it, for all pods")
    claim: str = Field(
        pattern=NAME,
        description="volume claim for the run folder, which all pods write: its access mode is ReadWriteMany",
    )
    namespace: str = Field(default="default", pattern=LABEL, description="where everything is made")
    gpus: str = Field(
        default="nvidia.com/gpu", pattern=r"^\S+$", description="resource name of a GPU, for device = cuda"
    )
    queue: str | None = Field(
        default=None, pattern=NAME, description="local queue of Kueue; left out: the pods are not queued"
    )
    topology: str | None = Field(
        default=None,
        pattern=r"^\S+$",
        description="label of machines by which Kueue keeps the agents together, as a rack's",
    )
    placement: Literal["preferred", "required"] = Field(
        default="preferred", description="required: rather wait than be spread over two values of topology"
    )

    @model_validator(mode="after")
    def _topology_is_asked_of_a_queue(self) -> Self:
        if self.topology is not None and self.queue is None:
            raise ValueError(
                f'topology = "{self.topology}" is a request to Kueue, and queue is missing: add queue, '
                "or remove topology"
            )
        return self
