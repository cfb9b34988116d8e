"""A candidate as the pipeline hands it to the registry: evaluated, judged, kept in MLflow."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from squares import make_data

from vlm_ops.artifacts import AnswerSet, Evaluation, ModelRef, PreparedData
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.answers import ask
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.records import Difference, Score, SplitSummary, Verdict
from vlm_ops.registry.registry import Origin, RegisteredVersion, Registry, Submission
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import NullTracker
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.runs import Runs

SCORE = Score(
    value=0.71,
    low=0.68,
    high=0.74,
    exact_match=0.7,
    n=900,
    n_images=300,
    n_groups=12,
)


@dataclass
class Pipeline:
    """A pipeline's registry, and what it takes to register candidates in it."""

    registry: Registry
    folder: Path
    run_id: str
    models: list[ModelRef]
    logged: list[str]
    answers: list[AnswerSet]
    validation: PreparedData

    @property
    def name(self) -> str:
        """The registered model."""
        return self.registry.name

    @property
    def client(self) -> MlflowClient:
        """A client of one's own."""
        return MlflowClient(self.registry.uri, self.registry.uri)

    def kept_file(self, logged: str, path: str) -> Path:
        """Fetch a file of a logged model."""
        where = self.client.get_logged_model(logged.removeprefix("models:/")).artifact_location
        repository = get_artifact_repository(where, tracking_uri=self.registry.uri)
        return Path(repository.download_artifacts(path))

    def as_before(self, version: str) -> None:
        """Have a version be as an earlier vlm-ops left it, of which the weights are checked."""
        found = self.client.get_model_version(self.name, version)
        path = found.tags["details"]
        kept = json.loads(self.kept_file(str(found.source), path).read_bytes())
        file = self.folder / Path(path).name
        file.write_text(json.dumps(kept | {"files": None}))
        logged = str(found.source).removeprefix("models:/")
        self.client.log_model_artifact(logged, str(file), "registered")
        self.client.delete_model_version_tag(self.name, version, "vlm_ops.files")

    def register(
        self,
        number: int,
        *,
        promote: bool = True,
        against: tuple[str, str] | None = None,
        protocol: str = "p" * 64,
        logged: str | None = None,
        rows: RowsSince | None = None,
        tested: tuple[AnswerSet, ...] = (),
    ) -> RegisteredVersion:
        """Register model ``number``, judged against (content, version) of a champion."""
        model = self.models[number]
        told = Submission(
            evaluation=self.evaluation(number, logged, protocol),
            decision=self._decision(model, promote, against, protocol),
            data=self.data(),
            rows=rows,
            tested=tested,
            answers=self.answers[number],
            origin=Origin(
                config=PipelineConfig(name=self.name),
                git_commit="abc123" * 6,
                prefect_run_id="flow-1",
            ),
        )
        return self.registry.register(told, pipeline_run=lambda: self.run_id)

    def evaluation(
        self, number: int, logged: str | None = None, protocol: str = "p" * 64
    ) -> Evaluation:
        """Model ``number`` as the candidate, kept as ``logged`` says; nowhere if that is empty."""
        logged = self.logged[number] if logged is None else logged
        return Evaluation(
            content="e",
            folder=self.folder,
            candidate="preferred",
            why="it is better on validation",
            validation={"sft": 0.6, "preferred": 0.7},
            model=self.models[number],
            scores={"base": SCORE.model_copy(update={"value": 0.2}), "candidate": SCORE},
            logged_models={"candidate": logged} if logged else {},
            protocol=protocol,
        )

    def _decision(
        self, model: ModelRef, promote: bool, against: tuple[str, str] | None, protocol: str
    ) -> GateDecision:
        word = "better" if promote else "not better"
        return GateDecision(
            fingerprint=fingerprint([model.content, promote, list(against or []), protocol]),
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

    def data(self) -> PreparedData:
        """What the candidates were trained and measured on."""
        summary = SplitSummary(rows=900, images=300, groups=12, kinds={"count": 900})
        return PreparedData(
            content="d" * 64,
            folder=self.validation.folder,
            splits={"train": summary, "validation": summary, "test": summary},
            source="charts of 60 tables",
        )


Kept = tuple[str, list[ModelRef], list[str], list[AnswerSet], PreparedData]
"""A pipeline's run, three models, where MLflow keeps them, and what they said to which rows."""


def keep(server: str, make_model: Callable[[int], ModelRef], folder: Path) -> Kept:
    """Keep three models as a pipeline's run does, which asked them validation rows before."""
    runs = Runs(server)
    parent = runs.start_pipeline("registry", "run", params={}, tags={})
    step = runs.start_step(parent, "evaluate", {})
    tracker = MlflowTracker(step, server, system_metrics=False)
    models = [make_model(seed) for seed in (11, 12, 13)]
    logged = [tracker.model(f"candidate{n}", m) for n, m in enumerate(models)]
    data = make_data(folder / "prepare", {"validation": 8})
    answers = [asked(model, data, folder / f"answers-{n}") for n, model in enumerate(models)]
    return parent, models, logged, answers, data


def asked(model: ModelRef, data: PreparedData, out: Path) -> AnswerSet:
    """Ask a model the validation rows."""
    job = AnswersJob(
        seed=0, split="validation", max_rows=None, ground=ground_of_answers(model.settings),
        gray=False, max_new_tokens=8, batch_size=32,
    )  # fmt: skip
    out.mkdir()
    return ask(job, rows=data.validation, model=model, out=out, tracker=NullTracker())


@pytest.fixture(scope="session")
def kept_models(
    mlflow_server: str,
    make_model: Callable[[int], ModelRef],
    tmp_path_factory: pytest.TempPathFactory,
) -> Kept:
    """Three models, kept once."""
    return keep(mlflow_server, make_model, tmp_path_factory.mktemp("kept"))


@pytest.fixture
def pipeline(mlflow_server: str, kept_models: Kept, tmp_path: Path) -> Pipeline:
    """A pipeline with a registered model of its own."""
    registry = Registry(mlflow_server, f"demo-{uuid.uuid4().hex[:8]}")
    return Pipeline(registry, tmp_path, *kept_models)


@pytest.fixture
def with_whole(
    pipeline: Pipeline, make_whole_model: Callable[[int], ModelRef], tmp_path: Path
) -> Pipeline:
    """That pipeline, with a first candidate that full fine-tuning left."""
    model = make_whole_model(21)
    step = Runs(pipeline.registry.uri).start_step(pipeline.run_id, "evaluate", {})
    logged = MlflowTracker(step, pipeline.registry.uri, system_metrics=False).model("whole", model)
    assert logged is not None
    answers = asked(model, pipeline.validation, tmp_path / "whole-answers")
    return replace(
        pipeline,
        models=[model, *pipeline.models],
        logged=[logged, *pipeline.logged],
        answers=[answers, *pipeline.answers],
    )


@pytest.fixture
def pipeline_on(make_model: Callable[[int], ModelRef], tmp_path: Path) -> Callable[[str], Pipeline]:
    """Return what makes such a pipeline on another server."""
    return lambda server: Pipeline(
        Registry(server, "demo"), tmp_path, *keep(server, make_model, tmp_path)
    )
