"""Processes of steps, as tests find them."""

import psutil


def is_step(child: psutil.Process) -> bool:
    """Tell the process of a step: one that was started for it, or forked from the host."""
    said = child.cmdline()
    forked = "vlm_ops.steps.host" in said and "vlm_ops.steps.host" in child.parent().cmdline()
    return "vlm_ops.steps.process" in said or forked
