"""What a caller may catch. Each error carries the exit code that the command line ends with."""

from typing import ClassVar


class DnasmError(Exception):
    """Base of every error that dnasm raises on purpose: its message names the value, the place and the way out."""

    exit_code: ClassVar[int] = 1


class ConfigError(DnasmError, ValueError):
    """A setting is unknown, missing or does not fit the others."""

    exit_code = 2


class InputError(DnasmError, ValueError):
    """A file that a user gave cannot be used: missing, malformed, truncated, or it contradicts another one."""

    exit_code = 65


class ReferenceMismatch(InputError):
    """A variant's REF is not what the genome holds at its place."""


class OutputError(DnasmError, OSError):
    """An output cannot be written: the place exists already, is read-only, or full."""

    exit_code = 73


class MissingExtra(DnasmError, ImportError):
    """An optional package is needed for what was asked; the message says what to install."""

    exit_code = 2


class BackendUnavailable(DnasmError, RuntimeError):
    """A convolution backend was asked for by name and cannot run here; the message says why."""

    exit_code = 2


class TrainingDiverged(DnasmError, ArithmeticError):
    """The loss or its gradient is no longer a finite number; checkpoints up to there are kept."""


class BaselineNotBeaten(DnasmError):
    """A trained model was required to be better than a baseline and is not; everything was written all the same."""
