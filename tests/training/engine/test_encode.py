"""Rows become the tokens that TRL's own collators make; what does not fit is refused by name."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pictures import pair, picture, sft_row
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from vlm_ops.errors import DataError
from vlm_ops.pretraining.architecture import IMAGE_TOKENS, build_processor
from vlm_ops.records import ImageRef, Row, Turn
from vlm_ops.training.engine.encode import EncodedRow, Encoder, row_limit
from vlm_ops.training.kto import WithOther
from vlm_ops.training.rows import preference_rows, sft_rows, thumb_rows
from vlm_ops.training.thumbs import Mismatched

LIMIT = 2048


@pytest.fixture(params=["whole", "split"])
def processor(request: pytest.FixtureRequest, tiny_processor: Idefics3Processor) -> Any:
    """The tiny model's, and one that cuts an image into tiles, so that size decides on tokens."""
    if request.param == "whole":
        return tiny_processor
    splitting: Any = build_processor()
    splitting.image_processor.do_image_splitting = True
    splitting.image_processor.size = {"longest_edge": 256}
    return splitting


@pytest.fixture
def groups(tmp_path: Path) -> list[tuple[ImageRef, ...]]:
    """Images of rows that stand in one batch: one, two in a row, the same twice, another shape."""
    small, wide = picture(tmp_path, 1), picture(tmp_path, 2, width=160, height=64)
    return [(small,), (small, wide), (wide, wide), (wide,)]


def real(tokens: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Rows without their padding."""
    return [row[seen.bool()].tolist() for row, seen in zip(tokens, mask, strict=True)]


def collated(collator: Any, rows: Sequence[dict[str, Any]]) -> Any:
    return collator(list(rows))


def test_rows_are_the_tokens_that_trl_makes(
    processor: Any, groups: list[tuple[ImageRef, ...]], tmp_path: Path
) -> None:
    rows = [
        sft_row(
            f"row-{number}",
            *images,
            question=f"What is 12{number}.5, and why?",
            answer="Blue, then red" if number % 2 else "7",
        )
        for number, images in enumerate(groups)
    ]
    encoded = check_rows(processor, rows, tmp_path)
    assert [row.id for row in encoded] == [row.id for row in rows]
    assert [row.images for row in encoded] == groups


def test_rows_of_any_length_are_counted_as_they_are_encoded(
    processor: Any, groups: list[tuple[ImageRef, ...]]
) -> None:
    rows = [sft_row(f"row-{number}", *images) for number, images in enumerate(groups)]
    counted = Encoder(processor, limit=0).of_any_length(rows)
    assert counted == Encoder(processor, LIMIT).rows(rows)
    encoder = Encoder(processor, limit=0)
    blocks = [len(encoder.block(image)) for image in groups[1]]
    assert counted[1].blocks[1] - counted[1].blocks[0] >= blocks[0]
    assert encoder.image_tokens(counted[1].prompt) == sum(
        encoder.image_tokens(encoder.block(image)) for image in groups[1]
    )


def test_pairs_are_the_tokens_that_trl_makes(
    processor: Any, groups: list[tuple[ImageRef, ...]], tmp_path: Path
) -> None:
    pairs = [
        pair(f"pair-{number}", *images, chosen="Blue" * (number + 1), rejected=f"{number} red bars")
        for number, images in enumerate(groups)
    ]
    collator = DataCollatorForVisionPreference(processor)
    expected = collated(collator, preference_rows(pairs, tmp_path.joinpath))
    encoded = Encoder(processor, LIMIT).pairs(pairs)
    check_pairs(encoded, expected)


def test_thumbs_are_the_tokens_that_trl_makes(
    processor: Any, groups: list[tuple[ImageRef, ...]], tmp_path: Path
) -> None:
    thumbs = [
        Mismatched(
            id=f"thumb-{number}", images=images, question="Which color?", kind="color",
            completion="Blue" * (number + 1), label=number > 1, other=f"{number} red bars",
        )
        for number, images in enumerate(groups)
    ]  # fmt: skip
    expected = collated(WithOther(processor), thumb_rows(thumbs, tmp_path.joinpath))
    encoded = Encoder(processor, LIMIT).thumbs(thumbs)
    for place, prefix in enumerate(("", "KL_")):
        tokens = real(expected[f"{prefix}input_ids"], expected[f"{prefix}attention_mask"])
        assert [row.prompt + row.completions[place] for row in encoded] == tokens
        masked = expected[f"{prefix}completion_mask"].sum(dim=1).tolist()
        assert [len(row.completions[place]) for row in encoded] == masked
    assert [row.label for row in encoded] == expected["label"].tolist()


def test_rows_without_images_are_the_tokens_that_trl_makes(
    tiny_processor: Idefics3Processor, tmp_path: Path
) -> None:
    rows = [sft_row("a"), sft_row("b", question="Is 3 more than 2?", answer="yes, it is")]
    pairs = [pair("a"), pair("b", question="Is 3 more than 2?", chosen="yes", rejected="no")]
    encoder = Encoder(tiny_processor, LIMIT)
    collator = DataCollatorForVisionLanguageModeling(tiny_processor, completion_only_loss=True)
    expected = collated(collator, sft_rows(rows, tmp_path.joinpath))
    tokens = real(expected["input_ids"], expected["attention_mask"])
    assert [row.prompt + row.completions[0] for row in encoder.rows(rows)] == tokens
    preference = DataCollatorForVisionPreference(tiny_processor)
    check_pairs(encoder.pairs(pairs), collated(preference, preference_rows(pairs, Path)))


def chats(groups: list[tuple[ImageRef, ...]]) -> list[Row]:
    """A system prompt, several turns, images anywhere, and text alone."""
    (small,), (_, wide), _, _ = groups
    system = Turn(role="system", text="Answer in a word.")
    turns = (
        Turn(role="user", text="What is 5.5 in <image>?"),
        Turn(role="assistant", text="A bar, then 7"),
    )
    plain = (Turn(role="user", text="Is it red?"), Turn(role="assistant", text="No"))
    return [
        sft_row("0", small, answer="A bar, then 7", question=turns[0].text, before=(system,)),
        sft_row("1", small, wide, question="And in\n<image>", before=(system, *turns)),
        sft_row("2", wide, question="Is it blue?", before=plain),
        sft_row("3", question="Is blue a color?", before=(system,)),
        sft_row("4", wide, small, question="<image>Which is larger, or <image>?"),
    ]


def test_chats_are_the_tokens_that_trl_makes(
    processor: Any, groups: list[tuple[ImageRef, ...]], tmp_path: Path
) -> None:
    rows = chats(groups)
    check_rows(processor, rows, tmp_path)
    pairs = [pair(row.id, *row.images, question=row.question, before=row.before) for row in rows]
    preferred = collated(
        DataCollatorForVisionPreference(processor), preference_rows(pairs, tmp_path.joinpath)
    )
    check_pairs(Encoder(processor, LIMIT).pairs(pairs), preferred)


def test_a_chat_is_written_as_a_person_would(
    tiny_processor: Idefics3Processor, groups: list[tuple[ImageRef, ...]]
) -> None:
    """Prompt, images and supervised tokens, decoded."""
    picture = tiny_processor.tokenizer.decode(
        Encoder(tiny_processor, LIMIT).rows([sft_row("0", groups[0][0])])[0].prompt
    )
    block = picture[picture.index("<fake") : picture.rindex("around_image>") + 13]
    first, second, _, alone, _ = Encoder(tiny_processor, LIMIT).rows(chats(groups))
    decode = tiny_processor.tokenizer.decode
    start = "<|im_start|>System: Answer in a word.<end_of_utterance>\nUser: "
    assert decode(first.prompt) == (f"{start}What is 5.5 in {block}?<end_of_utterance>\nAssistant:")
    assert decode(first.completions[0]) == " A bar, then 7<end_of_utterance>"
    assert decode(second.prompt) == (
        f"{start}What is 5.5 in {block}?<end_of_utterance>\nAssistant: A bar, then 7"
        f"<end_of_utterance>\nUser: And in\n{block}<end_of_utterance>\nAssistant:"
    )
    assert decode(second.completions[0]) == " Red<end_of_utterance>"
    assert decode(alone.prompt) == f"{start}Is blue a color?<end_of_utterance>\nAssistant:"


def check_rows(processor: Any, rows: Sequence[Row], folder: Path) -> list[EncodedRow]:
    """Encode SFT rows, compare them with what TRL's collator makes, and return them."""
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    expected = collated(collator, sft_rows(rows, folder.joinpath))
    encoded = Encoder(processor, LIMIT).rows(rows)
    tokens = real(expected["input_ids"], expected["attention_mask"])
    assert [row.prompt + row.completions[0] for row in encoded] == tokens
    supervised = [labels[labels != -100].tolist() for labels in expected["labels"]]
    assert [list(row.completions) for row in encoded] == [[answer] for answer in supervised]
    return encoded


def check_pairs(encoded: Sequence[Any], expected: Any) -> None:
    """TRL lays all chosen rows first, then all rejected ones."""
    answers = [[row.completions[place] for row in encoded] for place in (0, 1)]
    whole = [
        row.prompt + answer for place in answers for row, answer in zip(encoded, place, strict=True)
    ]
    assert whole == real(expected["input_ids"], expected["attention_mask"])
    supervised = real(expected["input_ids"], expected["completion_mask"])
    assert [answer for place in answers for answer in place] == supervised


def test_only_the_first_accepted_answer_is_learned_and_ends_with_the_end_token(
    tiny_processor: Idefics3Processor, tmp_path: Path
) -> None:
    row = sft_row("row", picture(tmp_path, 1), answer="Green")
    (encoded,) = Encoder(tiny_processor, LIMIT).rows([row])
    tokenizer: Any = tiny_processor.tokenizer
    said = [tokenizer.decode(completion) for completion in encoded.completions]
    assert [text.strip() for text in said] == [f"Green{tokenizer.eos_token}"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert encoded.prompt.count(image) == IMAGE_TOKENS
    assert encoded.length == len(encoded.prompt) + len(encoded.completions[0])


def test_no_rows_are_no_tokens(tiny_processor: Idefics3Processor) -> None:
    encoder = Encoder(tiny_processor, LIMIT)
    assert encoder.rows([]) == []
    assert encoder.pairs([]) == []


Spoil = Callable[[Encoder, ImageRef], object]
"""Encodes a row ``bad`` beside a good one."""


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda encoder, image: encoder.rows(
                [sft_row("good", image), sft_row("bad", image, question="What is <global-img>?")]
            ),
            "row 'bad' has '<global-img>' in its text. To this model",
        ),
        (
            lambda encoder, image: encoder.rows(
                [sft_row("bad", before=(Turn(role="user", text="What is <global-img>?"),))]
            ),
            "row 'bad' has '<global-img>' in its text. To this model",
        ),
        (
            lambda encoder, image: encoder.rows(
                [sft_row("good"), sft_row("bad", question="<image>What is it?")]
            ),
            "row 'bad': found 1 times <image> and 0 images; expected one for each",
        ),
        (
            lambda encoder, image: encoder.rows([sft_row("bad", image, answer="an <image>")]),
            "row 'bad' has '<image>' in its text. To this model",
        ),
        (
            lambda encoder, image: encoder.pairs([pair("bad", image, rejected="an <image>")]),
            "row 'bad' has '<image>' in its text. To this model",
        ),
    ],
    ids=["question", "before", "text-only", "answer", "rejected"],
)
def test_a_placeholder_in_the_text_is_refused(
    tiny_processor: Idefics3Processor, tmp_path: Path, spoil: Spoil, said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        spoil(Encoder(tiny_processor, LIMIT), picture(tmp_path, 1))


def test_all_rows_that_can_t_be_encoded_are_named_at_once(
    tiny_processor: Idefics3Processor,
) -> None:
    marked = [sft_row(str(n), answer="Yes<end_of_utterance>" if n % 2 else "No") for n in range(6)]
    with pytest.raises(DataError, match=r"row '1' has '<end_of.*row '3' has .*row '5' has "):
        Encoder(tiny_processor, LIMIT).rows(marked)
    long = [sft_row(str(n), answer="many words " * 9 if n % 2 else "No") for n in range(302)]
    limit = Encoder(tiny_processor, LIMIT).rows(long[:1])[0].length
    with pytest.raises(DataError, match=r"row '1': .*row '199': .*; and 51 more, at most"):
        Encoder(tiny_processor, limit).rows(long)


def test_a_row_at_the_limit_fits_and_a_longer_one_is_refused(
    tiny_processor: Idefics3Processor, tmp_path: Path
) -> None:
    row = sft_row("long", picture(tmp_path, 1), answer="a long answer with many words")
    (encoded,) = Encoder(tiny_processor, LIMIT).rows([row])
    exact = Encoder(tiny_processor, encoded.length)
    assert exact.rows([row]) == [encoded]
    with pytest.raises(
        DataError,
        match=rf"row 'long': {encoded.length} tokens \({len(encoded.prompt)} before the answer\), "
        rf"at most {encoded.length - 1} fit.*leave the row out, shorten.*or lower",
    ):
        Encoder(tiny_processor, encoded.length - 1).rows([row])


def test_of_a_pair_the_longer_answer_counts(tiny_processor: Idefics3Processor) -> None:
    row = pair("long", chosen="1", rejected="2 4 8")
    (encoded,) = Encoder(tiny_processor, LIMIT).pairs([row])
    longest = len(encoded.prompt) + len(encoded.completions[1])
    assert Encoder(tiny_processor, longest).pairs([row]) == [encoded]
    with pytest.raises(DataError, match=rf"row 'long': {longest} tokens"):
        Encoder(tiny_processor, longest - 1).pairs([row])


def test_the_limit_is_what_is_asked_for_or_what_the_model_holds(
    random_tiny: Idefics3ForConditionalGeneration,
) -> None:
    assert row_limit(random_tiny, None) == 2048
    assert row_limit(random_tiny, 100) == 100
    assert row_limit(random_tiny, 9999) == 2048
    endless = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    assert row_limit(SimpleNamespace(config=endless), None) == 2**31
