from pathlib import Path

import numpy as np
import pytest
from squares import make_data

from vlm_ops.config.load import load_config
from vlm_ops.evaluation.outlook import expected, warnings


@pytest.mark.parametrize(("groups", "able"), [(1, False), (8, False), (9, True)])
def test_test_rows_of_too_few_groups_are_told_before_anything_is_trained(
    tmp_path: Path, groups: int, able: bool
) -> None:
    data = make_data(tmp_path / "data", {"train": 4, "validation": 20, "test": 4 * groups})
    said = warnings(data, load_config("demo"))
    assert bool(said) is not able
    if not able:
        assert said[0].startswith("the gate: no candidate can pass with ")
        assert said[0].endswith("test rows of 9 groups or more are needed")
        assert expected(np.full(groups, 8.0)).power == 0.0


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_validation_rows_of_too_few_groups_can_choose_nothing(tmp_path: Path, groups: int) -> None:
    data = make_data(tmp_path / "data", {"train": 4, "validation": 4 * groups, "test": 36})
    (said,) = warnings(data, load_config("demo"))
    assert "the sft model, which then always goes to the gate" in said
    assert said.endswith("validation rows of 5 groups or more are needed")
    for other in ("stages=[sft]", "validation.benchmarks=[chart-captions]"):
        assert not warnings(data, load_config("demo", [other]))


def test_what_the_gate_will_see_is_told_before() -> None:
    told = expected(np.full(10, 8.0), needed=-0.05)
    assert told.never is None
    assert told.sentence.startswith("with 10 groups this gate sees +4 points over the champion in ")
    assert "it asks for non-inferiority only, at most 5.0 points worse" in told.sentence
