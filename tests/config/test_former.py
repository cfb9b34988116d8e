"""Settings that were renamed: the former name works, warns, and changes nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from vlm_ops.config.complaints import Places
from vlm_ops.config.former import with_present_names
from vlm_ops.config.gate import GateSettings
from vlm_ops.config.jobs import GateJob
from vlm_ops.config.load import from_json, load_config, resolved_json
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError
from vlm_ops.steps.plan import plan
from vlm_ops.store.frozen import Frozen


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def test_in_a_file_it_warns_with_the_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "name: a\ngate:\n  over_base: 0.1\n  over_blind: 0.25\n")
    gate = load_config(path).gate
    assert (gate.over_base, gate.over_gray) == (0.1, 0.25)
    assert caplog.messages == [f"{path}:4: gate.over_blind is called gate.over_gray now; rename it"]


def test_on_the_command_line_it_warns_and_wins_over_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "gate: {over_gray: 0.25}")
    assert load_config(path, ["gate.over_blind=0.2"]).gate.over_gray == 0.2
    assert caplog.messages == ["--set gate.over_blind is called gate.over_gray now; rename it"]


def test_a_present_name_on_the_command_line_wins_over_a_former_one_in_the_file(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "extends: demo\ngate: {over_blind: 0.25}")
    assert load_config(path, ["gate.over_gray=0.2"]).gate.over_gray == 0.2


def test_in_json_of_a_registered_configuration(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config("demo", ["gate.over_gray=0.2"])
    values = json.loads(resolved_json(config))
    values["gate"]["over_blind"] = values["gate"].pop("over_gray")
    assert from_json(json.dumps(values)) == config
    assert caplog.messages == [
        "resolved JSON: gate.over_blind is called gate.over_gray now; rename it"
    ]


def test_the_present_name_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    load_config("demo", ["gate.over_gray=0.2"])
    assert caplog.messages == []


def test_both_names_at_once_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "gate:\n  over_gray: 0.2\n  over_blind: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"{path}:3: gate.over_blind is the former name of gate.over_gray, which is given as well "
        f"({path}:2); keep gate.over_gray alone"
    )
    both = ["gate.over_blind=0.1", "gate.over_gray=0.2"]
    with pytest.raises(ConfigError, match=r"^--set gate\.over_blind is the former name of"):
        load_config("demo", both)


def test_what_is_wrong_with_the_value_is_said_under_the_present_name(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\ngate:\n  over_blind: 7\n")
    with pytest.raises(ConfigError, match=r"my\.yaml:3: gate\.over_gray: found 7, expected less"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"^--set gate\.over_gray: found 7, expected less"):
        load_config("demo", ["gate.over_blind=7"])


def test_fingerprints_do_not_depend_on_the_name() -> None:
    now, before = (
        load_config("demo", [f"gate.{name}=0.2"]) for name in ("over_gray", "over_blind")
    )
    other = load_config("demo", ["gate.over_gray=0.3"])
    gates = [plan("gate", config, {}).fingerprint for config in (now, before, other)]
    assert gates[0] == gates[1] != gates[2]


def test_a_job_of_the_version_before_is_read() -> None:
    job = {"seed": 0, "gate": {"over_blind": 0.2}, "resamples": 200}
    assert GateJob.model_validate(job).gate == GateSettings(over_gray=0.2)


class Inner(Frozen):
    renamed = {"old": "new", "gone": None}
    new: int = 0


class Outer(Frozen):
    renamed = {"before": "now"}
    now: Inner = Inner()


def test_sections_and_keys_below_them_are_renamed_and_a_gone_key_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = {"before": {"old": 3, "gone": 1}}
    places = Places("f")
    node = yaml.compose("before:\n  old: 3\n  gone: 1", Loader=yaml.SafeLoader)
    assert node is not None
    places.note(node)
    assert with_present_names(values, Outer, places) == {"now": {"new": 3}}
    assert places.at(("now", "new")) == "f:2: now.new"
    assert caplog.messages == [
        "f:1: before is called now now; rename it",
        "f:2: now.old is called now.new now; rename it",
        "f:3: now.gone is no setting any more and does nothing; remove it",
    ]


def test_every_former_name_leads_to_a_setting() -> None:
    seen: set[type[Frozen]] = set()
    todo: list[type[Frozen]] = [PipelineConfig]
    while todo:
        section = todo.pop()
        seen.add(section)
        for name in section.renamed.values():
            assert name is None or name in section.model_fields
        for field in section.model_fields.values():
            if isinstance(field.default, Frozen) and type(field.default) not in seen:
                todo.append(type(field.default))
    assert GateSettings in seen


def test_a_retired_setting_warns_and_stays_in_the_fingerprint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was part of what the preferred model's training was found by."""
    path = written(tmp_path, "prefer:\n  max_loss_on_validation: 0.5\n")
    assert load_config(path).prefer.max_loss_on_validation == 0.5
    assert caplog.messages == [
        f"{path}:2: prefer.max_loss_on_validation does nothing any more: the preferred model goes "
        f"on if it is better than the SFT model on validation beyond chance"
    ]


def test_a_retired_setting_that_nobody_chose_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from_json(resolved_json(load_config("demo")))
    assert caplog.messages == []


def test_a_margin_that_turned_a_comparison_off_is_null_but_the_champions_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "gate:\n  over_base: -1\n  over_blind: -1\n  over_champion: -1.0\n")
    gate = load_config(path).gate
    assert (gate.over_base, gate.over_gray, gate.over_champion) == (None, None, -0.1)
    assert [said for said in caplog.messages if "called" not in said] == [
        f"{path}:2: gate.over_base: -1 is read as null now",
        f"{path}:3: gate.over_gray: -1 is read as null now",
        f"{path}:4: gate.over_champion: -1 is read as -0.1 now",
    ]
