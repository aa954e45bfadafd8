"""The masks of V-JEPA 2's pre-training: blocks that are cut out of a video, drawn for batches of clips.

Source: facebookresearch/vjepa2 at c2963a47, `src/masks/multiseq_multiblock3d.py`; the same numbers at 204698b4.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from torch.utils.data import default_collate

from vidformers.layers.patchify import Grid


MOST_DRAWS = 10_000
"""How often the blocks of a video are drawn until they leave a context."""


class MultiblockMaskSampler:
    """Draws blocks that hide parts of videos: what they leave is the context, what they cover the target.

    The size of the blocks is the same in a batch. It follows from `step` alone, the number of calls so far, so that
    processes agree on it and a run goes on where it stopped. Where the blocks lie, torch's global generator decides.

    Args:
        grid: number of tokens along time, height and width.
        spatial_scale: least and greatest share of the area that a block covers.
        temporal_scale: least and greatest share of the time.
        aspect_ratio: least and greatest height divided by width.
        num_blocks: number of blocks, which may overlap.
        max_temporal_keep: share of the time after which nothing is left in the context.
        max_keep: most context tokens.
        full_complement: let the target be all that isn't in the context, also what was cut to make counts equal.
        pred_full_complement: let the context be all that isn't in the target.
        inv_block: let what the blocks cover be the context, and what they leave the target.
    """

    def __init__(
        self,
        grid: tuple[int, int, int],
        spatial_scale: tuple[float, float] = (0.2, 0.8),
        temporal_scale: tuple[float, float] = (1.0, 1.0),
        aspect_ratio: tuple[float, float] = (0.3, 3.0),
        num_blocks: int = 1,
        max_temporal_keep: float = 1.0,
        max_keep: int | None = None,
        full_complement: bool = False,
        pred_full_complement: bool = False,
        inv_block: bool = False,
    ):
        self.grid = Grid(*grid)
        self.spatial_scale, self.temporal_scale, self.aspect_ratio = spatial_scale, temporal_scale, aspect_ratio
        self.num_blocks, self.max_temporal_keep, self.max_keep = num_blocks, max_temporal_keep, max_keep
        self.full_complement, self.pred_full_complement = full_complement, pred_full_complement
        self.inv_block = inv_block
        self.step = 0
        self._check()

    def __call__(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the masks of a batch.

        Args:
            batch_size: number of videos.

        Returns:
            Context (B, K) and target (B, L) token numbers, int64, ascending. Counts are those of the video with the
            fewest; of the others the last numbers, so the latest frames, are in neither.

        Raises:
            ValueError: no video, or blocks that leave no context or no target.
        """
        if batch_size < 1:
            raise ValueError(f"Expected a batch of at least one video, got {batch_size}.")
        block = self._block_size(torch.Generator().manual_seed(self.step))
        self.step += 1
        kept = [self._draw(block) for _ in range(batch_size)]  # (N,) booleans each
        context = [mask.nonzero()[:, 0] for mask in kept]
        target = [(~mask).nonzero()[:, 0] for mask in kept]
        context, target = _cut(context, self.max_keep), _cut(target, None)
        if self.full_complement:
            target = self._complement(context)
        elif self.pred_full_complement:
            context = self._complement(target)
        if not context.shape[1] or not target.shape[1]:
            raise ValueError(
                f"Blocks of {' × '.join(map(str, block))} tokens (time, height, width) on a grid of "
                f"{' × '.join(map(str, self.grid))} leave {'no target' if context.shape[1] else 'no context'}: raise "
                "or lower `spatial_scale`."
            )
        return (target, context) if self.inv_block else (context, target)

    def _check(self) -> None:
        for name in ("spatial_scale", "temporal_scale", "aspect_ratio"):
            low, high = getattr(self, name)
            if not (0 < low <= high and (name == "aspect_ratio" or high <= 1)):
                limit = "" if name == "aspect_ratio" else " ≤ 1"
                raise ValueError(f"Expected `{name}` as two numbers 0 < low ≤ high{limit}, got {(low, high)}.")
        if min(self.grid) < 1 or self.num_blocks < 1 or (self.max_keep is not None and self.max_keep < 1):
            raise ValueError(
                f"Expected a grid, `num_blocks` and `max_keep` of at least 1, got {tuple(self.grid)}, "
                f"{self.num_blocks} and {self.max_keep}."
            )
        if not 0 < self.max_temporal_keep <= 1:
            raise ValueError(f"Expected `max_temporal_keep` above 0 and at most 1, got {self.max_temporal_keep}.")

    def _block_size(self, generator: torch.Generator) -> tuple[int, int, int]:
        """Tokens of a block along time, height and width. Three numbers are drawn, whatever the ranges are."""
        time, area, aspect = (
            low + torch.rand(1, generator=generator).item() * (high - low)
            for low, high in (self.temporal_scale, self.spatial_scale, self.aspect_ratio)
        )
        tokens = int(self.grid.h * self.grid.w * area)
        height, width = round(sqrt(tokens * aspect)), round(sqrt(tokens / aspect))
        return max(1, int(self.grid.t * time)), min(height, self.grid.h), min(width, self.grid.w)

    def _draw(self, block: tuple[int, int, int]) -> torch.Tensor:
        """(N,) booleans, true where a video's blocks leave a token; drawn again while they leave none."""
        time, height, width = block
        last = max(1, int(self.grid.t * self.max_temporal_keep))
        for _ in range(MOST_DRAWS if block != tuple(self.grid) else 1):
            kept = torch.ones(tuple(self.grid), dtype=torch.bool)
            for _ in range(self.num_blocks):
                top, left, start = (
                    int(torch.randint(size - length + 1, (1,)))
                    for size, length in ((self.grid.h, height), (self.grid.w, width), (self.grid.t, time))
                )
                kept[start : start + time, top : top + height, left : left + width] = False
            kept[last:] = False
            if kept.any():
                return kept.flatten()
        raise ValueError(
            f"{self.num_blocks} blocks of {time} × {height} × {width} tokens on a grid of "
            f"{' × '.join(map(str, self.grid))} leave no context: lower `spatial_scale` or `num_blocks`."
        )

    def _complement(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The other numbers of every row (B, K), ascending: (B, N - K)."""
        others = torch.ones(token_ids.shape[0], self.grid.num_tokens, dtype=torch.bool).scatter(1, token_ids, False)
        return others.nonzero()[:, 1].view(token_ids.shape[0], -1)


def _cut(rows: list[torch.Tensor], most: int | None) -> torch.Tensor:
    """The first numbers of every row, as many as the shortest row has and at most `most`."""
    count = min(len(row) for row in rows)
    count = count if most is None else min(count, most)
    return torch.stack([row[:count] for row in rows])


class VJEPA2MaskCollator:
    """Makes batches of clips and draws their masks; clips of different lengths go into batches of their own.

    Every pair of a length and a mask has a sampler. Those of a length that a batch lacks don't go on. For the same
    masks whatever the number of workers, call it in the main process.

    Args:
        masks: arguments of [`MultiblockMaskSampler`] for each mask, without the grid.
        frames_per_clip: the lengths that occur; repeated ones count once.
        crop_size: pixels of a side, or height and width.
        patch_size: pixels of a patch's side.
        tubelet_size: frames of a tubelet.
    """

    def __init__(
        self,
        masks: Sequence[Mapping[str, Any]],
        frames_per_clip: Sequence[int],
        *,
        crop_size: int | tuple[int, int],
        patch_size: int,
        tubelet_size: int,
    ):
        if not masks or not frames_per_clip:
            raise ValueError("Expected at least one mask and one number of frames.")
        height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
        self._step = 0
        self.samplers = {
            frames: [
                MultiblockMaskSampler((frames // tubelet_size, height // patch_size, width // patch_size), **mask)
                for mask in masks
            ]
            for frames in frames_per_clip
        }

    @property
    def step(self) -> int:
        """Number of calls so far. Setting it sets the samplers, too, as resuming a run does."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value
        for sampler in (sampler for samplers in self.samplers.values() for sampler in samplers):
            sampler.step = value

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Collate samples and draw masks.

        Args:
            samples: each with `pixel_values_videos` (T, C, H, W), and whatever else.

        Returns:
            A batch for each length that there is, in the order of `frames_per_clip`: the samples' entries, and
            `context_mask` and `target_mask`, lists with (B, K) and (B, L) token numbers for each mask.

        Raises:
            ValueError: a clip of another length.
        """
        lengths = [len(sample["pixel_values_videos"]) for sample in samples]
        unknown = sorted(set(lengths) - self.samplers.keys())
        if unknown:
            raise ValueError(
                f"Clips have {', '.join(map(str, unknown))} frames, and `frames_per_clip` has "
                f"{', '.join(map(str, self.samplers))}."
            )
        self._step += 1
        batches = []
        for frames, samplers in self.samplers.items():
            group = [dict(sample) for sample, length in zip(samples, lengths, strict=True) if length == frames]
            if group:
                drawn = [sampler(len(group)) for sampler in samplers]
                masks = {"context_mask": [context for context, _ in drawn], "target_mask": [each for _, each in drawn]}
                batches.append({**default_collate(group), **masks})
        return batches

    def model_inputs(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate samples as arguments of [`VJEPA2ForPreTraining`], such as the `data_collator` of a Trainer does.

        Args:
            samples: each with `pixel_values_videos` (T, C, H, W).

        Returns:
            `pixel_values_videos`, `context_mask` and `target_mask`; with several lengths in `frames_per_clip`, which a
            Trainer doesn't take, a list by length of each. The mask token of a length is that of its place in the
            list, so that every batch should have all lengths.
        """
        names, batches = ("pixel_values_videos", "context_mask", "target_mask"), self(samples)
        if len(self.samplers) == 1:
            return {name: batches[0][name] for name in names}
        return {name: [batch[name] for batch in batches] for name in names}


__all__ = ["MultiblockMaskSampler", "VJEPA2MaskCollator"]
