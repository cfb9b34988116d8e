"""Preference pairs: what the model gets wrong by itself, against what is verified."""

import logging
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlm_ops.artifacts import PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import PairsJob
from vlm_ops.config.sections import DatasetPairs, SampledPairs
from vlm_ops.data.images import open_image
from vlm_ops.data.preferences import load_preferences
from vlm_ops.errors import DataError
from vlm_ops.evaluation.metrics import relaxed_match
from vlm_ops.fingerprint import fingerprint
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import LoadedModel, load
from vlm_ops.records import Conversation, PreferencePair, write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 128


def make_pairs(
    job: PairsJob, *, data: PreparedData, sft: TrainedAdapter, out: Path, tracker: Tracker
) -> PreferencePairs:
    """Build preference pairs: sampled from the SFT model, or read from a labelled data set.

    Sampled pairs come from questions that the model answers both rightly and wrongly: what it
    never gets right it would have to guess at, and what it never gets wrong teaches nothing
    (Iterative Reasoning Preference Optimization, arXiv:2404.19733, section 2).

    Args:
        job: Which of the two, and how many.
        data: Conversations; pairs are sampled on ``train``, held-out ones on ``validation``.
        sft: The model to sample from.
        out: Folder for ``train.jsonl`` and ``validation.jsonl``.
        tracker: Gets counts and examples.

    Raises:
        DataError: There is no pair to train on.
    """
    if isinstance(job.pairs, DatasetPairs):
        train, validation = load_preferences(job.pairs, out=out, seed=job.seed)
        images, source = Path(), f"{job.pairs.path or job.pairs.id}"
    else:
        train, validation = _sample(job, job.pairs, data, load(sft.model))
        images = Path(os.path.relpath(data.folder, out))
        source = "wrong answers sampled from the SFT model"
    if not train or not validation:
        raise DataError(
            f"pairs: {len(train)} pairs to train on and {len(validation)} held out, need at "
            f"least one of each; source: {source}"
        )
    for split, pairs in (("train", train), ("validation", validation)):
        write_jsonl(out / f"{split}.jsonl", pairs)
    logger.info("pairs: %d to train on, %d held out (%s)", len(train), len(validation), source)
    content = fingerprint([[p.model_dump() for p in train], [p.model_dump() for p in validation]])
    tracker.params(job.model_dump())
    tracker.metrics({"pairs": len(train), "held_out_pairs": len(validation)})
    tracker.dataset("pairs", content, "preference training", len(train), source)
    tracker.table("pairs.json", _table(train[:200]))
    return PreferencePairs(
        folder=out,
        content=content,
        train=len(train),
        validation=len(validation),
        images=images,
        source=source,
    )


def _sample(
    job: PairsJob, settings: SampledPairs, data: PreparedData, model: LoadedModel
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    wanted = {"train": settings.max_pairs, "validation": settings.max_validation_pairs}
    found: dict[str, list[PreferencePair]] = {}
    for split, limit in wanted.items():
        rows = _by_turns(data.rows("train" if split == "train" else "validation"), job.seed)
        found[split] = _sample_split(job, settings, data, model, rows, limit)
    return found["train"], found["validation"]


def _sample_split(
    job: PairsJob,
    settings: SampledPairs,
    data: PreparedData,
    model: LoadedModel,
    rows: Sequence[Conversation],
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
        for sample in range(settings.samples):
            answers = generate(
                model,
                [row.question for row in chunk],
                pictures,
                max_new_tokens=job.evaluate.max_new_tokens,
                batch_size=job.evaluate.batch_size,
                temperature=settings.temperature,
                seed=job.seed + start * settings.samples + sample,
            )
            for row, answer in zip(chunk, answers, strict=True):
                if relaxed_match(answer, row.answers):
                    right.add(row.id)
                elif answer:
                    wrong.setdefault(row.id, answer)
        pairs += [_pair(row, wrong[row.id]) for row in chunk if row.id in wrong.keys() & right]
        logger.info(
            "pairs: %d of at most %d, from %d of %d rows",
            min(limit, len(pairs)), limit, start + len(chunk), len(rows),
        )  # fmt: skip
    pairs += _near_misses(rows, {pair.id for pair in pairs}, limit - len(pairs), job.seed)
    return pairs[:limit]


def _near_misses(
    rows: Sequence[Conversation], taken: set[str], missing: int, seed: int
) -> list[PreferencePair]:
    """Fill up with wrong answers that are right for other rows of the same kind."""
    rng = random.Random(seed)
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        answers[row.kind].append(row.answers[0])
    pairs: list[PreferencePair] = []
    for row in rows:
        if len(pairs) >= missing:
            break
        others = [text for text in answers[row.kind] if not relaxed_match(text, row.answers)]
        if row.id not in taken and others:
            pairs.append(_pair(row, rng.choice(others)))
    return pairs


def _by_turns(rows: Iterable[Conversation], seed: int) -> list[Conversation]:
    """Shuffle rows and deal them kind by kind, so that any prefix holds every kind."""
    rng = random.Random(seed)
    kinds: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    for group in kinds.values():
        rng.shuffle(group)
    dealt: list[Conversation] = []
    for turn in range(max((len(group) for group in kinds.values()), default=0)):
        dealt += [group[turn] for _, group in sorted(kinds.items()) if turn < len(group)]
    return dealt


def _pair(row: Conversation, rejected: str) -> PreferencePair:
    return PreferencePair(
        id=row.id,
        images=row.images,
        question=row.question,
        chosen=row.answers[0],
        rejected=rejected,
        kind=row.kind,
        cluster=row.cluster,
    )


def _table(pairs: Sequence[PreferencePair]) -> dict[str, list[str]]:
    columns = ("kind", "question", "chosen", "rejected")
    return {column: [getattr(pair, column) for pair in pairs] for column in columns}
