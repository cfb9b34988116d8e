"""A registered model carries the margins that it is judged with."""

from typing import Any

import pytest

from vlm_ops.config.gate import GateSettings
from vlm_ops.errors import RegistryError

HARDER = GateSettings(over_champion=0.02)


def test_the_first_ones_need_no_reason_and_are_a_line(pipeline: Any) -> None:
    assert pipeline.registry.margins() is None
    for _ in range(2):
        pipeline.registry.pin(HARDER, reason=None, by="flow")
        assert pipeline.registry.margins() == HARDER
        (line,) = pipeline.registry.moves()
        assert (line.kind, line.who, line.why) == ("gate", "flow", "the first margins")


def test_others_need_a_reason_and_are_a_line(pipeline: Any) -> None:
    pipeline.register(0)
    pipeline.registry.promote("1", reason=None, by="flow")
    pipeline.registry.pin(HARDER, reason=None, by="flow")
    for reason in (None, "", " "):
        with pytest.raises(RegistryError, match="vlm-ops gate set"):
            pipeline.registry.pin(GateSettings(), reason=reason, by="flow")
    assert pipeline.registry.margins() == HARDER
    pipeline.registry.pin(GateSettings(), reason="They were too hard.", by="ann")
    assert pipeline.registry.margins() == GateSettings()
    line = pipeline.registry.moves()[-1]
    assert (line.kind, line.who, line.why) == ("gate", "ann", "They were too hard.")
    assert (line.from_version, line.to_version, line.moved) == ("1", "1", False)
    assert GateSettings.model_validate(line.margins) == GateSettings()
    assert pipeline.registry.standing().doubt is None
    assert pipeline.registry.former_champions() == set()


def test_margins_are_no_champion(pipeline: Any) -> None:
    pipeline.registry.pin(GateSettings(), reason="From the start.", by="ann")
    assert pipeline.registry.standing().doubt is None
    pipeline.register(0)
    assert pipeline.registry.promote("1", reason=None, by="flow").from_version is None
    pipeline.registry.pin(HARDER, reason="Harder.", by="ann")
    pipeline.register(1, against=(pipeline.models[0].content, "1"))
    pipeline.registry.promote("2", reason=None, by="flow")
    assert pipeline.registry.rollback(reason=None, by="ann").to_version == "1"


@pytest.mark.parametrize("reason", [None, "From the start."])
def test_whoever_deletes_or_changes_the_tag_does_not_get_rid_of_them(
    pipeline: Any, reason: str | None
) -> None:
    pipeline.registry.pin(HARDER, reason=reason, by="ann")
    pipeline.client.delete_registered_model_tag(pipeline.name, "vlm_ops.margins")
    assert pipeline.registry.margins() == HARDER
    with pytest.raises(RegistryError, match="give a reason"):
        pipeline.registry.pin(GateSettings(), reason=None, by="flow")
    for text in ("none", GateSettings().model_dump_json()):
        pipeline.client.set_registered_model_tag(pipeline.name, "vlm_ops.margins", text)
        with pytest.raises(RegistryError, match="holds no settings"):
            pipeline.registry.margins()
        with pytest.raises(RegistryError, match="holds no settings"):
            pipeline.registry.pin(GateSettings(), reason=None, by="flow")
    pipeline.registry.pin(GateSettings(), reason="It was damaged.", by="ann")
    assert pipeline.registry.margins() == GateSettings()
