"""TRL's KTO trainer and collator; each row brings an answer to another question along."""

from typing import Any

from trl.trainer.kto_trainer import DataCollatorForVisionUnpairedPreference, KTOTrainer

from vlm_ops.training.accuracy import AskedOnValidation
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.means import ThumbMeans
from vlm_ops.training.stoppable import Stoppable

_OF_TEXT = (
    "input_ids", "attention_mask", "completion_mask", "token_type_ids", "mm_token_type_ids",
)  # fmt: skip
"""What differs where the answer does; ``KTOTrainer`` takes each with ``KL_`` before it."""


class WithOther(DataCollatorForVisionUnpairedPreference):
    """TRL's collator; the answer to another question is the row's own ``other``.

    TRL lends each row the answer of the row before it in the batch. Where ``other`` is that one,
    the batches are TRL's, which a test compares.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of rows: ``images``, ``prompt``, ``completion``, ``other``, ``label``."""
        self.calculate_kl = False  # by its own rotation
        batch: dict[str, Any] = super().torch_call([dict(example) for example in examples])
        lent = [example | {"completion": example["other"]} for example in examples]
        other = super().torch_call(lent)
        batch.update({f"KL_{name}": other[name] for name in _OF_TEXT if name in other})
        return batch


class TrlKto(AskedOnValidation, Stoppable, ThumbMeans, CompleteCheckpoints, KTOTrainer):
    """TRL's trainer on rows that bring the answer to another question along."""

    def __init__(self, **options: Any) -> None:
        options["args"].remove_unused_columns = False  # it knows no column ``other``
        super().__init__(data_collator=WithOther(options["processing_class"]), **options)
        # TRL asks for the order of the data set, because there the row before lends its answer.
        self.args.train_sampling_strategy = "random"
