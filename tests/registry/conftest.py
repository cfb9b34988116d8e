"""A candidate as the pipeline hands it to the registry: evaluated, judged, kept in MLflow."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vlm_ops.artifacts import Evaluation, GateDecision, ModelRef, PreparedData, SplitSummary
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.records import Difference, Score, Verdict
from vlm_ops.registry.versions import RegisteredVersion, register
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.runs import start_pipeline_run

SCORE = Score(
    relaxed_accuracy=0.71,
    low=0.68,
    high=0.74,
    exact_match=0.7,
    n=900,
    n_images=300,
    n_groups=12,
)


@dataclass
class Pipeline:
    """A pipeline's name, and what it takes to register candidates under it."""

    uri: str
    name: str
    folder: Path
    models: list[ModelRef]
    logged: list[str]
    keep: Callable[[ModelRef], str]

    def register(
        self,
        number: int,
        *,
        promote: bool = True,
        against: tuple[str, str] | None = None,
        protocol: str = "p" * 64,
        logged: str | None = None,
    ) -> RegisteredVersion:
        """Register model ``number``, judged against (content, version) of a champion."""
        model = self.models[number]
        return register(
            self.uri,
            config=PipelineConfig(name=self.name),
            evaluation=self._evaluation(
                model, self.logged[number] if logged is None else logged, protocol
            ),
            decision=self._decision(model, promote, against),
            data=self._data(),
            base=model.model_copy(update={"adapter": None, "adapter_sha256": None}),
            git_commit="abc123",
            prefect_run_id="flow-1",
            pipeline_run=lambda: "run-1",
            keep=self.keep,
        )

    def _evaluation(self, model: ModelRef, logged: str, protocol: str) -> Evaluation:
        return Evaluation(
            content="e",
            folder=self.folder,
            candidate="prefer",
            why="It is better on validation.",
            validation={"sft": 0.6, "prefer": 0.7},
            model=model,
            answers={},
            scores={"base": SCORE.model_copy(update={"relaxed_accuracy": 0.2}), "candidate": SCORE},
            logged_models={"candidate": logged} if logged else {},
            protocol=protocol,
        )

    def _decision(
        self, model: ModelRef, promote: bool, against: tuple[str, str] | None
    ) -> GateDecision:
        word = "better" if promote else "not better"
        return GateDecision(
            fingerprint=fingerprint([model.content, promote, list(against or [])]),
            content="g",
            folder=self.folder,
            verdict=Verdict(
                accepted=promote,
                reasons=(f"The candidate is {word} than the base.",),
                differences=(
                    Difference(
                        than="base",
                        points=0.5,
                        low=0.4,
                        high=0.6,
                        needed=0.0,
                        chance=0.0,
                        passed=promote,
                    ),
                ),
            ),
            candidate=model.content,
            champion=against[0] if against else None,
            champion_answers="a" * 64 if against else None,
            champion_version=against[1] if against else None,
        )

    def _data(self) -> PreparedData:
        summary = SplitSummary(rows=900, images=300, groups=12, kinds={"count": 900})
        return PreparedData(
            content="d" * 64,
            folder=self.folder,
            splits={"train": summary, "validation": summary, "test": summary},
            source="charts of 60 tables",
        )


@pytest.fixture(scope="session")
def kept_models(
    mlflow_server: str, make_model: Callable[[int], ModelRef]
) -> tuple[list[ModelRef], list[str], Callable[[ModelRef], str]]:
    """Three models, where MLflow keeps them, and what keeps one more."""
    run_id = start_pipeline_run(mlflow_server, "registry", "run", {})
    tracker = MlflowTracker(run_id, mlflow_server, system_metrics=False)
    models = [make_model(seed) for seed in (11, 12, 13)]
    logged = [tracker.model(f"candidate{n}", model) for n, model in enumerate(models)]
    return models, logged, lambda model: tracker.model("kept late", model)


@pytest.fixture
def pipeline(
    mlflow_server: str,
    kept_models: tuple[list[ModelRef], list[str], Callable[[ModelRef], str]],
    tmp_path: Path,
) -> Pipeline:
    """A pipeline with a registered model of its own."""
    name = f"demo-{uuid.uuid4().hex[:8]}"
    return Pipeline(mlflow_server, name, tmp_path, *kept_models)
