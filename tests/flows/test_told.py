"""The lines that are sent to people."""

from typing import Any

from flows.summary import Decision, Summary
from flows.told import message
from vlm_ops.records import Score


def score(accuracy: float) -> Score:
    """A score of 40 rows."""
    return Score(
        value=accuracy,
        low=accuracy - 0.1,
        high=accuracy + 0.1,
        exact_match=0.0,
        n=40,
        n_images=20,
        n_groups=10,
    )


def summary(**changes: Any) -> Summary:
    """What a run came to that promoted its candidate."""
    reasons = (
        "accepted: 60.0 % against the base's 20.0 %: +40.0 points (95 % interval +30.0 to …",
    )
    values: dict[str, Any] = {
        "status": "promoted",
        "name": "own",
        "split": "test",
        "scores": {"base": score(0.2), "sft": score(0.5), "candidate": score(0.6)},
        "candidate": "the candidate is the sft model",
        "decision": Decision(promote=True, reasons=reasons, look=1, level=0.0038, power=0.5),
        "model_version": "3",
        "champion_version": "3",
        "mlflow_run_id": "1",
        "mlflow_url": "http://127.0.0.1:5000/#/runs/1",
        "trigger": "feedback: 7 new rows",
        "prefect_run_id": "2",
        "seconds": {},
        "folders": {},
        "skipped": [],
        "left_out": {},
        "adapter_sha256": {},
        "start": None,
        "note": None,
        "rows": None,
        "refused": 0,
        "notices": ("2 of 40 rows are refused",),
        "showcase": None,
    }
    return Summary(**(values | changes))


def test_a_verdict_with_its_numbers_and_links() -> None:
    assert message(summary()).splitlines() == [
        "own version 3: promoted, it is the champion now",
        "Relaxed accuracy on 40 test rows: candidate 60.0 % (95 % interval 50.0 to 70.0); base "
        "20.0 % (95 % interval 10.0 to 30.0)",
        "- accepted: 60.0 % against the base's 20.0 %: +40.0 points (95 % interval +30.0 to …",
        "- 2 of 40 rows are refused",
        "Started by: feedback: 7 new rows",
        "MLflow: http://127.0.0.1:5000/#/runs/1",
    ]


def test_a_trial_and_a_run_that_had_nothing_to_do() -> None:
    trial = message(summary(status="trial", split="validation", decision=None, model_version=None))
    assert trial.startswith("own: a trial; the test rows were not read")
    assert "- the candidate is the sft model" in trial
    assert message(summary(mlflow_run_id=None, mlflow_url=None)) == (
        "own version 3: nothing changed since the last run"
    )
