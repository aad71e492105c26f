"""`[training]`: how long, how fast, and in which numbers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.table import Table


class TrainingSpec(Table):
    """The run. The global batch is fixed here and never depends on the layout."""

    sequence_length: int = Field(ge=2, description="tokens that the model sees at once")
    global_batch: int = Field(ge=1, description="sequences in one optimizer step, over all workers")
    steps: int | None = Field(default=None, ge=1, description="optimizer steps; give this or tokens")
    tokens: int | None = Field(
        default=None, ge=1, description="tokens to train on, rounded up to whole steps"
    )
    seed: int = Field(
        default=0, ge=0, description="of the initial weights, the order of the data and the evaluation"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: matrices by Muon, the rest (embedding, norms, router) by AdamW"
    )
    learning_rate: float = Field(default=3e-4, gt=0, description="peak rate of AdamW")
    muon_learning_rate: float = Field(default=0.02, gt=0, description="peak rate of Muon, for its matrices")
    weight_decay: float = Field(default=0.1, ge=0, description="decoupled, on matrices only")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW: decay of the mean of their squares")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon: decay of the mean of gradients")
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine",
        description="after the warm-up: cosine down, or constant and then a linear decay (wsd)",
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    decay_fraction: float = Field(default=0.2, gt=0, le=1, description="wsd: share of the run spent decaying")
    final_fraction: float = Field(
        default=0.1, ge=0, le=1, description="learning rate at the end, as a share of the peak"
    )
    clip: float = Field(default=1.0, ge=0, description="largest norm of the whole gradient; 0 is no clipping")
    balance_loss: float = Field(default=0.01, ge=0, description="weight of the load-balancing loss")
    z_loss: float = Field(
        default=0.001, ge=0, description="weight of the router z-loss, which keeps its logits small"
    )
    precision: Literal["fp32", "bf16", "fp16", "fp8", "fp4"] = Field(
        default="fp32",
        description="of activations and products (fp8, fp4: of products only); weights and optimizer stay in "
        "fp32",
    )
    gradient_precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="in which gradients are kept and summed"
    )
    scaling: Literal["delayed", "tensor", "row", "block"] = Field(
        default="tensor",
        description="fp8, fp4: what has a scale of its own; delayed: a tensor has that of the step before",
    )
    attention: Literal["flash", "flash-2", "unfused"] = Field(
        default="flash",
        description="kernel: the device's best fused one, FlashAttention-2, or scores written to memory",
    )
    fused_kernels: bool = Field(
        default=True, description="element-wise operations share kernels (a compiler's, or written so)"
    )
    imbalance: float = Field(
        default=1.0, ge=1, description="tokens of the busiest rank of experts, as a multiple of the mean"
    )
    document_mask: bool = Field(
        default=False, description="no token attends to another document of the window that it is packed in"
    )
    compile: bool = Field(
        default=False, description="torch.compile each block: minutes at first, then faster on GPUs"
    )
    loss_limit: float = Field(
        default=50.0, gt=0, description="a loss above this stops the run, as a loss that is not a number does"
    )

    @model_validator(mode="after")
    def _length_is_given_once(self) -> Self:
        if self.steps is None and self.tokens is None:
            raise ValueError("steps is missing, and so is tokens: add one of them, steps = 1000")
        if self.steps is not None and self.tokens is not None:
            raise ValueError(
                f"steps = {self.steps} and tokens = {self.tokens} are both given: remove one of them"
            )
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.global_batch * self.sequence_length

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.tokens is not None
        return -(-self.tokens // self.tokens_per_step)
