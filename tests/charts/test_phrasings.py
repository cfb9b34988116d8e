"""What the tiny base saw in pretraining and what the demo asks have no sentence in common."""

import random
import re

from vlm_ops.charts.phrases import CHART_NAMES, TEMPLATES
from vlm_ops.charts.spec import COLOR_NAMES
from vlm_ops.pretraining.synthetic import invent
from vlm_ops.pretraining.tasks import tasks_for
from vlm_ops.pretraining.wordings import PROMPTS

_SLOT = re.compile(r"\{\w+\}")


def skeleton(template: str) -> str:
    """A wording without its slots, case and punctuation."""
    return " ".join(re.findall(r"[a-z]+", _SLOT.sub(" ", template).lower()))


def test_no_wording_of_the_demo_is_one_of_the_pretraining() -> None:
    asked = {skeleton(text) for wordings in TEMPLATES.values() for text in wordings}
    trained = {skeleton(text) for wordings in PROMPTS.values() for text in wordings}
    assert len(asked) > 40
    assert len(trained) > 40
    assert not asked & trained
    sentences = {other for other in trained if len(other.split()) > 3}
    assert not {text for text in asked for other in sentences if other in text}


def test_no_target_of_the_pretraining_is_an_answer_of_the_demo() -> None:
    answers = {"Yes", "No", *CHART_NAMES.values(), *map(str.capitalize, COLOR_NAMES)}
    answers |= {str(number) for number in range(100)}
    rng = random.Random(0)
    targets = {task.target for _ in range(60) for task in tasks_for(invent(rng), rng, 8)}
    assert len(targets) > 60
    assert not targets & answers
    assert not {target.casefold() for target in targets} & {a.casefold() for a in answers}
    marked = re.compile(r"[=#@%+~:\-].*|\+|-")
    assert not {target for target in targets if not marked.fullmatch(target)}
