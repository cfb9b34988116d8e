"""A model as Python code uses it, and as the commands do: found, loaded, asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vlm_ops.config.complaints import Places, explain
from vlm_ops.config.names import registered_name
from vlm_ops.config.pictures import VideoSettings
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from vlm_ops.artifacts import ModelRef
    from vlm_ops.models.loading import LoadedModel
    from vlm_ops.serving.pictures import Shown

FRAMES = VideoSettings().frames
"""Of a video, unless somebody says otherwise."""


class Model:
    """A loaded model.

    Attributes:
        loaded: Weights, processor and what they were loaded from.
    """

    def __init__(self, loaded: "LoadedModel") -> None:
        """Ask a model that is loaded already."""
        self.loaded = loaded

    def answer(
        self,
        images: "Shown | Sequence[Shown]",
        question: str,
        *,
        videos: Sequence[str | Path] = (),
        frames: int = FRAMES,
        system: str | None = None,
        **how: Any,
    ) -> str:
        """Answer a question, with the prompt that the model was trained and measured with.

        Args:
            images: A path, a folder of pictures, an ``https://`` address, the bytes of a file, a
                PIL image, or a list of these; an empty list for words alone.
            question: May hold a mark ``<image>`` or ``<video>`` for each of them.
            videos: Paths of files.
            frames: Of each video, taken evenly over its length.
            system: What the model is told before all else.
            how: ``max_new_tokens`` (32), ``temperature`` (0, greedy), ``top_p`` (1), ``seed`` (0).

        Raises:
            DataError: A picture can't be opened or fetched, a mark stands for none, or all is too
                long for the model's context.
            ConfigError: What says how is unknown or out of bounds.
        """
        from vlm_ops.serving.asking import Answering, answer, ask_about
        from vlm_ops.serving.pictures import open_pictures, open_video

        answering = Answering.of(**how)
        films = [open_video(video, frames) for video in videos]
        asked = ask_about(question, open_pictures(images), films, system)
        return answer(self.loaded, asked, answering)


def load(
    model: str,
    *,
    runs: str | Path = "runs",
    quantization: str | None = None,
    dtype: str | None = None,
) -> Model:
    """Find a model and load it, on the GPU if there is one.

    Args:
        model: ``models:/demo@champion``, ``models:/demo/3``, ``tiny``, a hub id, a folder with
            weights, a step's folder.
        runs: Folder with the registered models; not looked at where ``MLFLOW_TRACKING_URI`` is set.
        quantization: ``nf4``, ``int8`` or ``none``; None takes the model's own.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``; None takes the model's own.

    Raises:
        ModelError: There is no such model, or the device can't hold it in this form.
        RegistryError: There is no such version.
        OutputError: There is no such runs folder.
        ConfigError: There is no such form.
    """
    from vlm_ops.models.loading import load as load_ref

    return Model(load_ref(find(model, runs=runs, quantization=quantization, dtype=dtype)))


def find(
    model: str,
    *,
    runs: str | Path = "runs",
    quantization: str | None = None,
    dtype: str | None = None,
) -> "ModelRef":
    """Find a model by content, without loading it.

    Args:
        model: As :func:`load` takes it, and so are the others.
        runs: Folder with the registered models.
        quantization: None takes the model's own.
        dtype: None takes the model's own.

    Raises:
        ModelError: There is no such model.
        RegistryError: There is no such version.
        OutputError: There is no such runs folder.
        ConfigError: There is no such form.
    """
    wanted = {"quantization": quantization, "dtype": dtype}
    form = {name: value for name, value in wanted.items() if value is not None}
    try:
        ModelSettings.model_validate(form)
    except ValidationError as error:
        raise ConfigError(explain(error, ModelSettings, Places("load"))) from error
    with _registry(model, Path(runs)) as uri:
        ref = _find(model, uri, Path(runs))
    settings = ref.settings.model_copy(update=form)
    return ref.model_copy(update={"settings": settings})


def _find(model: str, uri: str | None, runs: Path) -> "ModelRef":
    from vlm_ops.serving.predict import find_model

    return find_model(model, tracking_uri=uri, cache=runs / "models")


@contextmanager
def _registry(model: str, runs: Path) -> Iterator[str | None]:
    """Yield the address of the MLflow server where a model is registered."""
    if registered_name(model) is None:
        yield None
        return
    from flows.servers.services import registry

    with registry(runs) as uri:
        yield uri
