"""Every error that vlm-ops raises on purpose.

::

    VlmOpsError
    ├── ConfigError (ValueError)        a setting is unknown, misspelt or out of bounds
    ├── DataError (ValueError)          rows, images or columns are not as they must be
    ├── ModelError (RuntimeError)       a model can't be found, loaded or used
    ├── TrainingError (RuntimeError)    training can't go on (a loss that is not a number, …)
    ├── RegistryError (RuntimeError)    a version, an alias or a decision is missing or says no
    │   └── ChampionMoved               judged against another champion than today's; judge again
    ├── OutputError (OSError)           an output folder is read-only or held by another run
    ├── ServiceError (ConnectionError)  a server, the hub or the store does not answer, or refuses
    │   └── Unanswered                  it is away or very slow; asking again makes sense
    ├── Interrupted (RuntimeError)      asked to stop; what was done is kept and gone on from
    └── StepFailed (RuntimeError)       a step's own process ended without its artifact
        └── TransientError              it was killed from outside; trying again makes sense
            └── MemoryRanOut            in one of several processes; all go on with less

Each message says what is wrong, where, what was found, what was expected and what to do.
The command line prints it without a traceback and exits with 1.
"""

__all__ = [
    "ChampionMoved",
    "ConfigError",
    "DataError",
    "Interrupted",
    "ModelError",
    "OutputError",
    "RegistryError",
    "ServiceError",
    "StepFailed",
    "TrainingError",
    "TransientError",
    "MemoryRanOut",
    "Unanswered",
    "VlmOpsError",
]


class VlmOpsError(Exception):
    """Base of all errors that vlm-ops raises on purpose."""


class ConfigError(VlmOpsError, ValueError):
    """A setting is unknown, misspelt or out of bounds."""


class DataError(VlmOpsError, ValueError):
    """Rows, images or columns are not as they must be."""


class ModelError(VlmOpsError, RuntimeError):
    """A model can't be found, loaded or used."""


class TrainingError(VlmOpsError, RuntimeError):
    """Training can't go on."""


class RegistryError(VlmOpsError, RuntimeError):
    """A model version, an alias or a gate decision is missing or says no."""


class ChampionMoved(RegistryError):
    """A version was judged against another champion than today's; judge it again."""


class OutputError(VlmOpsError, OSError):
    """An output folder is read-only or held by another run."""


class ServiceError(VlmOpsError, ConnectionError):
    """A Prefect or MLflow server, the hub or the shared store does not answer, or refuses."""


class Unanswered(ServiceError):
    """A Prefect or MLflow server is away or very slow; asking again makes sense."""


class Interrupted(VlmOpsError, RuntimeError):
    """A step was asked to stop; its checkpoint is written, the next run goes on from there."""


class StepFailed(VlmOpsError, RuntimeError):
    """A step's own process ended without leaving its artifact."""


class TransientError(StepFailed):
    """A step was killed from outside, as the out-of-memory killer does; try again."""


class MemoryRanOut(TransientError):
    """One of the processes that share a training needs less memory; begun anew they take it."""
