"""The registry: MLflow versions, the aliases candidate and champion, the ledger of moves."""

import vlm_ops.tracking  # noqa: F401  its defaults for MLflow hold from MLflow's import on
