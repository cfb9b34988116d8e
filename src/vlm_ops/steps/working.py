"""Working in a runs folder on a registered model: one process at a time, the others wait."""

from collections.abc import Iterator
from contextlib import contextmanager

from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.lock import one_at_a_time, using


@contextmanager
def working(config: PipelineConfig, what: str, *, name: str | None = None) -> Iterator[None]:
    """Hold what a run of a configuration needs for itself.

    That is its registered model in this runs folder: the splits that groups were dealt to, the
    MLflow runs of interrupted attempts and the notes of past runs are of that model. Runs of other
    models go on beside it.

    Args:
        config: The whole configuration.
        what: The process is about, in words for others.
        name: By which others find that this process was killed.

    Raises:
        OutputError: Another process held it for ``execution.wait_minutes``, or the runs folder
            can't be written to.
    """
    runs, patience = config.execution.runs.resolve(), config.execution.wait_minutes
    model = f"model-{fingerprint(config.registered_model)[:SHORT]}"
    with (
        using(runs, what, name=name, wait_minutes=patience),
        one_at_a_time(runs, model, what, wait_minutes=patience),
    ):
        yield
