"""What every table of the spec shares: frozen, no unknown keys, no silent conversion of types."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Table(BaseModel):
    """One table of a spec. Its fields are the keys; a field's description becomes its documentation.

    Strict: "3", 3.0 and true are no whole numbers. A whole number may stand where any number is meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, keys: Any) -> Any:
        """A strict tuple takes no list, but a document has nothing else."""
        if not isinstance(keys, dict):
            return keys
        return {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
