"""Libraries whose insides are used: pinned to a minor version, and as the code expects them."""

import importlib
import importlib.metadata
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ADR = ROOT / "docs" / "adr" / "0008-what-rests-on-libraries-insides.md"


def listed() -> dict[str, str]:
    """Library and minor version, by the headings of the decision."""
    headings = re.findall(r"^## (.+)$", ADR.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(part.split() for heading in headings for part in heading.split(", "))


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(line) for group in groups for line in group]
    return {found.name: found for found in every}


@pytest.mark.parametrize("library", ["trl", "transformers", "peft", "bitsandbytes", "accelerate",
                                     "mlflow", "prefect"])  # fmt: skip
def test_the_minor_version_is_pinned(library: str) -> None:
    major, minor = map(int, listed()[library].split("."))
    allowed = requirements()[library].specifier
    assert allowed.contains(importlib.metadata.version(library))
    assert allowed.contains(f"{major}.{minor}.99")
    assert not allowed.contains(f"{major}.{minor + 1}.0")
    assert not allowed.contains(f"{major}.{minor - 1}.99")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mlflow.utils.mlflow_tags", "MLFLOW_MODEL_VERSIONS"),
        ("prefect.context", "refresh_global_settings_context"),
        ("prefect.logging.handlers", "APILogHandler.flush"),
    ],
)
def test_a_name_that_is_used_is_there(module: str, name: str) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if callable(found):
        required = [
            parameter
            for parameter in list(inspect.signature(found).parameters.values())[name.count("."):]
            if parameter.default is parameter.empty
        ]  # fmt: skip
        assert required == []
    else:
        assert found == "mlflow.modelVersions"
