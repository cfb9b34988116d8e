from collections.abc import Iterator

import pytest
from squares import Models, make_data

from vlm_ops.artifacts import PreparedData
from vlm_ops.evaluation.respondent import ModelRespondent
from vlm_ops.models import features, generation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("runs") / "prepare-0"
    return make_data(folder, {"train": 8, "validation": 6, "test": 12})


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Seers in place of models, so that whole stages can be taken in a second."""
    found = Models()
    monkeypatch.setattr(features, "load_with_features", lambda ref, room: found.load(ref))
    monkeypatch.setattr(generation, "replies", found.replies)
    ModelRespondent.free()
    yield found
    ModelRespondent.free()
