"""Reading a configuration, and what is said when it is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlm_ops.config.load import from_json, load_config, presets, resolved_json
from vlm_ops.config.pairs import DatasetPairs, DatasetThumbs
from vlm_ops.config.sections import ChartsData, FilesData, HubData
from vlm_ops.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def wrong(tmp_path: Path, text: str, *overrides: str) -> str:
    """Return what is said about a configuration, the file's name shortened."""
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(str(path), "my.yaml")


DEMOS = {"demo", "demo-benchmarks", "demo-shuffled"}


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_survives_json(name: str) -> None:
    config = load_config(name)
    assert config.name == name or name == "demo-shuffled"
    assert from_json(resolved_json(config)) == config


def test_presets_have_a_line_of_explanation() -> None:
    assert {*DEMOS, "smolvlm-2.2b-cookbook"} < {*presets()}
    others = {*presets()} - {*DEMOS, "smolvlm-2.2b-cookbook"}
    assert all(name.endswith("-chartqa-rlaifv") for name in others)
    assert all(20 < len(line) < 100 and line.endswith(".") for line in presets().values())


@pytest.mark.parametrize("name", sorted({*presets()} - DEMOS))
def test_hub_presets_pin_the_data_and_train_what_the_engine_is_fast_at(name: str) -> None:
    config = load_config(name)
    assert isinstance(config.data, HubData)
    assert isinstance(config.pairs, DatasetPairs)
    assert config.model.quantization == "nf4"
    assert config.sft.validation_rows == 400
    assert config.sft.batch_size * config.sft.accumulation == 16
    cookbook = name == "smolvlm-2.2b-cookbook"
    assert config.sft.lora.dora is cookbook
    assert (config.sft.lora.towers == ("text",) and not config.sft.lora.dropout) is not cookbook
    for commit in (config.data.revision, config.pairs.revision):
        assert commit is not None
        assert len(commit) == 40
    if name.startswith(("smolvlm-256m", "smolvlm-2.2b")):
        assert config.model.revision is not None
        assert len(config.model.revision) == 40


def test_the_shuffled_demo_differs_in_the_images_alone() -> None:
    demo, shuffled = load_config("demo"), load_config("demo-shuffled")
    assert not demo.data.shuffle_images
    assert shuffled == demo.model_copy(
        update={"data": demo.data.model_copy(update={"shuffle_images": True})}
    )


def test_the_example_for_own_data_loads() -> None:
    config = load_config(EXAMPLES / "own-data.yaml")
    assert isinstance(config.data, FilesData)
    assert config.data.path == EXAMPLES / "rows.jsonl"
    assert config.data.columns.group == "source"
    assert config.model.id == "tiny"


def test_nothing_heavy_is_imported() -> None:
    heavy = "torch transformers trl peft datasets mlflow prefect numpy PIL"
    code = (
        "import sys, vlm_ops.config.load, vlm_ops.config.pipeline, vlm_ops.config.sections;"
        "vlm_ops.config.load.load_config('demo');"
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_overrides_win_and_are_read_as_yaml() -> None:
    config = load_config(
        "demo", ["sft.learning_rate=3e-5", "sft.lora.towers=[text, vision]", "register.model=m"]
    )
    assert config.sft.learning_rate == 3e-5
    assert config.sft.lora.towers == ("text", "vision")
    assert config.registered_model == "m"


def test_an_override_of_the_type_starts_the_section_afresh() -> None:
    changes = ["data.path=rows.jsonl", "data.type=files"]
    data = load_config("demo-shuffled", changes).data
    assert data == FilesData(type="files", path=Path.cwd() / "rows.jsonl")


def test_a_section_may_leave_out_its_default_type(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("data:\n  train_charts: 9\npairs:\n  samples: 2\n")
    data = load_config(path).data
    assert isinstance(data, ChartsData)
    assert data.train_charts == 9


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "my.yaml").write_text(
        "extends: demo\nmodel: {id: ./weights}\n"
        "data: {type: files, path: a/rows.jsonl}\n"
        "pairs: {type: dataset, path: pairs.jsonl}\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("deep/my.yaml")
    assert isinstance(config.data, FilesData)
    assert isinstance(config.pairs, DatasetPairs)
    assert config.data.path == folder / "a" / "rows.jsonl"
    assert config.pairs.path == folder / "pairs.jsonl"
    assert config.model.id == str(folder / "weights")


def test_a_home_that_is_not_there_is_a_name_like_others(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "extends: demo\nmodel: {start: ~nosuchuser/a}\ndata: {type: files, path: ~nosuchuser/b}\n"
    )
    config = load_config(tmp_path / "my.yaml")
    assert config.model.start == str(tmp_path / "~nosuchuser/a")
    assert isinstance(config.data, FilesData)
    assert config.data.path == tmp_path / "~nosuchuser/b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: a\nsft:\n  learning_rat: 1",
            "my.yaml:3: sft.learning_rat: unknown key (did you mean 'learning_rate'?). Keys here:",
        ),
        (
            "modle: {}",
            "my.yaml:1: modle: unknown key (did you mean 'model'?). Keys here: name, seed, stages,",
        ),
        ("registre: {}", "registre: unknown key (did you mean 'register'?)"),
        (
            "sft:\n  lora:\n    rnk: 4",
            "my.yaml:3: sft.lora.rnk: unknown key (did you mean 'rank'?).",
        ),
        (
            "data:\n  path: a",
            "data.path: unknown key: it belongs to type files. Keys here: prompt,",
        ),
        (
            "data: {type: files, path: a, columns: {imag: x}}",
            "data.columns.imag: unknown key (did you mean 'image'?).",
        ),
        (
            "sft:\n  learning_rate: -1",
            "my.yaml:2: sft.learning_rate: found -1, expected greater than 0",
        ),
        (
            "sft: {scheduler: polynomial, learning_rate: 1.0e-7}",
            "sft: scheduler polynomial ends at 1e-07 and can't start at learning_rate 1e-07",
        ),
        ("sft: {epochs: many}", "sft.epochs: found 'many', expected a valid number"),
        ("sft: 3", "sft: found 3, expected keys below it"),
        (
            "model: {quantization: int3}",
            "model.quantization: found 'int3', expected 'nf4', 'int8' or 'none'",
        ),
        (
            "data: {type: file}",
            "found 'file', expected charts or files or hub (did you mean 'files'?)",
        ),
        ("data: {type: files}", "data.path is missing; data needs it"),
        ("data: {prompt: hello}", "data: prompt must contain {question}, found 'hello'"),
        (
            "data: {type: files, path: a, split: {validation: 0.5, test: 0.5}}",
            "data.split: validation 0.5 + test 0.5 leave nothing to train on",
        ),
        (
            "pairs: {type: dataset, id: a/b}",
            "pairs: id 'a/b' needs a revision: pin what is trained on",
        ),
        (
            "name: a\nprefer:\n  loss: [sigmoid, bco_pair, sft]\n  loss_weights: [0.8, 0.2]",
            "my.yaml:2: prefer: loss_weights has 2 numbers for 3 losses (sigmoid, bco_pair, sft); "
            "give one each, or none to weigh all by 1",
        ),
        (
            "prefer: {loss_weights: [0.5, 0.5]}",
            "prefer: mpo is a mixture with weights of its own and stands alone; for another one",
        ),
        (
            "stages: [prefer, sft]",
            "stages: found [prefer, sft], expected [sft], [prefer] or [sft, prefer]",
        ),
        (
            "prefer: {loss: [mpo, sft]}",
            "prefer: mpo is a mixture with weights of its own and stands alone; for another one",
        ),
        (
            "prefer: {loss: sigmoid, loss_weights: [0.5, 0.5]}",
            "prefer: loss_weights has 2 numbers for 1 losses (sigmoid); give one each",
        ),
        (
            "prefer: {loss: [sigmoid, exo_pair]}",
            "my.yaml:1: prefer: exo_pair needs label_smoothing above 0; its paper takes 0.001",
        ),
        (
            "prefer: {loss: [hinge, ipo], label_smoothing: 0.1}",
            "my.yaml:1: prefer: label_smoothing 0.1 does nothing: found loss [hinge, ipo], and "
            "only aot, aot_unpaired, exo_pair, robust read it; take one of these",
        ),
        (
            "prefer: {label_smoothing: 0.1}",
            "prefer: label_smoothing 0.1 does nothing: found loss [mpo]",
        ),
        (
            "prefer: {loss: kto, label_smoothing: 0.1}",
            "prefer: label_smoothing 0.1 does nothing: found loss [kto]",
        ),
        (
            "prefer: {loss: [kto, sft]}",
            "prefer: kto takes single answers and stands alone, found [kto, sft]; desirable_weight",
        ),
        (
            "prefer: {loss: apo_zero_unpaired, loss_weights: [0.5]}",
            "prefer: apo_zero_unpaired takes single answers and stands alone, found "
            "[apo_zero_unpaired] with loss_weights; desirable_weight",
        ),
        (
            "prefer: {loss: kto, batch_size: 1}",
            "prefer: kto estimates how far the policy has moved by the rows of a forward pass: ",
        ),
        (
            "prefer: {loss: kto, desirable_weight: 0}",
            "prefer.desirable_weight: found 0, expected greater than 0",
        ),
        (
            "pairs: {type: thumbs, path: a}",
            "pairs.type thumbs: a thumb is about one answer, and prefer.loss mpo compares two; set "
            "prefer.loss: kto",
        ),
        (
            "pairs: {type: thumbs, path: a, columns: {chosen: x}}",
            "pairs.columns.chosen: unknown key",
        ),
        (
            "pairs: {type: thumbs, path: a, max_pairs: 9}",
            "pairs.max_pairs: unknown key: it belongs to type sampled or dataset.",
        ),
        (
            "gate: {over_champion: 1.0}",
            "my.yaml:1: gate: over_champion 1.0 can never be passed: two accuracies differ by 1 at "
            "most, and the difference must lie above the margin; 0 asks for any gain beyond chance",
        ),
        ("gate: {floor: 70}", "gate.floor: found 70, expected less than or equal to 10"),
        ("a: [1\nb: 2", "my.yaml:2: not valid YAML"),
        ("- 1", "my.yaml: found a list, expected 'key: value' lines at the top"),
        (
            "name: a\nsft: {}\nname: b",
            "my.yaml:3: name stands here and on line 1; keep one of them",
        ),
        (
            "extends: dmo",
            "extends: there is no preset 'dmo' (did you mean 'demo'?). Presets: demo,",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    assert said in wrong(tmp_path, text)


def test_losses_that_fit_together_are_taken() -> None:
    mixture = ["prefer.loss=[sigmoid, bco_pair, sft]", "prefer.loss_weights=[0.8, 0.2, 1.0]"]
    prefer = load_config("demo", mixture).prefer
    assert (prefer.loss, prefer.loss_weights) == (("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0))
    exo = load_config("demo", ["prefer.loss=[exo_pair]", "prefer.label_smoothing=0.001"]).prefer
    assert exo.label_smoothing == 0.001
    mixed = load_config("demo", ["prefer.loss=[sigmoid, robust]", "prefer.label_smoothing=0.1"])
    assert mixed.prefer.label_smoothing == 0.1


def test_thumbs_take_kto_and_pairs_take_it_too() -> None:
    thumbs = ["pairs={type: thumbs, path: thumbs.jsonl}", "prefer.loss=kto"]
    config = load_config("demo", thumbs)
    assert isinstance(config.pairs, DatasetThumbs)
    assert config.pairs.path == Path.cwd() / "thumbs.jsonl"
    assert config.prefer.unpaired == "kto"
    assert load_config("demo", thumbs[1:]).prefer.unpaired == "kto"
    assert load_config("demo", [thumbs[0], "stages=[sft]"]).prefer.unpaired is None


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = wrong(tmp_path, "sft: {epochs: 0}\nprefer: {beta: 0}\nextra: 1")
    assert len(said.splitlines()) == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.epochs", "'sft.epochs': expected key.path=value, as in sft.learning_rate=1e-4"),
        ("sft.epochs=0", "--set sft.epochs: found 0, expected greater than 0"),
        ("sft.epoch=1", "--set sft.epoch: unknown key (did you mean 'epochs'?)."),
        ("sft.epochs=[", "the value is not valid YAML"),
    ],
)
def test_what_is_wrong_with_an_override_is_said(tmp_path: Path, override: str, said: str) -> None:
    assert said in wrong(tmp_path, "name: a", override)


def test_an_override_of_the_type_names_it_once(tmp_path: Path) -> None:
    said = wrong(tmp_path, "name: a", "data.type=fils")
    assert said.startswith("--set data.type: found 'fils', expected charts or files or hub")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "resolved JSON: found '[]', expected an object"),
        ("{", "resolved JSON: not valid JSON"),
        ('{"sft": {"epochs": 0}}', "resolved JSON: sft.epochs: found 0, expected greater than 0"),
    ],
)
def test_what_is_wrong_with_json_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "demoo",
            "neither a preset nor a file of that name (did you mean 'demo'?). Presets: demo,",
        ),
        ("nowhere/my.yaml", "nowhere/my.yaml: there is neither a preset nor a file"),
        (".", "found a folder, expected a preset or a YAML file"),
    ],
)
def test_a_missing_file_lists_the_presets(source: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(source)
    assert said in str(caught.value)
