"""Sampled answers hang on their seed alone, and leave the draw of other code as it was."""

from pathlib import Path

import torch
from PIL import Image

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.generation import Sampling, generate, sample
from vlm_ops.models.loading import base_ref, load

QUESTIONS = ("What color is the square?", "How many squares are there?", "kind")
SAMPLING = Sampling(max_new_tokens=4, batch_size=2, temperature=1.0, samples=3, seed=7)


def test_answers_of_a_seed(random_base: Path) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    images = [[Image.new("RGB", (96, 96), color)] for color in ("red", "green", "blue")]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = sample(loaded, QUESTIONS, images, SAMPLING)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(drawn) == 9
    assert len(set(drawn)) > 3
    torch.manual_seed(2)
    assert sample(loaded, QUESTIONS, images, SAMPLING) == drawn
    calls: list[tuple[int, int]] = []
    greedy = generate(
        loaded,
        QUESTIONS,
        images,
        max_new_tokens=4,
        batch_size=2,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert calls == [(2, 3), (3, 3)]
    alone = [
        generate(loaded, [question], [row], max_new_tokens=4, batch_size=1)[0]
        for question, row in zip(QUESTIONS, images, strict=True)
    ]
    assert greedy == alone
