"""What a run lacks on this machine, in words with what helps."""

from vlm_ops.training.estimate import GB, DeviceMemory, Memory


def beyond_the_device(least: Memory, device: DeviceMemory) -> list[str]:
    """Say that not even one row at a time fits, which is how far a training halves its passes."""
    if device.gpu is None or least.total <= device.gpu:
        return []
    return [
        f"memory: about {least.total / GB:.1f} GB are needed for one row at a time and the GPU has "
        f"{device.gpu / GB:.1f} GB. Set gradient_checkpointing, lower model.longest_edge, or take "
        f"a larger device."
    ]


def short_of_memory(memory: Memory, device: DeviceMemory) -> list[str]:
    """Say that less is free now than a training takes."""
    if memory.total <= device.free:
        return []
    return [
        f"memory: about {memory.total / GB:.1f} GB are needed and {device.free / GB:.1f} GB are "
        f"free on this machine; a training that runs out goes on with smaller passes. Lower "
        f"batch_size and raise accumulation as much, set gradient_checkpointing, lower "
        f"model.longest_edge, or take a larger device."
    ]


def short_of_disk(disk: float, free: int) -> list[str]:
    """Say that the runs folder has less room than a run takes."""
    if disk <= free:
        return []
    return [
        f"disk: about {disk / GB:.1f} GB are needed in the runs folder and {free / GB:.1f} GB are "
        f"free. Make room (vlm-ops clean), choose another folder with --runs, or lower "
        f"features.disk_gb."
    ]
