"""The tiny model's tokenizer: a byte-level BPE of a few hundred pieces for chart words.

Digits stand one by one, colors and kinds of charts are single pieces in both cases, and any
other text falls back to shorter pieces or bytes.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vlm_ops.pretraining.words import CHART_WORDS, OPENERS, WHOLE_WORDS

VOCABULARY = 1024
PAD, END, START, IMAGE = "<pad>", "<end_of_utterance>", "<|im_start|>", "<image>"
AROUND_IMAGE, GLOBAL_IMAGE = "<fake_token_around_image>", "<global-img>"
SPECIAL = (PAD, START, END, AROUND_IMAGE, IMAGE, GLOBAL_IMAGE)

CHAT_TEMPLATE = (
    "{{ '<|im_start|>' }}"
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ message['role'] | capitalize }}"
    "{% if message['content'] is string %}{{ ': ' + message['content'] }}"
    "{% else %}"
    "{{ ':' if message['content'] and message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<end_of_utterance>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
)
"""SmolVLM's template, without the line break after the last turn."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer anew; the word list is fixed, so it always comes out the same.

    Returns:
        A tokenizer of :data:`VOCABULARY` pieces that knows what an Idefics3 processor needs.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=START,
        additional_special_tokens=[AROUND_IMAGE, IMAGE, GLOBAL_IMAGE],
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> Iterator[str]:
    """Words with and without the space before them; what must be one piece comes most often."""
    for word in WHOLE_WORDS:
        for form in (word, word.capitalize()):
            yield from [form, " " + form] * 400
    for word in OPENERS:
        yield from [word] * 100
    for rank, word in enumerate(CHART_WORDS):
        yield from [" " + word] * max(60 - rank // 4, 8)
        yield from [word.capitalize()] * 3
