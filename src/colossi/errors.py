"""
Everything that goes wrong on purpose.

* ColossiError
  - BadInput       something you wrote cannot be true: nothing was started          exit code 2
    - SpecError    a key of the spec, or a combination of keys
    - DataError    a file, a line or a column of the training data
    - RunError     a folder that is no run, or not the run that it should be
  - WorkFailed     what you asked for was started and did not end well              exit code 1
    - TrainingFailed    a worker died, or the loss is not a number
    - CheckpointFailed  nothing whole to resume from, or nowhere to write

A ColossiError is shown as one line and a hint; anything else is our bug and shows its traceback.
"""


class ColossiError(Exception):
    """What went wrong and where, in one line; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class BadInput(ColossiError):
    """Refused before any work starts."""

    exit_code = 2


class SpecError(BadInput):
    """A key of the spec is unknown, of the wrong type, or contradicts another."""


class DataError(BadInput):
    """A source of training data cannot be read as what it claims to be."""


class RunError(BadInput):
    """The folder is not a run, or belongs to another one."""


class WorkFailed(ColossiError):
    """Work was started and did not end well."""


class TrainingFailed(WorkFailed):
    """A worker died, or the numbers did."""


class CheckpointFailed(WorkFailed):
    """A checkpoint could not be written, or none that is whole could be found."""
