"""What makes a stage of the tiny base's training, and how it is read from a file."""

from pathlib import Path

from pydantic import ValidationError

from vlm_ops.errors import ConfigError
from vlm_ops.pretraining.sight import LESSONS, Lesson
from vlm_ops.pretraining.wordings import Mix
from vlm_ops.store.frozen import Frozen

_TIMING = {"checkpoint_minutes", "score_minutes", "score_charts"}


class TinyRecipe(Frozen):
    """Everything that makes one stage of the training.

    The defaults are the recipe of the shipped weights (``models/tiny/weights/recipe-stage1.json``).

    Attributes:
        seed: Makes weights, charts and tasks.
        steps: Length of the cosine, and of the stage.
        start_from: Folder of an earlier stage's weights; ``None`` starts at random.
        shards: Training files of charts.
        shard_charts: Charts in each.
        first_shards: Shards that have to be there before the first step.
        steps_per_shard: One more shard joins after so many steps, whether or not it was drawn
            sooner: so a run depends on its recipe alone.
        images: Pictures in a step.
        tasks: Tasks of each picture, the transcription included.
        mix: How often each task is asked.
        learning_rate: After the warmup.
        warmup_steps: Linear rise of the rate.
        weight_decay: On matrices.
        clip: Largest gradient norm.
        read_weight: Weight of a transcription's token; it has many more than other targets.
        cell_weight: Weight of the loss of the color in each patch.
        words_weight: Weight of the loss that brings image tokens near their color's words.
        gaze_weight: Weight of the loss that has named colors looked at.
        patches_weight: Weight of the loss of color, position and levels in each patch.
        checkpoint_minutes: Time between checkpoints.
        score_minutes: Time between held-out scores.
        score_charts: Held-out charts to score.
    """

    seed: int = 1
    steps: int = 1700
    start_from: Path | None = None
    shards: int = 30
    shard_charts: int = 1000
    first_shards: int = 2
    steps_per_shard: int = 40
    images: int = 32
    tasks: int = 8
    mix: Mix = "found"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    read_weight: float = 0.5
    cell_weight: float = 0.5
    words_weight: float = 0.0
    gaze_weight: float = 0.0
    patches_weight: float = 0.0
    checkpoint_minutes: float = 5.0
    score_minutes: float = 10.0
    score_charts: int = 384

    @property
    def lessons(self) -> dict[Lesson, float]:
        """The lessons of sight that are taught, and what each weighs."""
        weights = {lesson: float(getattr(self, f"{lesson}_weight")) for lesson in LESSONS}
        return {lesson: weight for lesson, weight in weights.items() if weight}

    @property
    def identity(self) -> str:
        """What a stage that goes on must share with its beginning."""
        return self.model_dump_json(exclude=_TIMING)


def read_recipe(path: Path) -> TinyRecipe:
    """Read a recipe, as ``recipe-stage1.json`` beside the shipped weights.

    Args:
        path: A JSON object; a key that is left out has its default.

    Raises:
        ConfigError: The file is not there, or is no recipe.
    """
    try:
        return TinyRecipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from error
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors()
        )
        known = ", ".join(TinyRecipe.model_fields)
        raise ConfigError(f"{path}: not a recipe ({found}). The keys are: {known}") from error
