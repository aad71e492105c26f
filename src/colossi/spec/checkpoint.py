"""`[checkpoint]`: what is kept on disk, and how often."""

from pydantic import Field

from colossi.spec.table import Table


class CheckpointSpec(Table):
    """Saving runs beside the training; the last step is always saved."""

    every: int = Field(default=100, ge=0, description="steps between checkpoints; 0 saves at the end only")
    keep: int = Field(default=2, ge=1, description="complete checkpoints to keep")
    snapshot_every: int = Field(
        default=1,
        ge=0,
        description="steps between snapshots in memory, from which a run goes on after a failure; 0 for none",
    )
