"""Preference pairs: what the model gets wrong by itself, against what is verified."""

import logging
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import PairsJob
from vlm_ops.config.sections import DatasetPairs, SampledPairs
from vlm_ops.data.images import STORE, open_image
from vlm_ops.data.preferences import load_preferences
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import number, relaxed_match
from vlm_ops.models.generation import Sampling, sample
from vlm_ops.models.loading import LoadedModel, load
from vlm_ops.records import BARE_QUESTION, PreferencePair, Row, Split
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

FEWEST: dict[Split, int] = {"train": 16, "validation": 8}
"""A part for which sampling finds fewer pairs is filled up to this many."""

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
    (Iterative Reasoning Preference Optimization, arXiv:2404.19733, section 2). A part with
    fewer than ``FEWEST`` of them is filled up to that number with answers that are right for
    other rows of the same kind.

    Args:
        job: Which of the two, and how many.
        data: Rows; pairs are sampled on ``train``, held-out ones on ``validation``.
            Labelled pairs about its test images are dropped.
        sft: The model to sample from.
        out: Folder for ``train.jsonl`` and ``validation.jsonl``.
        tracker: Gets counts and examples.

    Raises:
        DataError: There is no pair to train on.
    """
    if isinstance(job.pairs, DatasetPairs):
        made = _labelled(job, job.pairs, data, out)
    else:
        made = _sampled(job, job.pairs, data, load(sft.model), out)
    train, validation, images, source, counts = made
    if not train or not validation:
        raise DataError(
            f"pairs: {len(train)} pairs to train on and {len(validation)} held out, need at "
            f"least one of each; source: {source}. Give more rows, raise pairs.samples or "
            f"pairs.temperature, or give labelled pairs (pairs.type: dataset)."
        )
    for split, pairs in (("train", train), ("validation", validation)):
        write_jsonl(out / f"{split}.jsonl", pairs)
    logger.info("pairs: %d to train on, %d held out (%s)", len(train), len(validation), source)
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
    wanted: dict[Split, int] = {
        "train": settings.max_pairs,
        "validation": settings.max_validation_pairs,
    }
    parts: list[list[PreferencePair]] = []
    sampled = borrowed = 0
    for split, limit in wanted.items():
        rows = _by_turns(data.rows(split), job.seed)
        own = _sample_split(job, settings, data, model, rows, limit)
        missing = min(limit, FEWEST[split]) - len(own)
        others = _near_misses(rows, {pair.id for pair in own}, missing, job.seed)
        sampled, borrowed = sampled + len(own), borrowed + len(others)
        parts.append(own + others)
        if others:
            logger.warning(
                "pairs: %d sampled on %s, %d borrowed to make it %d",
                len(own), split, len(others), len(parts[-1]),
            )  # fmt: skip
    source = f"{sampled} wrong answers sampled from the SFT model"
    if borrowed:
        source += f", {borrowed} borrowed from other rows of the kind"
    counts = {"sampled_pairs": sampled, "borrowed_pairs": borrowed}
    images = Path(os.path.relpath(data.folder / data.images, out))
    return _Pairs(parts[0], parts[1], images, source, counts)


def _sample_split(
    job: PairsJob,
    settings: SampledPairs,
    data: PreparedData,
    model: LoadedModel,
    rows: Sequence[Row],
    limit: int,
) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        if len(pairs) >= limit:
            break
        chunk = rows[start : start + _ROWS_AT_ONCE]
        pictures = [[open_image(data.image_path(i.path)) for i in row.images] for row in chunk]
        wrong: dict[str, str] = {}
        right: set[str] = set()
        sampling = Sampling(
            max_new_tokens=job.max_new_tokens,
            batch_size=max(1, job.batch_size // settings.samples),
            temperature=settings.temperature,
            samples=settings.samples,
            seed=job.seed + start,
        )
        questions = [row.asked_with(data.prompt).question for row in chunk]
        answers = sample(model, questions, pictures, sampling)
        asked = [row for row in chunk for _ in range(settings.samples)]
        for row, answer in zip(asked, answers, strict=True):
            if relaxed_match(answer, row.answers):
                right.add(row.id)
            elif answer:
                wrong.setdefault(row.id, answer)
        pairs += [pair_with(row, wrong[row.id]) for row in chunk if row.id in wrong.keys() & right]
        logger.info(
            "pairs: %d of at most %d, from %d of %d rows",
            min(limit, len(pairs)), limit, start + len(chunk), len(rows),
        )  # fmt: skip
    return pairs[:limit]


def _near_misses(
    rows: Sequence[Row], taken: set[str], missing: int, seed: int
) -> list[PreferencePair]:
    """Pair rows with answers that are right for others of their kind, a number with a number."""
    rng = random.Random(seed)
    answers: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for row in rows:
        answers[_sort(row)].append(row.answers[0])
    pairs: list[PreferencePair] = []
    for row in rows:
        if len(pairs) >= missing:
            break
        others = [text for text in answers[_sort(row)] if not relaxed_match(text, row.answers)]
        if row.id not in taken and others:
            pairs.append(pair_with(row, rng.choice(others)))
    return pairs


def _sort(row: Row) -> tuple[str, bool]:
    return row.kind, number(row.answers[0]) is None


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


def pair_with(row: Row, rejected: str) -> PreferencePair:
    """Pair a row's first accepted answer with another one."""
    return PreferencePair(
        id=row.id,
        images=row.images,
        question=row.question,
        chosen=row.answers[0],
        rejected=rejected,
        kind=row.kind,
    )


def _table(pairs: Sequence[PreferencePair]) -> dict[str, list[str]]:
    columns = ("kind", "question", "chosen", "rejected")
    return {column: [getattr(pair, column) for pair in pairs] for column in columns}
