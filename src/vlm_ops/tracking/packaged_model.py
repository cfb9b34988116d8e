"""The script in every packaged model: MLflow runs it to get a model that answers.

It runs in whatever process loads the model, beside the library's sources that were packed
with it (see docs/adr/0004-packaged-model-carries-its-code.md).
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

logger = logging.getLogger(__name__)


class PackagedModel(PythonModel):
    """Answers questions about images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the packed model.

        Raises:
            ModelError: A file is missing or is not the one that was packed.
        """
        from vlm_ops.errors import ModelError
        from vlm_ops.models.families import family_in
        from vlm_ops.models.loading import base_ref, files_of, load, open_processor
        from vlm_ops.tracking.package import open_package

        artifacts = Path(context.artifacts["model"]).parent
        _warn_of_other_sources(artifacts.parent / "code" / "vlm_ops")
        ref = open_package(artifacts)
        found = None if ref.weights else base_ref(ref.settings).base_sha256
        if found is not None and found != ref.base_sha256:
            raise ModelError(
                f"base {ref.settings.id!r}: expected content {ref.base_sha256}, found {found}: "
                f"these are not the weights that the adapter was trained on"
            )
        processor = open_processor(artifacts / "processor", family_in(files_of(ref)))
        self._model = dataclasses.replace(load(ref), processor=processor)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """Answer one question a row, with the prompt that the model was measured with.

        Args:
            context: The packed files.
            model_input: Columns ``image`` (a path, bytes, base64 or a data URI, or a list of
                these) and ``question``; a list of such dicts will do as well.
            params: ``max_new_tokens`` and ``batch_size``.

        Returns:
            One answer a row, in the order of the rows.

        Raises:
            DataError: A column is missing, a question is no text, or an image can't be read.
        """
        from vlm_ops.data import cells
        from vlm_ops.errors import DataError
        from vlm_ops.models.generation import generate
        from vlm_ops.records import as_chat

        rows = pd.DataFrame(model_input)
        missing = {"image", "question"} - set(rows.columns)
        if missing:
            raise DataError(
                f"columns {sorted(missing)} are missing; found {[str(c) for c in rows.columns]}"
            )
        if rows.empty:
            return []
        options = params or {}
        images = [_images(cell, number) for number, cell in enumerate(rows["image"])]
        asked = [self._model.ref.asked(cells.question(question)) for question in rows["question"]]
        return generate(
            self._model,
            [as_chat(*row) for row in zip(asked, map(len, images), strict=True)],
            images,
            max_new_tokens=int(options.get("max_new_tokens", 64)),
            batch_size=int(options.get("batch_size", 8)),
        )


def _images(value: Any, row: int) -> list[Image.Image]:
    from vlm_ops.data.decoding import ImageRefused, decode
    from vlm_ops.data.image_cells import EXPECTED, ImageFile, Place, image_cells

    pictures = []
    # Whoever serves the model decides what its process may read.
    cells = image_cells(value, Place.of(Path.cwd(), Path("/")))
    for cell in cells or (ImageRefused("an empty cell", EXPECTED, "no image"),):
        try:
            if isinstance(cell, ImageRefused):
                raise cell
            data = cell.read() if isinstance(cell, ImageFile) else cell
            pictures.append(decode(data).image)
        except ImageRefused as error:
            raise ImageRefused(
                f"row {row}: image can't be read: {error.found}", error.expected, error.what
            ) from error
    return pictures


def _warn_of_other_sources(packed: Path) -> None:
    import vlm_ops
    from vlm_ops.tracking.package import sources_sha256

    running = Path(vlm_ops.__file__).parent
    if packed.is_dir() and sources_sha256(running) != sources_sha256(packed):
        logger.warning(
            "vlm_ops was imported from %s before this model was loaded, and differs from the "
            "sources packed with the model; load it in a process of its own to have the latter",
            running,
        )


mlflow.models.set_model(PackagedModel())
