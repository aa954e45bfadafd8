"""Which samples of several data sets come next."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
from torch.utils.data import Sampler


class WeightedSampler(Sampler[int]):
    """Draws samples of data sets that stand one after the other, with replacement, so that each set has its share.

    Args:
        sizes: number of samples of each set.
        weights: share of each set.
        num_replicas: number of processes, which get different samples.
        rank: number of this process.
        seed: other numbers give other samples. It is the same in all processes.

    Raises:
        ValueError: as many weights as sets are needed, and a set with samples and a weight.

    Source: facebookresearch/vjepa2 at c2963a47, `src/datasets/utils/weighted_sampler.py`.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], num_replicas: int = 1, rank: int = 0, seed: int = 0
    ):
        if len(sizes) != len(weights) or not sizes or min(sizes) < 0 or min(weights) < 0:
            raise ValueError(f"Expected a size and a weight of each data set, got {sizes} and {weights}.")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Expected `rank` from 0 to {num_replicas - 1}, got {rank}.")
        shares = [np.full(size, weight / size) for size, weight in zip(sizes, weights, strict=True) if size]
        chances = np.concatenate([np.zeros(0), *shares])
        if not chances.sum() > 0:
            raise ValueError(f"No data set has both samples and a weight: {sizes}, {weights}.")
        self.chances = chances / chances.sum()
        self.num_replicas, self.rank, self.seed, self.epoch = num_replicas, rank, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples from now on.

        Args:
            epoch: a number, which gives the same samples whenever it is the same.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return ceil(len(self.chances) / self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng(self.seed + self.epoch)
        drawn = generator.choice(len(self.chances), size=len(self) * self.num_replicas, p=self.chances)
        return iter(drawn[self.rank :: self.num_replicas].tolist())
