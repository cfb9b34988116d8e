"""A packed row computes what it would alone, and nothing of its neighbors reaches it."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import pair, picture, sft_row
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_ops.data.images import open_image
from vlm_ops.training.engine.encode import EncodedRow, Encoder
from vlm_ops.training.engine.forest import Forest, pack, tree_key
from vlm_ops.training.engine.head import add_head

PAD = 0
ATTENTIONS = ("eager", "sdpa")


class Packed:
    """A model with the packed head beside the untouched one, and rows of every kind."""

    def __init__(self, plain: Any, processor: Any, folder: Path) -> None:
        self.plain = plain
        self.model: Any = copy.deepcopy(plain)
        add_head(self.model)
        self.processor = processor
        self.folder = folder
        encoder = Encoder(processor, 2048)
        one, two, wide = (picture(folder, n, width=96 + 32 * (n == 3)) for n in (1, 2, 3))
        self.sft = encoder.rows(
            [
                sft_row("one-a", one, question="Which color?", answer="Red"),
                sft_row("imageless-a", question="Is 3 more than 2?", answer="Yes, it is"),
                sft_row("two", two, question="Which color?", answer="Green and blue"),
                sft_row("both", one, two, question="Are they alike?", answer="No"),
                sft_row("one-b", one, question="Which shape?", answer="Bands"),
                sft_row("one-c", one, question="Which color?", answer="Redder"),
                sft_row("swapped", two, one, question="Are they alike?", answer="Yes"),
                sft_row("imageless-b", question="Is 3 more than 4?", answer="No"),
                sft_row("again", wide, wide, wide, question="Are they alike?", answer="Yes"),
            ]
        )
        self.pairs = encoder.pairs(
            [
                pair("p-one", one, chosen="Red", rejected="Redder than red"),
                pair("p-two", two, chosen="Green and blue", rejected="No"),
                pair("p-imageless", chosen="Yes", rejected="Yes, it is"),
                pair("p-one-b", one, question="Which shape?", chosen="Bands", rejected="Red"),
            ]
        )

    def outputs(self, rows: Sequence[Any]) -> Any:
        """Features as the model computes them for each image by itself."""
        if not rows:
            return None
        features = []
        for image in rows:
            picture = open_image(self.folder / image.path)
            pixels = self.processor.image_processor([[picture]], return_tensors="pt")
            with torch.no_grad():
                features += self.plain.get_image_features(**pixels).pooler_output
        pooled: Any = features
        return {"image": BaseModelOutputWithPooling(pooler_output=pooled)}

    def scores(self, forest: Forest) -> list[torch.Tensor]:
        """Log-probabilities of each completion's tokens."""
        scores = self.model(
            input_ids=forest.input_ids,
            position_ids=forest.position_ids,
            visible=forest.visible,
            keep=forest.keep,
            scored=forest.scored,
            targets=forest.targets,
            mm_encoder_outputs=self.outputs(forest.images),
        )
        count = int(forest.completion.max()) + 1
        return [scores.log_probs[forest.completion == number] for number in range(count)]

    def packed(self, rows: Sequence[EncodedRow]) -> list[torch.Tensor]:
        return self.scores(pack(rows, PAD))

    def alone(self, rows: Sequence[EncodedRow]) -> list[torch.Tensor]:
        """The same by the untouched model, one completion at a time."""
        return [self._alone(row, completion) for row in rows for completion in row.completions]

    def _alone(self, row: EncodedRow, completion: list[int]) -> torch.Tensor:
        ids = torch.tensor([row.prompt + completion])
        logits = self.plain(input_ids=ids, mm_encoder_outputs=self.outputs(row.images)).logits
        start = len(row.prompt)
        every = logits[0, start - 1 : -1].log_softmax(dim=-1)
        found: torch.Tensor = every.gather(-1, ids[0, start:, None]).squeeze(-1)
        return found


@pytest.fixture(scope="module")
def packed(
    random_tiny: Idefics3ForConditionalGeneration,
    tiny_processor: Idefics3Processor,
    tmp_path_factory: pytest.TempPathFactory,
) -> Packed:
    model: Any = copy.deepcopy(random_tiny)
    with torch.no_grad():
        for name, parameter in model.model.text_model.named_parameters():
            # Random queries and keys look everywhere alike: positions would hardly matter.
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(4)
    return Packed(model, tiny_processor, tmp_path_factory.mktemp("pictures"))


def close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], atol: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (found - expected).abs().max().item()


@pytest.fixture(params=ATTENTIONS)
def attention(request: pytest.FixtureRequest, packed: Packed) -> str:
    packed.model.set_attn_implementation({"text_config": request.param})
    name: str = packed.model.config.get_text_config()._attn_implementation
    assert name == request.param
    return name


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("kind", ["sft", "pairs"])
def test_every_packed_row_computes_what_it_computes_alone(packed: Packed, kind: str) -> None:
    rows: list[EncodedRow] = getattr(packed, kind)
    with torch.no_grad():
        close(packed.packed(rows), packed.alone(rows), atol=1e-5)


@pytest.mark.usefixtures("attention")
def test_a_batch_of_one_row_and_one_without_images_compute_the_same(packed: Packed) -> None:
    imageless = [row for row in packed.sft if not row.images]
    assert len(imageless) == 2
    with torch.no_grad():
        close(packed.packed(imageless), packed.alone(imageless), atol=1e-5)
        close(packed.packed(packed.sft[:1]), packed.alone(packed.sft[:1]), atol=1e-5)


def test_gradients_are_those_of_the_rows_alone(packed: Packed) -> None:
    def gradients(model: Any, scores: list[torch.Tensor]) -> list[torch.Tensor]:
        layers = model.model.text_model.layers
        wanted = [
            weight
            for layer in (layers[0], layers[-1])
            for weight in (layer.self_attn.k_proj.weight, layer.mlp.up_proj.weight)
        ]
        return list(torch.autograd.grad(torch.cat(scores).mean(), wanted))

    found = gradients(packed.model, packed.packed(packed.pairs))
    expected = gradients(packed.plain, packed.alone(packed.pairs))
    assert all(gradient.abs().max() > 1e-4 for gradient in expected)
    close(found, expected, atol=1e-6)


@pytest.mark.usefixtures("attention")
def test_a_neighbor_on_another_image_changes_nothing(packed: Packed) -> None:
    rows = packed.sft
    before = packed.packed(rows)
    for number in (0, 2, 3):
        changed = list(rows)
        changed[number] = disturbed(rows[number])
        after = packed.packed(changed)
        same = [
            place
            for place, row in enumerate(rows)
            if place != number and row.images != rows[number].images
        ]
        assert len(same) >= 6
        close([after[place] for place in same], [before[place] for place in same], atol=1e-6)
        assert distance(after[number], before[number]) > 1e-3


def disturbed(row: EncodedRow) -> EncodedRow:
    """Other words of the question, in the same places."""
    return replace(row, prompt=[*row.prompt[:-8], 300, 301, *row.prompt[-6:]])


@pytest.mark.usefixtures("attention")
def test_a_siblings_answer_changes_nothing(packed: Packed) -> None:
    rows = packed.pairs
    before = packed.packed(rows)
    for changed_answer in (0, 1):
        row = rows[0]
        answers = list(row.completions)
        answers[changed_answer] = [300, *answers[changed_answer][1:]]
        changed = [replace(row, completions=tuple(answers)), *rows[1:]]
        after = packed.packed(changed)
        places = [place for place in range(len(before)) if place != changed_answer]
        close([after[p] for p in places], [before[p] for p in places], atol=1e-6)
        assert distance(after[changed_answer], before[changed_answer]) > 1e-3


def test_rows_on_one_image_share_exactly_their_common_prefixes(packed: Packed) -> None:
    for rows in (packed.sft, packed.pairs, packed.pairs[:1]):
        forest = pack(rows, PAD)
        prefixes = {
            (tree_key(row), *path[:end])
            for row in rows
            for completion in row.completions
            for path in [row.prompt + completion]
            for end in range(1, len(path) + 1)
        }
        assert int(forest.attention_mask.sum()) == len(prefixes)
    (pair_row,) = packed.pairs[:1]
    chosen, rejected = pair_row.completions
    assert chosen[0] == rejected[0]
    assert len(prefixes) < len(pair_row.prompt) + len(chosen) + len(rejected)


def test_positions_restart_where_answers_part(packed: Packed) -> None:
    row = packed.pairs[1]
    chosen, rejected = row.completions
    assert chosen[0] != rejected[0]
    forest = pack([row], PAD)
    start = len(row.prompt)
    expected = [*range(start + len(chosen)), *range(start, start + len(rejected))]
    real = forest.attention_mask[0]
    assert forest.position_ids[0][real].tolist() == expected
    assert forest.input_ids[0][real].tolist() == [*row.prompt, *chosen, *rejected]
    first, second = start + len(chosen) - 1, start + len(chosen)
    seen = forest.visible[0, 0]
    assert seen[second].nonzero().flatten().tolist() == [*range(start), second]
    assert seen[first].nonzero().flatten().tolist() == [*range(first + 1)]


def test_targets_are_counted_by_row_and_answer(packed: Packed) -> None:
    forest = pack(packed.pairs, PAD)
    answers = [answer for row in packed.pairs for answer in row.completions]
    for number, answer in enumerate(answers):
        assert forest.targets[forest.completion == number].tolist() == answer


def test_several_trees_stand_in_one_line_and_each_image_once(packed: Packed) -> None:
    forest = pack(packed.sft, PAD)
    trees = {tree_key(row): row.images for row in packed.sft}
    assert len(forest.input_ids) < len(trees)
    assert len(forest.images) == sum(map(len, trees.values()))
    starts = ((forest.position_ids == 0) & forest.attention_mask).sum(dim=1)
    assert starts.sum() == len(trees)
    assert starts.max() > 1


@pytest.mark.usefixtures("attention")
def test_padding_never_makes_nan(packed: Packed) -> None:
    rows = [row for row in packed.sft if row.id in ("both", "one-a", "two", "swapped")]
    forest = pack(rows, PAD)
    padding = ~forest.attention_mask
    assert padding.any()
    # Not every kernel survives a token that sees nothing.
    assert forest.visible.any(dim=-1).all()
    found = packed.scores(forest)
    weights = [parameter for parameter in packed.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(torch.cat(found).sum(), weights, allow_unused=True)
    assert all(torch.isfinite(part).all() for part in found)
    assert all(torch.isfinite(part).all() for part in gradients if part is not None)
    filled = replace(forest, input_ids=forest.input_ids.masked_fill(padding, 777))
    close(packed.scores(filled), found, atol=1e-6)


def test_attention_implementations_agree(packed: Packed) -> None:
    found: dict[str, list[torch.Tensor]] = {}
    for name in ATTENTIONS:
        packed.model.set_attn_implementation({"text_config": name})
        with torch.no_grad():
            found[name] = packed.packed(packed.sft)
    close(found["eager"], found["sdpa"], atol=1e-5)


def test_without_targets_the_model_answers_as_before(packed: Packed) -> None:
    row = packed.sft[0]
    inputs = {
        "input_ids": torch.tensor([row.prompt + row.completions[0]]),
        "mm_encoder_outputs": packed.outputs(row.images),
    }
    packed.model.set_attn_implementation({"text_config": "sdpa"})
    with torch.no_grad():
        assert torch.equal(packed.model(**inputs).logits, packed.plain(**inputs).logits)


def test_a_decoder_whose_last_layer_stays_whole_computes_the_same(packed: Packed) -> None:
    whole = copy.copy(packed)
    whole.model = copy.deepcopy(packed.plain)
    last = whole.model.model.text_model.layers[-1]
    last.__class__ = type("OtherLayer", (type(last),), {})
    add_head(whole.model)
    assert "forward" not in vars(last)
    with torch.no_grad():
        close(whole.packed(packed.pairs), packed.alone(packed.pairs), atol=1e-5)


def test_scores_tell_entropy_and_hits(packed: Packed) -> None:
    forest = pack(packed.sft[:2], PAD)
    inputs = {"keep": forest.keep, "scored": forest.scored, "visible": forest.visible}
    scores = packed.model(
        input_ids=forest.input_ids,
        position_ids=forest.position_ids,
        targets=forest.targets,
        mm_encoder_outputs=packed.outputs(forest.images),
        **inputs,
    )
    row = packed.sft[0]
    ids = torch.tensor([row.prompt + row.completions[0]])
    with torch.no_grad():
        logits = packed.plain(input_ids=ids, mm_encoder_outputs=packed.outputs(row.images)).logits
    every = logits[0, len(row.prompt) - 1 : -1].log_softmax(dim=-1)
    mine = forest.completion == 0
    entropy = -(every.exp() * every).sum(dim=-1)
    torch.testing.assert_close(scores.entropy[mine], entropy, atol=1e-4, rtol=0)
    best = every.argmax(dim=-1)
    assert scores.is_top1[mine].tolist() == (best == forest.targets[mine]).tolist()
    assert scores.label_mask.all()
