"""Answers that are longer than a model is let speak."""

import subprocess
import sys
from pathlib import Path

from squares import make_data

from vlm_ops.config.sections import ModelSettings
from vlm_ops.evaluation.lengths import long_answers
from vlm_ops.records import SPLITS


def test_answers_that_a_model_can_not_end_are_counted(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", {"train": 4, "validation": 4, "test": 4})
    assert long_answers(data, ModelSettings(), 8) == []
    train = data.rows("train")
    longer = train[0].model_copy(update={"answers": ("a very long answer of many words", "1")})
    lines = [row.model_dump_json() for row in (longer, *train[1:])]
    (data.folder / "train.jsonl").write_text("\n".join(lines))
    (said,) = long_answers(data, ModelSettings(), 4)
    total = sum(len(data.rows(split)) for split in SPLITS)
    assert f"1 of {total} answers are longer than 4 tokens (evaluate.max_new_tokens)" in said


def test_a_model_that_is_not_there_is_for_whoever_loads_it_to_tell(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", {"train": 4, "validation": 4, "test": 4})
    assert long_answers(data, ModelSettings(id=str(tmp_path)), 1) == []


def test_counting_tokens_loads_no_torch() -> None:
    code = (
        "import sys; from vlm_ops.config.sections import ModelSettings;"
        "from vlm_ops.models.tokens import token_counts;"
        "assert token_counts(ModelSettings(), ['Brown', '']) == [1, 0];"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
