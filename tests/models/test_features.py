"""Features are computed once while that pays, equal the tower's own, and damage is noticed."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pictures import picture
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import DataError
from vlm_ops.evaluation.shown import kept
from vlm_ops.models import feature_files
from vlm_ops.models.blocks import Blocks
from vlm_ops.models.features import FeatureStore, identity_of
from vlm_ops.models.loading import base_ref
from vlm_ops.models.pictures import Kept
from vlm_ops.models.room import Room
from vlm_ops.pretraining.architecture import build_processor

BYTES = 64 * 256 * 4
"""Of one image's features: 64 tokens of width 256 in float32."""

ROOM = ("own", "shared", "memory_bytes", "disk_bytes")

Make = Callable[..., FeatureStore]


@pytest.fixture
def images(tmp_path: Path) -> list[Kept]:
    found = [picture(tmp_path, number, width=96 + 8 * number) for number in range(4)]
    return kept(found, tmp_path.joinpath)


@pytest.fixture
def tiny(random_tiny: Idefics3ForConditionalGeneration) -> Any:
    """A copy whose tower is frozen."""
    return copy.deepcopy(random_tiny).requires_grad_(False)


@pytest.fixture
def make(tiny: Any, tiny_processor: Idefics3Processor, images: list[Kept], tmp_path: Path) -> Make:
    """Make a store; every image is needed twice, unless it is told otherwise."""

    def store(**changes: Any) -> FeatureStore:
        room: dict[str, Any] = {"own": tmp_path / "features", "shared": tmp_path / "shared"}
        room |= {name: changes.pop(name) for name in ROOM if name in changes}
        options: dict[str, Any] = {
            "model": tiny,
            "blocks": Blocks(tiny_processor),
            "uses": {image.image.sha256: 2 for image in images},
            "identity": "these weights",
            "room": Room(**room),
            **changes,
        }
        return FeatureStore(**options)

    return store


def look(store: FeatureStore, *images: Kept) -> list[torch.Tensor]:
    outputs = store.outputs(images)
    assert outputs is not None
    assert list(outputs) == ["image"]
    features: Any = outputs["image"].pooler_output
    return list(features)


def own(model: Any, processor: Any, image: Kept) -> torch.Tensor:
    """What the model makes of the image by itself."""
    inputs = processor.image_processor([[image.open()]], return_tensors="pt")
    with torch.no_grad():
        (features,) = model.get_image_features(**inputs).pooler_output
    found: torch.Tensor = features
    return found


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*"))


def test_features_are_those_of_the_image_alone_in_the_order_asked(
    make: Make, tiny: Any, tiny_processor: Any, images: list[Kept], tmp_path: Path
) -> None:
    expected = [own(tiny, tiny_processor, image) for image in images]
    assert (expected[0] - expected[1]).abs().max() > 0.01
    store = make()
    same(look(store, *images), expected)
    a, b, c, d = expected
    same(look(store, images[2], images[0], images[2]), [c, a, c])
    same(look(make(), images[3], images[1], images[3]), [d, b, d])


def test_features_are_the_same_bits_in_any_company(
    make: Make, tiny: Any, images: list[Kept]
) -> None:
    """A training that goes on meets its images in other passes than one never cut off."""
    tiny.to(torch.bfloat16)
    together = look(make(), *images)
    for count in (1, 2, 3):
        for one, other in zip(look(make(), *images[:count]), together, strict=False):
            assert torch.equal(one, other)


def test_an_image_of_several_tiles_is_one_of_them(make: Make, tiny: Any, tmp_path: Path) -> None:
    """Many tiles go through the tower in several passes, each padded to its longest image."""
    processor: Any = build_processor()
    processor.image_processor.do_image_splitting = True
    processor.image_processor.size = {"longest_edge": 512}
    shapes = [(96, 96), (200, 60), (60, 200), (128, 64), (64, 64)]
    images = kept([picture(tmp_path, 9, *shape) for shape in shapes], tmp_path.joinpath)
    expected = [own(tiny, processor, image) for image in images]
    assert {len(features) // 64 for features in expected} == {17, 9}
    same(look(make(blocks=Blocks(processor)), *images), expected)


def test_an_image_needed_twice_is_encoded_once(make: Make, images: list[Kept]) -> None:
    store = make()
    first = look(store, images[0], images[1], images[0])
    assert (store.usage.computed, store.usage.reused) == (2, 0)
    assert store.usage.seconds > 0
    look(store, images[2])
    again = look(store, images[0], images[1], images[0])
    assert (store.usage.computed, store.usage.reused) == (3, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert store.usage.memory_bytes == 3 * BYTES
    assert store.usage.saved_s == pytest.approx(store.usage.seconds * 2 / 3)
    assert str(store.usage).startswith("3 images encoded in ")
    assert "2 times reused" in str(store.usage)


def test_once_used_images_are_not_kept(make: Make, images: list[Kept], tmp_path: Path) -> None:
    store = make(uses={images[1].image.sha256: 1})
    look(store, images[0], images[1])
    assert store.usage.memory_bytes == 0
    look(store, images[2])
    look(store, images[0], images[1])
    assert (store.usage.computed, store.usage.reused) == (5, 0)
    assert files(tmp_path) == []


def test_a_row_cut_off_by_a_steps_end_meets_its_image_in_the_next_one(
    make: Make, images: list[Kept]
) -> None:
    store = make(uses={})
    first = look(store, images[0], images[1])
    second = look(store, images[1], images[2])
    assert torch.equal(first[1], second[0])
    assert (store.usage.computed, store.usage.reused) == (3, 1)


def test_what_memory_has_no_room_for_is_read_from_files(
    make: Make, images: list[Kept], tmp_path: Path
) -> None:
    store = make(memory_bytes=BYTES)
    first = look(store, *images[:3])
    on_disk = sum(path.stat().st_size for path in files(tmp_path))
    assert (store.usage.memory_bytes, store.usage.disk_bytes) == (BYTES, on_disk)
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"] * 2
    look(store, images[3])
    again = look(store, *images[:3])
    assert (store.usage.computed, store.usage.reused) == (4, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert "MB on disk" in str(store.usage)
    other = make(memory_bytes=0)
    assert other.usage.disk_bytes > on_disk
    assert torch.equal(look(other, images[2])[0], first[2])
    assert (other.usage.computed, other.usage.reused) == (0, 1)


def test_a_file_is_hashed_once(
    make: Make, images: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is a matter of pages; hashing all of them would not be."""
    first = make(memory_bytes=0)
    look(first, images[0])
    hashed: list[torch.Tensor] = []
    digest = feature_files._digest

    def counted(found: torch.Tensor) -> str:
        hashed.append(found)
        return digest(found)

    monkeypatch.setattr(feature_files, "_digest", counted)
    resumed = make(memory_bytes=0)
    for _ in range(3):
        look(resumed, images[0])
        look(resumed, images[1])
    # One read of each; and the second image was written.
    assert len(hashed) == 3
    assert resumed.usage.reused == 5


def test_a_look_aside_keeps_and_counts_nothing(
    make: Make, images: list[Kept], tmp_path: Path
) -> None:
    store = make()
    with store.aside():
        look(store, images[0])
    assert (store.usage.computed, store.usage.memory_bytes) == (0, 0)
    look(store, images[0])
    assert (store.usage.computed, store.usage.reused) == (1, 0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("change", [{"identity": "other weights"}, {"own": Path("elsewhere")}])
def test_files_of_other_weights_are_not_read(
    make: Make, images: list[Kept], change: dict[str, Any]
) -> None:
    look(make(memory_bytes=0), images[0])
    other = make(memory_bytes=0, disk_bytes=0, **change)
    look(other, images[0])
    assert (other.usage.computed, other.usage.reused) == (1, 0)


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def edit(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def empty(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [truncate, edit, empty])
def test_a_damaged_file_is_computed_again_and_said(
    make: Make,
    images: list[Kept],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    store = make(memory_bytes=0)
    first = look(store, images[0])
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    look(store, images[1])
    assert caplog.text == ""
    again = look(store, images[0])
    assert torch.equal(first[0], again[0])
    assert (store.usage.computed, store.usage.reused, store.usage.damaged) == (3, 0, 1)
    assert f"{path.name}: features were cut off or edited; they are computed again" in caplog.text
    look(store, images[1])
    assert torch.equal(look(store, images[0])[0], first[0])
    assert (store.usage.computed, store.usage.reused, store.usage.damaged) == (3, 2, 1)


def test_without_room_everything_is_computed_again(
    make: Make, images: list[Kept], tmp_path: Path
) -> None:
    store = make(memory_bytes=0, disk_bytes=0)
    look(store, images[0])
    look(store, images[1])
    look(store, images[0])
    assert (store.usage.computed, store.usage.reused) == (3, 0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("part", ["vision_model.encoder.layers.0.mlp.fc1", "connector"])
def test_features_of_a_trained_tower_are_never_kept_and_pass_gradients_on(
    make: Make, tiny: Any, images: list[Kept], tmp_path: Path, part: str
) -> None:
    weight = next(tiny.model.get_submodule(part).parameters()).requires_grad_()
    store = make(memory_bytes=0)
    assert not store.frozen
    first = look(store, images[0], images[0])
    torch.autograd.backward(torch.cat(first).pow(2).sum())
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    with torch.no_grad():
        weight.mul_(1.5)
    second = look(store, images[0])
    assert not torch.equal(first[0], second[0])
    assert (store.usage.computed, store.usage.reused) == (2, 0)
    assert (store.usage.memory_bytes, store.usage.disk_bytes) == (0, 0)
    assert files(tmp_path) == []


def test_a_frozen_tower_takes_no_gradients(make: Make, tiny: Any, images: list[Kept]) -> None:
    tiny.model.text_model.requires_grad_()
    store = make()
    assert store.frozen
    assert not any(features.requires_grad for features in look(store, *images))


def test_closing_deletes_the_folder(make: Make, images: list[Kept], tmp_path: Path) -> None:
    store = make(memory_bytes=0)
    look(store, images[0])
    assert (tmp_path / "features").is_dir()
    store.close()
    assert not (tmp_path / "features").exists()
    store.close()
    assert images[0].open()


def test_no_images_are_no_features(make: Make) -> None:
    store = make()
    assert store.outputs([]) is None
    assert store.usage.computed == 0


def test_what_others_need_is_read_by_them_and_outlives_the_step(
    make: Make, images: list[Kept], tmp_path: Path
) -> None:
    lasts = {images[0].image.sha256}.__contains__
    first = make(lasts=lasts, uses={})
    found = look(first, *images[:2])
    first.close()
    assert [path.parent.name for path in tmp_path.rglob("*.safetensors")] == ["shared"]
    other = make(lasts=lambda key: True, uses={})
    assert torch.equal(look(other, images[0])[0], found[0])
    assert (other.usage.computed, other.usage.reused) == (0, 1)


def test_models_share_what_is_made_of_an_image_unless_its_tower_is_adapted(
    random_base: Path, tiny: Any, tmp_path: Path
) -> None:
    base = base_ref(ModelSettings(id=str(random_base), quantization="none", dtype="float32"))
    ref = base.model_copy(update={"adapter": tmp_path, "adapter_sha256": "a" * 64})

    def adapted(module: str) -> Any:
        return get_peft_model(copy.deepcopy(tiny), LoraConfig(target_modules=rf".*{module}"))

    text = adapted(r"text_model.*q_proj")
    plain = identity_of(base, tiny)
    assert identity_of(ref, text) == plain
    assert identity_of(ref, adapted(r"vision_model.*q_proj")) != plain
    assert identity_of(ref, adapted(r"connector.*proj")) != plain
    for change in ({"longest_edge": 96}, {"dtype": "bfloat16"}, {"quantization": "nf4"}):
        settings = base.settings.model_copy(update=change)
        assert identity_of(base.model_copy(update={"settings": settings}), tiny) != plain


def test_images_are_opened_on_another_thread_while_the_model_computes(
    make: Make, images: list[Kept], tmp_path: Path
) -> None:
    opened: list[tuple[str, str]] = []

    def watched(picture: Kept) -> Kept:
        def open_it() -> Any:
            opened.append((picture.image.sha256, threading.current_thread().name))
            return picture.open()

        return Kept(picture.image, open_it)

    expected = look(make(), *images)
    one, two, three, four = map(watched, images)
    store = make(uses={})
    store.look_ahead([four])
    assert not store.ahead, "on a CPU nothing is gained"
    store.ahead = True
    store.look_ahead([one, two])
    store.look_ahead(
        [two, three]
    )  # the next batch goes on with the image of a row that was cut off
    found = look(store, one, two)
    found += look(store, two, three)[1:]
    same([*found, *look(store, four)], expected)
    assert [key for key, _ in opened] == [picture.image.sha256 for picture in images]
    names = [name.partition("_")[0] for _, name in opened]
    assert names == ["images"] * 3 + ["MainThread"]
    for batch in ([one], [two], [three]):  # one step takes several: two are opened ahead
        store.look_ahead(batch)
    same(look(store, one) + look(store, two) + look(store, three), expected[:3])
    assert [name.partition("_")[0] for _, name in opened[4:]] == ["images"] * 2 + ["MainThread"]
    (tmp_path / images[0].image.path).unlink()
    store.look_ahead([one])
    with pytest.raises(DataError, match=images[0].image.path):
        look(store, one)
    store.close()
