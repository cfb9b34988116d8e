from pathlib import Path

import pytest
from judged import Maker

from vlm_ops.artifacts import PreparedData


@pytest.fixture
def maker(tmp_path: Path, squares: PreparedData) -> Maker:
    return Maker(tmp_path, squares)
