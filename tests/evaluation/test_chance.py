"""Small shares as people read them."""

import pytest

from vlm_ops.evaluation.words import chance


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.31, "31.0 %"), (0.00058, "0.058 %"), (0.0001, "0.01 %"), (2.4e-7, "less than 0.01 %")],
)
def test_a_chance_has_no_exponent(share: float, said: str) -> None:
    assert chance(share) == said
