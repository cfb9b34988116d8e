"""A run's page: written beside what it is about, and kept in MLflow."""

import logging
from datetime import UTC, datetime

from flows.context import Context, git_commit
from flows.summary import MEANING, Summary
from vlm_ops.errors import Interrupted
from vlm_ops.reporting.page import render
from vlm_ops.reporting.run import Run, run_page
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.tracking.runs import REPORT

logger = logging.getLogger("vlm_ops.flow")


def with_report(context: Context, summary: Summary) -> Summary:
    """Write the page of a run, and say in its summary where it is.

    A version's page is of the newest decision about it. Where nothing was left to do, the page of
    then is the page of now, made again if it is gone. One that can't be made is a warning: what was
    trained and judged stands without it.

    Args:
        context: Of the flow run, all stages taken.
        summary: What it came to.

    Raises:
        Interrupted: The run is asked to stop.
    """
    name, version = context.config.registered_model, summary.model_version
    last = context.folders["choose"] if version is None else context.runs / "reports"
    file = last / name / (version or "") / REPORT
    if context.parent_run is not None or not file.is_file():
        try:
            make_folder(file.parent)
            write_whole(file, render(run_page(_run(context, summary))))
            if context.parent_run is not None:
                context.mlflow.keep(context.parent_run, file)
        except Interrupted:
            raise
        except Exception as error:
            logger.warning("this run has no report: %s: %s", type(error).__name__, error)
            return summary
    return summary.model_copy(update={"report": file if file.is_file() else None})


def _run(context: Context, summary: Summary) -> Run:
    links = {
        "This run in MLflow": summary.mlflow_url,
        "This run in Prefect": context.flow_run_url,
    }
    started = None if summary.trigger is None else f"started by: {summary.trigger}"
    about = (context.source, started, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    said = (summary.candidate, summary.start, *summary.noted)
    return Run(
        config=context.config,
        outputs=context.outputs,
        outcome=MEANING[summary.state],
        said=tuple(filter(None, said)),
        notices=summary.notices,
        about=" · ".join(filter(None, about)),
        version=summary.model_version,
        rows=summary.rows,
        git_commit=git_commit(),
        links={text: url for text, url in links.items() if url},
    )
