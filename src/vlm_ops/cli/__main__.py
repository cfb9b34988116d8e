"""``python -m vlm_ops.cli`` is ``vlm-ops``."""

from vlm_ops.cli import main

main()
