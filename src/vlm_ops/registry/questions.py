"""A version's recorded questions: what it is asked again before a rollback puts it back.

Files that are what was registered may still not be what answered: the list of their hashes can be
changed along with them, a base or a library may have gone on. So a few validation questions lie
beside a version's details, with the images and the answers that its model gave.
"""

import base64
import logging
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from vlm_ops.artifacts import AnswerSet, ModelRef
from vlm_ops.data.decoding import decode
from vlm_ops.errors import DataError, ModelError, RegistryError
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.models.ground import differences
from vlm_ops.records import Answer, RowsRef, Turn, as_chat
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.tracking.package import FILES, open_package

logger = logging.getLogger(__name__)

NOT_ASKED = "It was not asked its recorded questions (--unasked)."
"""What the ledger says where a person left them out."""

_COUNT = 4


class Question(Frozen):
    """A question, and what the model said.

    Attributes:
        id: The row's.
        kind: The row's.
        before: What was said before the question.
        question: Without the model's prompt.
        images: The files' bytes in base64, in the order the prompt shows them.
        answer: What the model said.
    """

    id: str
    kind: str
    before: tuple[Turn, ...] = added(())
    question: str
    images: tuple[str, ...]
    answer: str

    def pictures(self) -> list[Image.Image]:
        """Open its images.

        Raises:
            ImageRefused: One of them can't be used.
        """
        # What has several frames was let in when it was prepared (data.frames: first).
        return [decode(base64.b64decode(image), "first").image for image in self.images]


class Recorded(Frozen):
    """The questions that are kept with a version.

    Attributes:
        prompt: That the model was asked with.
        max_new_tokens: Longest answer.
        ground: On which the answers were given (:mod:`vlm_ops.models.ground`).
        questions: A few, of different kinds and with different answers as far as there are any.
    """

    prompt: str
    max_new_tokens: int
    ground: dict[str, str]
    questions: tuple[Question, ...]


def record(answers: AnswerSet, rows: RowsRef, prompt: str, max_new_tokens: int) -> Recorded:
    """Choose a few of the questions that a model was asked.

    Args:
        answers: To validation rows: the test rows are for the gate.
        rows: Those rows.
        prompt: The model's.
        max_new_tokens: Longest answer.

    Raises:
        DataError: Rows, answers or images are gone.
    """
    by_id = {row.id: row for row in rows.read()}
    questions = []
    for answer in _telling(answers.read()):
        row = by_id[answer.id]
        try:
            images = [rows.image_path(image.path).read_bytes() for image in row.images]
        except OSError as error:
            raise DataError(f"{error.filename}: can't be read ({error.strerror})") from error
        questions.append(
            Question(
                id=row.id,
                kind=row.kind,
                before=row.before,
                question=row.question,
                images=tuple(base64.b64encode(image).decode("ascii") for image in images),
                answer=answer.text,
            )
        )
    return Recorded(
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        ground=answers.ground,
        questions=tuple(questions),
    )


def ask_again(version: ModelVersion, folder: Path, path: str) -> str:
    """Load a version as ``vlm-ops predict`` does, and ask it its recorded questions.

    Args:
        version: That is to be put back.
        folder: Holds its files, which were checked.
        path: Of the recorded questions, below the folder.

    Returns:
        What the ledger has to say of it: on another ground than then, which answers differ. Empty
        where all are equal.

    Raises:
        RegistryError: It can't be loaded, or answers otherwise on the same ground.
    """
    name = f"version {version.version} of {version.name!r}"
    advice = (
        f"`vlm-ops models {version.name}` lists other versions; `vlm-ops rollback --unasked` puts "
        f"this one back all the same, and the ledger says so."
    )
    try:
        recorded = Recorded.model_validate_json((folder / path).read_bytes())
        model = open_package(folder / FILES)
        if model.prompt != recorded.prompt:
            raise ModelError(f"expected the prompt {recorded.prompt!r}, found {model.prompt!r}")
        answers = _answers(model, recorded)
    except Exception as error:  # peft and safetensors have errors of their own
        raise RegistryError(
            f"{name} can't be asked its recorded questions: {error}. {advice}"
        ) from error
    changed = _changed(recorded, answers)
    other = differences(ground_of_answers(model.settings), recorded.ground)
    if not changed:
        where = f"on another ground ({other})" if other else "on the same ground"
        logger.info("%s: %d recorded questions, same answers %s", name, len(answers), where)
        return ""
    if not other:
        raise RegistryError(
            f"{name} is not the model that was registered: {changed}, computed with the same "
            f"libraries, kind of device and dtype. {advice}"
        )
    told = f"On another ground ({other}) it answers otherwise than it did: {changed}."
    logger.warning("%s: %s", name, told)
    return told


def _telling(answers: list[Answer]) -> list[Answer]:
    """Choose answers by which a model is known again: other kinds first, then other texts."""
    chosen: list[Answer] = []
    left = sorted(answers, key=lambda answer: fingerprint(answer.id))
    while left and len(chosen) < _COUNT:
        kinds, texts = [one.kind for one in chosen], [one.text for one in chosen]
        # Of several that are equally new the first one is taken.
        best = min(left, key=lambda one: (kinds.count(one.kind), texts.count(one.text)))
        left.remove(best)
        chosen.append(best)
    return chosen


def _answers(model: ModelRef, recorded: Recorded) -> list[str]:
    # These import torch and transformers, which no one who reads the registry has use for.
    from vlm_ops.models.generation import generate
    from vlm_ops.models.loading import load

    questions = recorded.questions
    return generate(
        load(model),
        [as_chat(model.asked(one.question), len(one.images), one.before) for one in questions],
        [one.pictures() for one in questions],
        max_new_tokens=recorded.max_new_tokens,
        batch_size=len(questions),
    )


def _changed(recorded: Recorded, answers: list[str]) -> str:
    """Name the first question that is answered otherwise, and how many are; empty if none is."""
    pairs = zip(recorded.questions, answers, strict=True)
    other = [(one, found) for one, found in pairs if found != one.answer]
    if not other:
        return ""
    first, found = other[0]
    return (
        f"asked {first.question!r} (row {first.id}), expected {first.answer!r}, found {found!r}; "
        f"{len(other)} of {len(answers)} recorded questions are answered otherwise"
    )
