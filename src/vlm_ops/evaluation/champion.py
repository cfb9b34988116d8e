"""Ask the current champion the rows that the candidate is measured on."""

from pathlib import Path

from vlm_ops.artifacts import ChampionAnswers, ModelRef, PreparedData
from vlm_ops.config.pipeline import ChampionJob
from vlm_ops.evaluation.answers import answer
from vlm_ops.tracker import Tracker


def ask_champion(
    job: ChampionJob, *, data: PreparedData, model: ModelRef, out: Path, tracker: Tracker
) -> ChampionAnswers:
    """Answer the test rows with the champion, unless its answers are stored already.

    Args:
        job: Prompt and decoding, the same as for the candidate.
        data: The rows.
        model: The champion's files.
        out: Folder of the record; answers lie beside it, by model content.
        tracker: Gets the score.

    Raises:
        ModelError: The champion can't be loaded.
    """
    answers = answer(
        model,
        data,
        "test",
        evaluate=job.evaluate,
        seed=job.seed,
        blind=False,
        runs=out.parent,
        name="champion",
    )
    tracker.metrics({"champion/relaxed_accuracy": answers.score.relaxed_accuracy})
    return ChampionAnswers(
        folder=out,
        content=answers.content,
        answers=answers.folder.name,
        score=answers.score,
    )
