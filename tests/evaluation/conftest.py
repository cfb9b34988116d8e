import pytest
from squares import make_data

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.sections import EvaluateSettings


@pytest.fixture
def settings() -> EvaluateSettings:
    return EvaluateSettings(batch_size=4, resamples=200)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("runs") / "prepare-0"
    return make_data(folder, {"train": 8, "validation": 6, "test": 12})
