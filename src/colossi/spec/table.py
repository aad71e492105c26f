"""What every table of the spec shares: frozen, no unknown keys, no silent conversion of types."""

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """One table of a spec. Its fields are the keys; a field's description becomes its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
