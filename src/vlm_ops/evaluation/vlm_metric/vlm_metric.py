"""Every metric as a local module of the ``evaluate`` library: ``evaluate.load(folder, "anls")``."""

from typing import Any

from vlm_ops.evaluation import exported


class VlmMetric(exported.Exported):
    """The metric that is named, yours too (``module:function``); else relaxed accuracy."""

    description = "A metric of vlm-ops by its name."

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        name = config_name or "relaxed_accuracy"
        self.names = (name,)
        super().__init__(config_name=name.replace(":", "-"), **options)
