"""The MLflow side of tracking: runs, curves, packaged models."""

import os

# MLflow reads these when it is imported, and this package is imported before it. What a user
# has set stays.
_MLFLOW_DEFAULTS = {
    # A server that does not answer is reported after seconds instead of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
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
