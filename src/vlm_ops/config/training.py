"""The sections of a configuration that are about training.

Nothing here imports a machine-learning library, so that reading a configuration is instant.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from vlm_ops.config.sections import Fraction
from vlm_ops.store.frozen import Frozen, added

Tower = Literal["text", "vision", "connector"]
Method = Literal["lora", "full"]
"""``lora``: low-rank matrices beside frozen weights; ``full``: the weights themselves."""
Engine = Literal["packed", "trl"]
"""``packed``: images encoded once if nothing trains the vision tower, rows on one image in one
prefix tree, the reference asked once;
``trl``: TRL's trainers as they are, several times slower on images, with the same losses."""
Loss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "bco_pair", "exo_pair", "nca_pair",
    "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
]  # fmt: skip
"""Losses that compare two answers to one question."""
SMOOTHED = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
"""Those that read ``label_smoothing``, here as in TRL; plain DPO (``sigmoid``) is none of them."""
Unpaired = Literal["kto", "apo_zero_unpaired"]
"""Losses that take one answer and a thumb."""

Scheduler = Literal[
    "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial",
    "inverse_sqrt", "reduce_lr_on_plateau", "greedy",
]  # fmt: skip
"""transformers' schedulers by its names: those that need no argument of their own."""
POLYNOMIAL_END = 1e-7
"""Learning rate at which transformers' ``polynomial`` ends."""

Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]

ALL_LINEAR = "all-linear"


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class LoraSettings(Frozen):
    """The adapter: low-rank matrices beside the frozen weights (LoRA, arXiv:2106.09685)."""

    rank: int = Field(default=8, ge=1, le=512)
    """Columns of A and rows of B."""
    alpha: int = Field(default=16, ge=1)
    """The update is scaled by ``alpha / rank``, with ``rslora`` by ``alpha / sqrt(rank)``."""
    dropout: Fraction = 0.0
    """On the adapter's input, in training."""
    dora: bool = False
    """Train a magnitude per output as well (DoRA, arXiv:2402.09353)."""
    rslora: bool = added(False)
    """Scale by the root of the rank, so that a high rank learns as fast as a low one (rsLoRA,
    arXiv:2312.03732)."""
    towers: tuple[Tower, ...] = ("text",)
    """Parts of the model that get an adapter. Bare module names would reach into the vision
    tower too, so names are scoped to these."""
    modules: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers that are adapted inside those towers; or ``all-linear`` alone:
    every one of them."""

    @model_validator(mode="after")
    def _all_linear_stands_alone(self) -> "LoraSettings":
        if ALL_LINEAR in self.modules and len(self.modules) > 1:
            raise ValueError(
                f"modules: {ALL_LINEAR} takes every linear layer and stands alone, found "
                f"[{', '.join(self.modules)}]"
            )
        return self


class OptimSettings(Frozen):
    """What SFT and preference training share."""

    epochs: float = Field(default=1.0, gt=0.0, le=1000.0)
    """Passes over the rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps; None goes by ``epochs``."""
    learning_rate: float = Field(default=1e-4, gt=0.0, le=1.0)
    """Peak learning rate."""
    optimizer: Optimizer = added("adamw")
    """``adamw`` with moments in float32; ``adamw_8bit`` with blockwise 8-bit moments
    (arXiv:2110.02861; matrices of under 4,096 numbers keep float32); ``paged_adamw_8bit`` moves
    them to the CPU's memory when the GPU's is full (arXiv:2305.14314)."""
    scheduler: Scheduler = "cosine"
    """Shape of the learning rate after warm-up. ``reduce_lr_on_plateau`` and ``greedy`` go by what
    chooses the best checkpoint, at each of the ``evaluations``."""
    warmup_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises from 0; ``constant``,
    ``reduce_lr_on_plateau`` and ``greedy`` start at their peak instead."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    batch_size: int = Field(default=8, ge=1)
    """Rows in one forward pass, per device."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes in one optimizer step."""
    fill_memory: bool = added(False)
    """Take more rows in a forward pass than ``batch_size``, and fewer passes for the same step, as
    far as the memory that is free allows by an estimate. What a loss computes over the rows of a
    pass (``bco_pair``, ``aot``, ``kto``) then depends on the device. On a GPU: not measured."""
    evaluations: int = Field(default=4, ge=1, le=1000)
    """How often, evenly over the training, the validation rows are scored and a checkpoint is
    written; the best one on validation is kept as the result."""
    validation_rows: int | None = added(None, ge=1)
    """At most this many validation rows are scored in training, whole images, drawn by the seed;
    None scores all. The best checkpoint is chosen by them."""
    early_stopping: int | None = added(None, ge=1)
    """Stop after this many validations in a row without a better one; None trains to the last
    step. It takes more ``evaluations`` than this to stop before the end."""
    logging_steps: int | None = added(None, ge=1)
    """A point of the curves, and a line of the log, every so many optimizer steps; None makes about
    fifty in a training."""
    max_length: int | None = Field(default=None, ge=1)
    """Most tokens of a row, image tokens included; None takes what the model can hold. A longer
    row is refused, never cut."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _can_fall(self) -> "OptimSettings":
        if self.scheduler == "polynomial" and self.learning_rate <= POLYNOMIAL_END:
            raise ValueError(
                f"scheduler polynomial ends at {POLYNOMIAL_END:g} and can't start at "
                f"learning_rate {self.learning_rate:g}; raise it, or take linear, which ends at 0"
            )
        return self


class SftSettings(OptimSettings):
    """Supervised fine-tuning on the first accepted answer of each row."""

    method: Method = added("lora")
    """``lora`` trains an adapter; ``full`` all weights of ``lora.towers``, with the text tower the
    output layer too, and leaves a whole model. The rest of ``lora`` does nothing then."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    best_by: Literal["loss", "accuracy"] = added("loss")
    """What chooses the best checkpoint: the loss on the validation rows, or the score
    (``evaluate.metric``) of greedy answers to them (``evaluate.max_new_tokens`` long). Answers take
    longer to make than a loss; ``validation_rows`` bounds it."""


class PreferSettings(OptimSettings):
    """Preference optimization (DPO, arXiv:2305.18290, and its kin; KTO, arXiv:2402.01306).

    The policy that it starts at, the SFT model or the base, is the reference.
    """

    retired = {
        "max_loss_on_validation": "the preferred model goes on if it is better than the SFT model "
        "on validation beyond chance"
    }

    lora: LoraSettings = added(LoraSettings())
    """The adapter, where there is no SFT model whose adapter is trained further."""
    loss: Annotated[tuple[Loss | Unpaired | Literal["mpo"], ...], BeforeValidator(_one_or_more)] = (
        "mpo",
    )
    """One or more losses, added up; or ``mpo`` alone: ``[sigmoid, bco_pair, sft]`` with the weights
    ``[0.8, 0.2, 1.0]`` (arXiv:2411.10442); or, for thumbs, ``kto`` or ``apo_zero_unpaired`` alone,
    which take a pair as a thumb up and a thumb down. The formulas are in ``training/losses.py``."""
    loss_weights: tuple[float, ...] | None = None
    """One for each loss; None weighs all by 1."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of pairs whose label is taken to be wrong; read by robust, exo_pair, aot and
    aot_unpaired, and refused where none of these is asked for."""
    desirable_weight: float = added(1.0, gt=0.0)
    """Of a thumb up in kto and apo_zero_unpaired. Where there are more of one kind, the weights
    make up for it: (ups · this) : (downs · the other) between 1 and 4/3 is what KTO's authors
    advise (arXiv:2402.01306, equation 8)."""
    undesirable_weight: float = added(1.0, gt=0.0)
    """Of a thumb down."""

    beta: float = Field(default=0.1, gt=0.0, le=10.0)
    """How dear it is to move away from the reference."""
    max_loss_on_validation: float = Field(default=0.01, ge=0.0, le=1.0)
    """Does nothing any more. It stays in the fingerprint, so that nothing is trained again."""

    @model_validator(mode="after")
    def _losses_fit_together(self) -> "PreferSettings":
        if not self.loss:
            raise ValueError("loss names no loss; give at least one, as sigmoid")
        if "mpo" in self.loss and (len(self.loss) > 1 or self.loss_weights is not None):
            raise ValueError(
                "mpo is a mixture with weights of its own and stands alone; for another one name "
                "its parts: loss: [sigmoid, bco_pair, sft], loss_weights: [0.8, 0.2, 1.0]"
            )
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} numbers for {len(self.loss)} losses "
                f"({', '.join(self.loss)}); give one each, or none to weigh all by 1"
            )
        if "exo_pair" in self.loss and self.label_smoothing == 0.0:
            raise ValueError("exo_pair needs label_smoothing above 0; its paper takes 0.001")
        return self

    @model_validator(mode="after")
    def _smoothing_is_read(self) -> "PreferSettings":
        if self.label_smoothing > 0.0 and not SMOOTHED & {*self.loss}:
            raise ValueError(
                f"label_smoothing {self.label_smoothing:g} does nothing: found loss "
                f"[{', '.join(self.loss)}], and only {', '.join(sorted(SMOOTHED))} read it; take "
                f"one of these (robust is DPO with wrong labels), or leave label_smoothing out"
            )
        return self

    @model_validator(mode="after")
    def _unpaired_stands_alone(self) -> "PreferSettings":
        found = [loss for loss in self.loss if loss in get_args(Unpaired)]
        if found and (len(self.loss) > 1 or self.loss_weights is not None):
            raise ValueError(
                f"{found[0]} takes single answers and stands alone, found [{', '.join(self.loss)}]"
                f"{' with loss_weights' if self.loss_weights else ''}; desirable_weight and "
                f"undesirable_weight are its weights"
            )
        if "kto" in self.loss and self.batch_size == 1:
            raise ValueError(
                "kto estimates how far the policy has moved by the rows of a forward pass: with "
                "batch_size 1 that is one row; take at least 2, and more are better"
            )
        return self

    @property
    def unpaired(self) -> Unpaired | None:
        """The loss that takes single answers, if that is what is asked for."""
        return next((loss for loss in get_args(Unpaired) if loss in self.loss), None)

    @property
    def mixture(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The losses of pairs that are added up, and the weight of each."""
        losses = tuple(loss for loss in self.loss if loss != "mpo")
        if not losses:
            return ("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0)
        return losses, self.loss_weights or (1.0,) * len(losses)


class FeatureSettings(Frozen):
    """How much room the outputs of a frozen vision tower may take; never part of a fingerprint."""

    memory_gb: float | None = Field(default=None, ge=0.0)
    """In memory; None takes a quarter of what is free when training starts."""
    disk_gb: float | None = Field(default=None, ge=0.0)
    """In files; None takes half of what is free. What other steps need too lies in ``features/`` of
    the runs folder to the run's end; the rest, once memory is full, in the step's own to its end. A
    run that was stopped goes on with them, ``vlm-ops clean`` removes them."""
