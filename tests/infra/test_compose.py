"""The container files: right by their schemas, whole, and without a secret.

No container engine runs here. What they start is started without one in ``test_fleet.py``.
"""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose import FILES, INFRA, ROOT, VARIABLE, example, services

SECRETS = {"POSTGRES_PASSWORD", "PREFECT_AUTH_STRING", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY",
           "S3_SECRET_KEY"}  # fmt: skip
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}


@pytest.fixture
def found() -> dict[str, Any]:
    return services(example() | dict.fromkeys(SECRETS, "cafe"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_right_by_the_schema_of_compose(path: Path) -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json")
    values = example() | dict.fromkeys(SECRETS, "cafe")
    whole = yaml.safe_load(
        VARIABLE.sub(lambda match: values.get(match[1]) or match[3], TEXTS[path])
    )
    jsonschema.validate(whole, json.loads(schema.read_text(encoding="utf-8")))


def test_each_variable_is_explained_and_each_explained_one_is_used() -> None:
    used = {match[1] for text in TEXTS.values() for match in VARIABLE.finditer(text)}
    assert used | {"COMPOSE_FILE", "COMPOSE_PROFILES"} == set(example())
    assert example()["COMPOSE_FILE"].split(":") == [path.name for path in FILES]
    parts = (INFRA / ".env.example").read_text(encoding="utf-8").split("\n\n")
    for part in parts:
        lines = part.splitlines()
        assert lines[0].startswith("#"), part  # a comment stands above each group of variables


def test_no_secret_has_a_value_and_a_missing_one_is_told() -> None:
    assert {name for name, value in example().items() if not value} == SECRETS
    with pytest.raises(KeyError, match=r"PASSWORD|STRING|KEY"):
        services(example())


def test_a_worker_alone_needs_no_secret_of_the_servers_but_the_logins() -> None:
    logins = {"PREFECT_AUTH_STRING", "MLFLOW_ADMIN_PASSWORD"}
    found = services(example() | dict.fromkeys(logins, "cafe"), INFRA / "compose.worker.yaml")
    assert set(found) == {"worker", "worker-gpu"}
    assert found["worker"]["environment"]["AWS_SECRET_ACCESS_KEY"] == ""


def test_secrets_and_rows_stay_out_of_git_and_of_the_image() -> None:
    kept_out = {"infra/.env*", example()["DATA"].replace(".", "infra", 1) + "/", "logins.env"}
    assert kept_out <= set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())
    lines = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"  # nothing goes in that is not named
    assert all((ROOT / line[1:]).is_file() for line in lines if line.startswith("!infra"))


def test_no_secret_is_in_a_command_line(found: dict[str, Any]) -> None:
    for service in found.values():
        assert "cafe" not in str(service.get("command", ""))
        assert "cafe" not in str(service.get("healthcheck", ""))


def test_images_are_pinned_ports_are_this_machines_and_files_are_there(
    found: dict[str, Any],
) -> None:
    volumes = {name for text in TEXTS.values() for name in yaml.safe_load(text)["volumes"]}
    for name, service in found.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        inner = name == "proxy"  # the one that others may reach
        assert inner or all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
        for source in sources:
            if source.startswith("./") and source != example()["DATA"]:
                assert (INFRA / source).is_file(), source
            elif not source.startswith("."):
                assert source in volumes, source


def test_who_is_waited_for_has_a_health_check(found: dict[str, Any]) -> None:
    for service in found.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert found[other]["healthcheck"]["test"], other
    for name in ("postgres", "store", "prefect", "mlflow", "proxy"):
        assert found[name]["healthcheck"]["test"], name


def test_the_image_is_pinned_runs_as_no_root_and_installs_what_there_is() -> None:
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-\w+$", text, re.MULTILINE)
    # The last word on the user is another than root.
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "vlm-ops"
    assert "--constraint constraints.txt" in text
    (extras,) = re.findall(r"'\.\[(.+)\]'", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    given = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    named = [line[1:] for line in given if line.startswith("!")]
    assert {"pyproject.toml", "constraints.txt", "src", "flows"} <= set(named)
    assert all((ROOT / name).exists() for name in named)


def test_every_version_of_the_extras_is_in_the_constraints() -> None:
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in ("fleet", "kubernetes", "dev"):
        for requirement in project["optional-dependencies"][extra]:
            name = re.split(r"[\[<>=!]", requirement)[0].lower().replace("_", "-")
            assert name in pinned, requirement


def test_scripts_that_compose_names_are_there(found: dict[str, Any]) -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for service in found.values():
        said = f"{service.get('command', '')} {service.get('healthcheck', '')}"
        for name in re.findall(r"infra/([\w.-]+)", said):
            assert (INFRA / name).is_file(), name
            assert f"!infra/{name}" in ignored, name
    assert Path(INFRA / "mlflow-server.sh").stat().st_mode & 0o111
