"""The evaluate step: choose the candidate on validation, then read the test rows once."""

import logging
from pathlib import Path

from vlm_ops.artifacts import AnswerSet, Evaluation, ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import EvaluateJob
from vlm_ops.evaluation.answers import answer, majority
from vlm_ops.evaluation.asking import ModelRespondent, OneAtATime, OpenModel
from vlm_ops.evaluation.examples import log_examples, write_showcase
from vlm_ops.evaluation.report import write_report
from vlm_ops.evaluation.words import percent, signed
from vlm_ops.records import Score, Split
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_ROUNDING = 1e-9
_TRACKED = ("base", "sft", "candidate")


def evaluate(
    job: EvaluateJob,
    *,
    data: PreparedData,
    sft: TrainedAdapter,
    prefer: TrainedAdapter,
    out: Path,
    tracker: Tracker,
    open_model: OpenModel = ModelRespondent,
) -> Evaluation:
    """Choose between SFT and preference model on validation, then measure all on test.

    Args:
        job: Prompt, decoding and the loss that the preference model is allowed.
        data: Validation and test rows.
        sft: The SFT model.
        prefer: The preference model.
        out: Gets ``report.json``, ``report.md`` and, if there is such a chart,
            ``showcase.json`` with its picture. Answers lie beside it.
        tracker: Gets models, scores, the report and answers with pictures.
        open_model: Makes a respondent of a model.

    Returns:
        The evaluation, its model with the prompt of the rows. Beside ``base``, ``sft``,
        ``candidate``, ``blind`` (the SFT model on gray images) and ``majority``, its scores
        hold ``candidate_gray``: the candidate on gray images, equal to ``blind`` when the SFT
        model is the candidate.

    Raises:
        DataError: A split has no rows, or an image can't be opened.
        ModelError: A model can't be loaded.
    """
    for split in ("validation", "test"):
        rows = data.splits[split].rows
        tracker.dataset(split, data.content, context=split, rows=rows, source=data.source)
    sft, prefer = (_with_prompt(trained, data.prompt) for trained in (sft, prefer))
    models = {"base": sft.base, "sft": sft.model}
    logged = {name: tracker.model(name, ref) for name, ref in models.items()}
    with OneAtATime(open_model) as one:
        asking = _Asking(job, data, one, out.parent)
        validation = {
            name: asking.ask(name, trained.model, "validation").score
            for name, trained in (("sft", sft), ("prefer", prefer))
        }
        chosen, why = choose(validation, sft, prefer, job.max_loss_on_validation)
        logger.info("%s", why)
        models["candidate"] = chosen.model
        logged["candidate"] = tracker.model("candidate", chosen.model)
        sets = _read_test(asking, models)
    _track(tracker, validation, sets, why)
    write_report(out, sets, why=why, evaluate=job.evaluate, seed=job.seed, tracker=tracker)
    log_examples(data, sets, seed=job.seed, tracker=tracker)
    write_showcase(out, data, sets, seed=job.seed)
    return Evaluation(
        folder=out,
        content=_content(chosen, sets),
        candidate=chosen.stage,
        why=why,
        validation={name: score.relaxed_accuracy for name, score in validation.items()},
        model=chosen.model,
        answers={name: found.folder.name for name, found in sets.items()},
        scores={name: found.score for name, found in sets.items()},
        logged_models={name: uri for name, uri in logged.items() if uri is not None},
        protocol=sets["candidate"].protocol,
    )


def choose(
    validation: dict[str, Score],
    sft: TrainedAdapter,
    prefer: TrainedAdapter,
    max_loss: float,
) -> tuple[TrainedAdapter, str]:
    """Choose the candidate by relaxed accuracy on validation.

    Args:
        validation: Scores of ``sft`` and ``prefer``.
        sft: The SFT model.
        prefer: The preference model.
        max_loss: How far below ``sft`` the preference model may lie, 0..1.

    Returns:
        The preference model unless it lost more than that, and the reason in words.
    """
    ours, theirs = validation["prefer"].relaxed_accuracy, validation["sft"].relaxed_accuracy
    numbers = (
        f"{percent(ours)} on validation against sft's {percent(theirs)}: "
        f"{signed(ours - theirs)} points; a loss of up to {100 * max_loss:.1f} is allowed"
    )
    if theirs - ours <= max_loss + _ROUNDING:
        return prefer, f"prefer goes on as the candidate: {numbers}"
    return sft, f"sft goes on as the candidate, prefer lost too much: {numbers}"


def _with_prompt(trained: TrainedAdapter, prompt: str) -> TrainedAdapter:
    """Note the prompt that a model is measured with, so that it is served with it too."""
    base = trained.base.model_copy(update={"prompt": prompt})
    return trained.model_copy(update={"base": base})


class _Asking:
    """What all questions of one evaluation have in common."""

    def __init__(self, job: EvaluateJob, data: PreparedData, one: OneAtATime, runs: Path) -> None:
        self._job = job
        self._data = data
        self._one = one
        self._runs = runs

    def ask(self, name: str, ref: ModelRef, split: Split, *, blind: bool = False) -> AnswerSet:
        return answer(
            self._one.model(ref),
            self._data,
            split,
            evaluate=self._job.evaluate,
            seed=self._job.seed,
            blind=blind,
            runs=self._runs,
            name=name,
        )

    def majority(self) -> AnswerSet:
        job = self._job
        return majority(self._data, "test", evaluate=job.evaluate, seed=job.seed, runs=self._runs)


def _read_test(asking: _Asking, models: dict[str, ModelRef]) -> dict[str, AnswerSet]:
    """Ask every model; the candidate first, since it is often in memory from validation."""
    candidate = asking.ask("candidate", models["candidate"], "test")
    candidate_gray = asking.ask("candidate_gray", models["candidate"], "test", blind=True)
    sft = asking.ask("sft", models["sft"], "test")
    blind = asking.ask("blind", models["sft"], "test", blind=True)
    base = asking.ask("base", models["base"], "test")
    return {
        "base": base,
        "sft": sft,
        "candidate": candidate,
        "blind": blind,
        "candidate_gray": candidate_gray,
        "majority": asking.majority(),
    }


def _track(
    tracker: Tracker, validation: dict[str, Score], sets: dict[str, AnswerSet], why: str
) -> None:
    tracker.tags({"candidate": why})
    for stage, score in validation.items():
        tracker.metrics({f"validation/{stage}/relaxed_accuracy": score.relaxed_accuracy})
    for name, found in sets.items():
        numbers = {
            "relaxed_accuracy": found.score.relaxed_accuracy,
            "relaxed_accuracy_low": found.score.low,
            "relaxed_accuracy_high": found.score.high,
            "exact_match": found.score.exact_match,
        }
        for kind, score in found.by_kind.items():
            numbers[f"by_kind/{kind}"] = score.relaxed_accuracy
        if name in _TRACKED:
            tracker.metrics(numbers, model=name)
        else:
            tracker.metrics({f"{name}/{key}": value for key, value in numbers.items()})


def _content(chosen: TrainedAdapter, sets: dict[str, AnswerSet]) -> str:
    return fingerprint(
        {
            "candidate": [chosen.stage, chosen.model.content],
            "answers": {name: [found.model, found.content] for name, found in sets.items()},
            "scores": {name: found.score for name, found in sets.items()},
        }
    )
