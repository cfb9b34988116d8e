"""Preferences: a model's own right answers against its own wrong ones; labelled pairs; thumbs."""

import logging
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import Preference, PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import PairsJob
from vlm_ops.config.pairs import Labelled, PreferenceForm, SampledPairs
from vlm_ops.data.images import STORE
from vlm_ops.data.preferences import Preferences, load_preferences
from vlm_ops.data.split import reserve
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.shown import kept
from vlm_ops.models.features import load_with_features
from vlm_ops.models.generation import Sampling, sample
from vlm_ops.models.loading import LoadedModel, start_ref
from vlm_ops.models.room import Room
from vlm_ops.models.start import find_start
from vlm_ops.records import BARE_QUESTION, PreferencePair, Row, Split, Thumb
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.fits import rows_at_once
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker
from vlm_ops.training.mistakes import Forms, own_pair

logger = logging.getLogger(__name__)

FEWEST: dict[Split, int] = {"train": 16, "validation": 8}
"""With fewer mistakes of the model's own (or than are asked for) nothing is trained on them."""

_ROWS_AT_ONCE = 128


class _Pairs(NamedTuple):
    train: Sequence[Preference]
    validation: Sequence[Preference]
    images: Path
    source: str
    counts: dict[str, int]
    too_few: str | None = None
    form: PreferenceForm = "pairs"


def make_pairs(
    job: PairsJob,
    *,
    data: PreparedData,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
    **benchmarks: PreparedData,
) -> PreferencePairs:
    """Build pairs, sampled from a model or read from a labelled data set, or read thumbs.

    Sampled pairs come from questions that the model answers rightly at least once (Iterative
    Reasoning Preference Optimization, arXiv:2404.19733, section 2); what is rejected says
    :mod:`vlm_ops.training.mistakes`.

    Args:
        job: Which of the three, and how many.
        data: Rows; pairs are sampled on ``train`` (those rows of it that are reserved, if some
            are), held-out ones on ``validation``. Labelled ones about its test images are dropped.
        out: Folder for ``train.jsonl`` and ``validation.jsonl``.
        tracker: Gets counts and examples.
        sft: The model to sample from; None for what the job's model starts at.
        **benchmarks: Rows that no labelled pair may show; sampled ones show none of them anyway.

    Returns:
        The pairs; too few sampled ones say so and are not trained on.

    Raises:
        DataError: A labelled data set has nothing to train on or to hold out, or all thumbs agree.
    """
    if isinstance(job.pairs, Labelled):
        asked = tuple(benchmarks.values())
        found = load_preferences(job.pairs, data=data, out=out, seed=job.seed, benchmarks=asked)
        made = _labelled(found, job.pairs)
    else:
        model = _model(job, data, sft, Room.beside(out, job.features))
        made = _sampled(job, job.pairs, data, model, out)
    content = _write(made, out)
    _tell(made, content, job, tracker)
    return PreferencePairs(
        folder=out,
        content=content,
        form=made.form,
        train=len(made.train),
        validation=len(made.validation),
        images=made.images,
        source=made.source,
        around=BARE_QUESTION,
        too_few=made.too_few,
    )


def _write(made: "_Pairs", out: Path) -> str:
    """Write both parts, and return the hash of what is in them."""
    parts = (made.train, made.validation)
    for name, pairs in zip(("train", "validation"), parts, strict=True):
        write_jsonl(out / f"{name}.jsonl", pairs)
    return fingerprint([[pair.model_dump() for pair in pairs] for pairs in parts])


def _tell(made: _Pairs, content: str, job: PairsJob, tracker: Tracker) -> None:
    train, held_out, form = len(made.train), len(made.validation), made.form
    logger.info("%s: %d to train on, %d held out (%s)", form, train, held_out, made.source)
    if made.too_few:
        logger.warning("pairs: %s", made.too_few)
    tracker.params(job.model_dump())
    tracker.metrics({form: train, f"held_out_{form}": held_out, **made.counts})
    tracker.dataset(form, content, "preference training", train, made.source)
    tracker.table(f"{form}.json", _table(made.train[:200]))


def _model(
    job: PairsJob, data: PreparedData, sft: TrainedAdapter | None, room: Room
) -> LoadedModel:
    if sft is not None:
        return load_with_features(sft.model, room)
    assert job.model is not None  # the table's: there is an SFT model, or the base
    base = start_ref(job.model).model_copy(update={"prompt": data.prompt})
    return load_with_features(base, room)


def _too_few(settings: SampledPairs, train: int, validation: int) -> str | None:
    """Say that the model makes too few mistakes of its own to learn from, if that is so."""
    needed = min(settings.max_pairs, FEWEST["train"])
    held_out = min(settings.max_validation_pairs, FEWEST["validation"])
    if train >= needed and validation >= held_out:
        return None
    return (
        f"{train} mistakes to train on and {validation} held out, on questions that the model "
        f"also answers rightly; it takes {needed} and {held_out}. More rows, a higher "
        f"pairs.samples or pairs.temperature, or labelled pairs (pairs.type: dataset) give more"
    )


def _labelled(found: Preferences, settings: Labelled) -> _Pairs:
    form = settings.form
    counts = {f"dropped_{split}_{form}": count for split, count in found.dropped.items()}
    counts |= {f"refused_{form}": found.refused, f"left_out_{form}": found.left_out}
    source = f"{settings.path or settings.id}"
    thumbs = [one for one in (*found.train, *found.held_out) if isinstance(one, Thumb)]
    if thumbs:
        up = sum(thumb.label for thumb in thumbs)
        counts["thumbs_up"] = up
        source += f": {up} thumbs up, {len(thumbs) - up} down"
    return _Pairs(found.train, found.held_out, STORE, source, counts, form=form)


def _sampled(
    job: PairsJob, settings: SampledPairs, data: PreparedData, model: LoadedModel, out: Path
) -> _Pairs:
    rows, held_out = data.rows("train"), data.rows("validation")
    forms = Forms(rows, find(job.metric))
    if settings.reserve and job.model is None:
        _, rows = reserve(rows, settings.reserve, job.seed)
    at_once = rows_at_once(max(1, job.batch_size // settings.samples), out)
    asked = _Asked(job, settings, data, model, forms, at_once)
    train, learned = _pairs_on(_by_turns(rows, job.seed), settings.max_pairs, asked)
    rest, chosen_by = _pairs_on(_by_turns(held_out, job.seed), settings.max_validation_pairs, asked)
    mistakes = learned + chosen_by
    near = len(train) + len(rest) - mistakes
    tuned = job.model is None
    new = "that it has learned" if tuned and not settings.reserve else "new to it"
    start = None if job.model is None else find_start(job.model)
    whose = "the SFT model's" if tuned else f"{start}'s" if start else "the base's"
    source = f"{mistakes} mistakes of {whose} own and {near} near misses, on rows {new}"
    counts = {"mistakes": mistakes, "near_misses": near}
    images = Path(os.path.relpath(data.folder / data.images, out))
    return _Pairs(train, rest, images, source, counts, _too_few(settings, learned, chosen_by))


class _Asked(NamedTuple):
    """What rows are asked with, and how many of them at once."""

    job: PairsJob
    settings: SampledPairs
    data: PreparedData
    model: LoadedModel
    forms: Forms
    at_once: int

    def answers(self, rows: Sequence[Row], seed: int) -> list[list[str]]:
        """Sample answers to each row."""
        pictures = [kept(row.images, self.data.image_path) for row in rows]
        samples = self.settings.samples
        sampling = Sampling(
            max_new_tokens=self.job.max_new_tokens,
            batch_size=self.at_once,
            temperature=self.settings.temperature,
            samples=samples,
            seed=seed,
        )
        chats = [row.asked_with(self.data.prompt).chat for row in rows]
        said = sample(self.model, chats, pictures, sampling)
        return [said[start : start + samples] for start in range(0, len(said), samples)]


def _pairs_on(rows: Sequence[Row], limit: int, asked: _Asked) -> tuple[list[PreferencePair], int]:
    """Return pairs on rows, and how many of them reject a mistake of the model's own."""
    pairs: list[PreferencePair] = []
    own: list[bool] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        if len(pairs) >= limit:
            break
        chunk = rows[start : start + _ROWS_AT_ONCE]
        answers = asked.answers(chunk, asked.job.seed + start)
        for row, said in zip(chunk, answers, strict=True):
            pair = own_pair(row, said, asked.forms)
            # Near misses keep what is known; of them alone nothing is learned.
            if pair is not None and (pair.rejected in said or own.count(False) < limit // 2):
                pairs.append(pair)
                own.append(pair.rejected in said)
        logger.info(
            "pairs: %d of at most %d, from %d of %d rows",
            min(limit, len(pairs)), limit, start + len(chunk), len(rows),
        )  # fmt: skip
    return pairs[:limit], sum(own[:limit])


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


def _table(given: Sequence[Preference]) -> dict[str, list[str]]:
    thumbs = any(isinstance(one, Thumb) for one in given)
    said = ("completion", "label") if thumbs else ("chosen", "rejected")
    columns = {"kind": "kind", "question": "transcript", **dict(zip(said, said, strict=True))}
    return {name: [str(getattr(one, field)) for one in given] for name, field in columns.items()}
