"""The MLflow side of tracking: runs, curves, packaged models."""

import os

# MLflow reads these when it is imported, and this package is imported before it. What a user
# has set stays.
_MLFLOW_DEFAULTS = {
    # MLflow would send a request once more that the server may have carried out already: a second
    # run, a second version, a move of an alias after its lease. `tracking.connection` repeats a
    # whole piece of work instead, which looks first for what was done.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # stdout belongs to the command line: with --json it is one JSON object.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Its notes and bars on each upload and registration are no news to who runs a pipeline.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A packaged model holds what it is given, not the lock file of the current folder.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
for _name, _value in _MLFLOW_DEFAULTS.items():
    os.environ.setdefault(_name, _value)
