"""The device that a user names, or the best one there is."""

import torch


def find_device(name: str | None = None) -> torch.device:
    """The device of a name, once it is known that this machine has it.

    Args:
        name: such as "cuda", "cuda:1", "mps" or "cpu"; `None` or "auto" for an accelerator where there is one.

    Raises:
        ValueError: no such device here.
    """
    kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    if name in (None, "auto"):
        return torch.device(kind)
    there = ["cpu"]
    if kind != "cpu":
        there += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
    if name not in ("cpu", kind, *there):
        raise ValueError(f"There is no device {name!r} here; this machine has {', '.join(there)}.")
    return torch.device(name)
