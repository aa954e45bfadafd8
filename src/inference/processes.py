"""Several processes that share one job, as `accelerate launch` and `torchrun` start them, one a GPU."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist


# The first process to end waits for the last one.
LONGEST_WAIT = timedelta(days=30)
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a job, and this one's place among them.

    Attributes:
        rank: of this process.
        total: how many there are.
        local_rank: of this process among those of its machine.
    """

    rank: int = 0
    total: int = 1
    local_rank: int = 0

    @classmethod
    def launched(cls) -> "Processes":
        """The processes that a launcher started, by its environment variables; without one, this process alone."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        return cls(*(int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Connect the processes while the block runs."""
        if self.total == 1:
            yield
            return
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def share(self, items: Mapping[str, T]) -> dict[str, T]:
        """Those of the items that are this process's."""
        return dict(islice(items.items(), self.rank, None, self.total))

    def gather(self, value: T) -> list[T]:
        """Each process's value, in each of them, once all have come here.

        Args:
            value: of this process, which can be pickled.

        Raises:
            OSError: another process ended before.
        """
        if self.total == 1:
            return [value]
        values: list = [None] * self.total
        try:
            dist.all_gather_object(values, value)
        except RuntimeError as error:
            raise OSError("Another process of this job failed; it says why. The rows of this one are kept.") from error
        return values

    @property
    def device(self) -> str | None:
        """The accelerator that is this process's where there are several processes; `None` for the usual choice."""
        if self.total == 1 or not torch.accelerator.is_available():
            return None
        kind = torch.accelerator.current_accelerator().type
        return f"{kind}:{self.local_rank % torch.accelerator.device_count()}"
