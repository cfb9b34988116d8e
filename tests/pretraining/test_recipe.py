"""The shipped base can be made again: its recipe, its log, its card and the code say the same."""

import json
import re
from pathlib import Path

import pytest

from vlm_ops.errors import ConfigError
from vlm_ops.models.tiny import weights_folder
from vlm_ops.pretraining.recipe import TinyRecipe, read_recipe
from vlm_ops.pretraining.report import write_report

SHIPPED = weights_folder()


def test_the_shipped_recipe_is_what_the_code_does_by_default() -> None:
    recipe = read_recipe(SHIPPED / "recipe-stage1.json")
    assert recipe == TinyRecipe()
    assert recipe.lessons == {"cell": 0.5}


def test_its_log_ends_with_the_recipe_and_its_card_has_the_log_s_scores(tmp_path: Path) -> None:
    log = SHIPPED / "log-stage1.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["step"] == TinyRecipe().steps
    write_report(log, tmp_path)
    assert (tmp_path / "scores.md").read_text() in (SHIPPED / "README.md").read_text()


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    recipe = TinyRecipe(mix="told", gaze_weight=0.5, start_from=Path("stage1"))
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    assert read_recipe(path) == recipe
    assert recipe.lessons == {"cell": 0.5, "gaze": 0.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"gaze": 1}', "gaze: .* The keys are: seed, .*gaze_weight"), ("[]", "not a recipe")],
)
def test_what_is_no_recipe_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path)) + f".*{told}"):
        read_recipe(path)
    with pytest.raises(ConfigError, match=r"missing\.json: can't be read"):
        read_recipe(tmp_path / "missing.json")
