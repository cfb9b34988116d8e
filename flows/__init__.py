"""Prefect's side of vlm-ops: servers, worker, deployments and the flow.

This package alone imports prefect, and only inside functions or in modules that are imported
after :func:`flows.servers.services.services` has set ``PREFECT_API_URL`` and
``PREFECT_HOME``: Prefect
reads its settings at import. The steps themselves know nothing of it (``src/vlm_ops``).
"""
