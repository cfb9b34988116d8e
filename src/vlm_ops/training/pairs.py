"""Preference pairs: a model's own right answers against its own wrong ones, or labelled ones."""

import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.pairs import DatasetPairs, SampledPairs
from vlm_ops.config.pipeline import PairsJob
from vlm_ops.data.images import STORE, open_image
from vlm_ops.data.preferences import load_preferences
from vlm_ops.data.split import reserve
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import relaxed_match
from vlm_ops.models.generation import Sampling, sample
from vlm_ops.models.loading import LoadedModel, load
from vlm_ops.records import BARE_QUESTION, PreferencePair, Row, Split
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

FEWEST: dict[Split, int] = {"train": 16, "validation": 8}
"""With fewer sampled pairs than this, or than are asked for, nothing is trained on them."""

_ROWS_AT_ONCE = 128


class _Pairs(NamedTuple):
    train: list[PreferencePair]
    validation: list[PreferencePair]
    images: Path
    source: str
    counts: dict[str, int]


def make_pairs(
    job: PairsJob, *, data: PreparedData, sft: TrainedAdapter, out: Path, tracker: Tracker
) -> PreferencePairs:
    """Build preference pairs: sampled from the SFT model, or read from a labelled data set.

    Sampled pairs come from questions that the model answers both rightly and wrongly: what it
    never gets right it would have to guess at, and what it never gets wrong teaches nothing
    (Iterative Reasoning Preference Optimization, arXiv:2404.19733, section 2; :func:`own_pair`).

    Args:
        job: Which of the two, and how many.
        data: Rows; pairs are sampled on ``train`` (those rows of it that are reserved, if some
            are), held-out ones on ``validation``. Labelled pairs about its test images are dropped.
        sft: The model to sample from.
        out: Folder for ``train.jsonl`` and ``validation.jsonl``.
        tracker: Gets counts and examples.

    Returns:
        The pairs; too few sampled ones say so and are not trained on.

    Raises:
        DataError: A labelled data set has no pair to train on, or none to hold out.
    """
    if isinstance(job.pairs, DatasetPairs):
        made = _labelled(job, job.pairs, data, out)
    else:
        made = _sampled(job, job.pairs, data, load(sft.model), out)
    train, validation, images, source, counts = made
    too_few = _too_few(job.pairs, len(train), len(validation))
    for split, pairs in (("train", train), ("validation", validation)):
        write_jsonl(out / f"{split}.jsonl", pairs)
    logger.info("pairs: %d to train on, %d held out (%s)", len(train), len(validation), source)
    if too_few:
        logger.warning("pairs: %s", too_few)
    content = fingerprint([[p.model_dump() for p in train], [p.model_dump() for p in validation]])
    tracker.params(job.model_dump())
    tracker.metrics({"pairs": len(train), "held_out_pairs": len(validation), **counts})
    tracker.dataset("pairs", content, "preference training", len(train), source)
    tracker.table("pairs.json", _table(train[:200]))
    return PreferencePairs(
        folder=out,
        content=content,
        train=len(train),
        validation=len(validation),
        images=images,
        source=source,
        around=BARE_QUESTION,
        too_few=too_few,
    )


def _too_few(settings: DatasetPairs | SampledPairs, train: int, validation: int) -> str | None:
    """Say that there are too few pairs to learn from, if that is so."""
    if isinstance(settings, DatasetPairs):
        if train and validation:
            return None
        raise DataError(
            f"{settings.path or settings.id}: {train} pairs to train on and {validation} held out, "
            f"need at least one of each. Give more pairs, or another share pairs.validation."
        )
    needed = min(settings.max_pairs, FEWEST["train"])
    held_out = min(settings.max_validation_pairs, FEWEST["validation"])
    if train >= needed and validation >= held_out:
        return None
    return (
        f"{train} pairs to train on and {validation} held out, of questions that the SFT model "
        f"answers both rightly and wrongly; it takes {needed} and {held_out}. More rows, a higher "
        f"pairs.samples or pairs.temperature, or labelled pairs (pairs.type: dataset) give more"
    )


def _labelled(job: PairsJob, settings: DatasetPairs, data: PreparedData, out: Path) -> _Pairs:
    found = load_preferences(settings, data=data, out=out, seed=job.seed)
    counts = {f"dropped_{split}_pairs": count for split, count in found.dropped.items()}
    counts["refused_pairs"] = found.refused
    source = f"{settings.path or settings.id}"
    return _Pairs(found.train, found.held_out, STORE, source, counts)


def _sampled(
    job: PairsJob, settings: SampledPairs, data: PreparedData, model: LoadedModel, out: Path
) -> _Pairs:
    rows = {"train": data.rows("train"), "validation": data.rows("validation")}
    if settings.reserve:
        _, rows["train"] = reserve(rows["train"], settings.reserve, job.seed)
    asked = _Asked(job, settings, data, model)
    train = _pairs_on(_by_turns(rows["train"], job.seed), settings.max_pairs, asked)
    held_out = _pairs_on(
        _by_turns(rows["validation"], job.seed), settings.max_validation_pairs, asked
    )
    new = "new to it" if settings.reserve else "that it has learned"
    source = f"right and wrong answers sampled from the SFT model, on rows {new}"
    images = Path(os.path.relpath(data.folder / data.images, out))
    return _Pairs(train, held_out, images, source, {})


class _Asked(NamedTuple):
    """What rows are asked with."""

    job: PairsJob
    settings: SampledPairs
    data: PreparedData
    model: LoadedModel

    def answers(self, rows: Sequence[Row], seed: int) -> list[list[str]]:
        """Sample answers to each row."""
        pictures = [[open_image(self.data.image_path(i.path)) for i in row.images] for row in rows]
        samples = self.settings.samples
        sampling = Sampling(
            max_new_tokens=self.job.max_new_tokens,
            batch_size=max(1, self.job.batch_size // samples),
            temperature=self.settings.temperature,
            samples=samples,
            seed=seed,
        )
        questions = [row.asked_with(self.data.prompt).question for row in rows]
        said = sample(self.model, questions, pictures, sampling)
        return [said[start : start + samples] for start in range(0, len(said), samples)]


def _pairs_on(rows: Sequence[Row], limit: int, asked: _Asked) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        if len(pairs) >= limit:
            break
        chunk = rows[start : start + _ROWS_AT_ONCE]
        answers = asked.answers(chunk, asked.job.seed + start)
        found = (own_pair(row, said) for row, said in zip(chunk, answers, strict=True))
        pairs += [pair for pair in found if pair is not None]
        logger.info(
            "pairs: %d of at most %d, from %d of %d rows",
            min(limit, len(pairs)), limit, start + len(chunk), len(rows),
        )  # fmt: skip
    return pairs[:limit]


def own_pair(row: Row, said: Sequence[str]) -> PreferencePair | None:
    """Pair a model's own answers to a row: a right one with its most frequent wrong one.

    Args:
        row: With the answers that count.
        said: What the model answered, one sample after the other.

    Returns:
        The pair; None if all answers are right or all are wrong. Chosen is the expected answer if
        the model gave it, else its most frequent right one. Of equally frequent ones the first
        counts. Silence is no answer.
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for answer in filter(None, said):
        (right if relaxed_match(answer, row.answers) else wrong)[answer] += 1
    if not right or not wrong:
        return None
    expected = row.answers[0]
    chosen = expected if expected in right else right.most_common(1)[0][0]
    return pair_with(row, wrong.most_common(1)[0][0], chosen)


def _by_turns(rows: Iterable[Row], seed: int) -> list[Row]:
    """Shuffle rows and deal them kind by kind, so that any prefix holds every kind."""
    rng = random.Random(seed)
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    for group in kinds.values():
        rng.shuffle(group)
    dealt: list[Row] = []
    for turn in range(max((len(group) for group in kinds.values()), default=0)):
        dealt += [group[turn] for _, group in sorted(kinds.items()) if turn < len(group)]
    return dealt


def pair_with(row: Row, rejected: str, chosen: str | None = None) -> PreferencePair:
    """Pair a row's first accepted answer, or another right one, with a wrong one."""
    return PreferencePair(
        id=row.id,
        images=row.images,
        question=row.question,
        chosen=chosen or row.answers[0],
        rejected=rejected,
        kind=row.kind,
    )


def _table(pairs: Sequence[PreferencePair]) -> dict[str, list[str]]:
    columns = ("kind", "question", "chosen", "rejected")
    return {column: [getattr(pair, column) for pair in pairs] for column in columns}
