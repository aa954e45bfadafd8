"""Masks for VideoMAE's pre-training: how they are drawn, and what they say about the tokens of a video.

Shapes: B videos, N tokens on a grid of t × h × w, of which K are masked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vidformers.layers.patchify import Grid, ascending_order
from vidformers.video.sample import generator_of


def tube_mask(
    grid: tuple[int, int, int],
    mask_ratio: float = 0.9,
    batch_size: int = 1,
    seed: int | np.random.RandomState | None = None,
) -> torch.Tensor:
    """Mask the same patches at every time, others in every video.

    Args:
        grid: number of tokens along time, height and width, such as `config.token_grid`.
        mask_ratio: share of the patches to mask, rounded down: of 14 × 14 patches 0.9 masks 176.
        batch_size: number of videos.
        seed: a number, for the masks that the original's generator draws after `numpy.random.seed` of it; or a
            generator to go on with. By default torch's global generator decides, and so `torch.manual_seed`.

    Returns:
        (B, N) booleans, true where masked, on the CPU.

    Raises:
        ValueError: a ratio that leaves no patch visible or masks none.

    Source: MCG-NJU/VideoMAE at 14ef8d85, `masking_generator.py`.
    """
    time, height, width = grid
    patches = _shuffled_masks(height * width, mask_ratio, batch_size, seed)
    return patches.repeat(1, time)


def random_mask(
    grid: tuple[int, int, int],
    mask_ratio: float = 0.9,
    batch_size: int = 1,
    seed: int | np.random.RandomState | None = None,
) -> torch.Tensor:
    """Mask tokens anywhere in space and time, others in every video.

    Args:
        grid: number of tokens along time, height and width, such as `config.token_grid`.
        mask_ratio: share of the tokens to mask, rounded down: of 8 × 14 × 14 tokens 0.9 masks 1411.
        batch_size: number of videos.
        seed: a number, for the same masks every time; or a generator to go on with. By default torch's global
            generator decides, and so `torch.manual_seed`.

    Returns:
        (B, N) booleans, true where masked, on the CPU.

    Raises:
        ValueError: a ratio that leaves no token visible or masks none.
    """
    time, height, width = grid
    return _shuffled_masks(time * height * width, mask_ratio, batch_size, seed)


def running_cell_mask(
    grid: tuple[int, int, int],
    mask_ratio: float = 0.5,
    batch_size: int = 1,
    seed: int | np.random.RandomState | None = None,
    start: int | None = None,
) -> torch.Tensor:
    """Mask quarters of all cells of 2 × 2 patches, moving on by one patch of the cell with every time.

    There are four such masks. They tell VideoMAE V2's decoder what not to predict.

    Args:
        grid: number of tokens along time, height and width, such as `config.token_grid`. On a side of odd length the
            last cells are cut.
        mask_ratio: share of the patches to mask, rounded down to quarters.
        batch_size: number of videos.
        seed: as for [`tube_mask`].
        start: which of the four masks, 0 to 3, all videos get; by default one is drawn for each. Where a side is odd
            and the number of times is no multiple of four, masks of other starts have other counts, and videos of one
            batch need the same one.

    Returns:
        (B, N) booleans, true where masked, on the CPU.

    Raises:
        ValueError: a ratio that masks no quarter or all of them, or a start that isn't there.

    Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `dataset/masking_generator.py`.
    """
    num_masked = int(4 * mask_ratio)
    if not 0 < num_masked < 4:
        raise ValueError(
            f"`mask_ratio` of a decoder's mask must mask one, two or three quarters; {mask_ratio} masks {num_masked}."
        )
    if start is None:
        generator = generator_of(seed)
        starts = torch.tensor([generator.randint(4) for _ in range(batch_size)])
    elif start in range(4):
        starts = torch.full((batch_size,), start)
    else:
        raise ValueError(f"Expected `start` from 0 to 3, got {start}.")
    time, row, column = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    # The original moves on before the first time already.
    place = (2 * (row % 2) + column % 2 + time + 1).flatten() + starts[:, None]  # (B, N)
    return place % 4 < num_masked


def dual_masks(
    grid: tuple[int, int, int],
    mask_ratio: float = 0.9,
    decoder_mask_ratio: float = 0.5,
    batch_size: int = 1,
    seed: int | np.random.RandomState | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks for encoder and decoder, as VideoMAE V2 draws them: for each video a tube mask, then a running cell.

    Args:
        grid: number of tokens along time, height and width, such as `config.token_grid`.
        mask_ratio: share of the patches that the encoder doesn't see.
        decoder_mask_ratio: share of the patches that the decoder doesn't predict. With 0 it predicts what the encoder
            doesn't see, as VideoMAE does, and nothing is drawn for it.
        batch_size: number of videos.
        seed: as for [`tube_mask`].

    Returns:
        `bool_masked_pos`, true where hidden from the encoder, and `decode_masked_pos`, true where not predicted:
        (B, N) booleans each, on the CPU.

    Raises:
        ValueError: a ratio that leaves nothing on one side.

    Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `dataset/pretrain_datasets.py`.
    """
    if decoder_mask_ratio and not 0 < int(4 * decoder_mask_ratio) < 4:
        raise ValueError(f"`decoder_mask_ratio` must be 0, or mask one to three quarters; got {decoder_mask_ratio}.")
    generator, hidden, not_decoded = generator_of(seed), [], []
    for _ in range(batch_size):
        hidden.append(tube_mask(grid, mask_ratio, seed=generator))
        if decoder_mask_ratio:
            not_decoded.append(running_cell_mask(grid, decoder_mask_ratio, seed=generator))
        else:
            not_decoded.append(~hidden[-1])
    return torch.cat(hidden), torch.cat(not_decoded)


class VideoMAEMaskCollator:
    """Makes batches of clips and draws their masks, as arguments of [`VideoMAEForPreTraining`].

    Args:
        grid: number of tokens along time, height and width, such as `config.token_grid`.
        mask_ratio: share of the patches that the encoder doesn't see.
        decoder_mask_ratio: share of the patches that the decoder doesn't predict, for VideoMAE V2's dual masking.

    Attributes:
        step: number of the training's step; masks don't depend on it.
    """

    def __init__(self, grid: tuple[int, int, int], mask_ratio: float = 0.9, decoder_mask_ratio: float = 0.0):
        self.grid, self.mask_ratio, self.decoder_mask_ratio = tuple(grid), mask_ratio, decoder_mask_ratio
        self.step = 0
        dual_masks(grid, mask_ratio, decoder_mask_ratio, seed=0)  # raises for what no mask can be

    def model_inputs(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate samples.

        Args:
            samples: each with `pixel_values_videos` (T, C, H, W).

        Returns:
            `pixel_values`, `bool_masked_pos` and, under dual masking, `decode_masked_pos`.
        """
        hidden, not_decoded = dual_masks(self.grid, self.mask_ratio, self.decoder_mask_ratio, len(samples))
        videos = torch.stack([sample["pixel_values_videos"] for sample in samples])
        inputs = {"pixel_values": videos, "bool_masked_pos": hidden}
        return inputs | ({"decode_masked_pos": not_decoded} if self.decoder_mask_ratio else {})


def _shuffled_masks(
    count: int, mask_ratio: float, batch_size: int, seed: int | np.random.RandomState | None
) -> torch.Tensor:
    """(B, count) booleans of which the share is true, one shuffle a video."""
    num_masked = int(mask_ratio * count)
    if not 0 < num_masked < count:
        raise ValueError(
            f"`mask_ratio` must mask at least one of {count} patches and leave at least one visible; {mask_ratio} "
            f"masks {num_masked}."
        )
    generator = generator_of(seed)
    masks = np.zeros((batch_size, count), dtype=bool)
    masks[:, count - num_masked :] = True
    for mask in masks:
        generator.shuffle(mask)
    return torch.from_numpy(masks)


def split_tokens(bool_masked_pos: torch.Tensor, video: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the visible and of the masked tokens of every video.

    Args:
        bool_masked_pos: (B, N), true or 1 where a token is masked, the same number in every video; or (B, K) integers
            below N, K < N, the numbers of the masked tokens. Numbers leave the result a static shape where a graph is
            traced.
        video: (B, ...), on whose device the result is. Work is done where the mask is: a mask of booleans on a GPU
            has to be waited for once, one on the CPU or numbers have not.
        grid: the video's token grid.

    Returns:
        (B, N - K) visible ones, ascending, and (B, K) masked ones, ascending or in the order given.

    Raises:
        ValueError: another shape, different counts, or no visible token; where the mask is on the CPU or traced also
            other values than 0 and 1, repeated numbers, or numbers outside the video.
    """
    mask, num_tokens = bool_masked_pos, grid.num_tokens
    _check_shape(mask, video, grid, "bool_masked_pos", is_part=mask.ndim == 2 and mask.shape[1] < num_tokens)
    if mask.shape[1] < num_tokens:
        split = _split_by_numbers(mask, num_tokens)
    else:
        split = _split_by_mask(mask, "bool_masked_pos", "visible")
    visible_ids, masked_ids = (ids.to(video.device, non_blocking=True) for ids in split)
    return visible_ids, masked_ids


def split_decoded(decode_masked_pos: torch.Tensor, video: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Numbers of the tokens that a decoder predicts, (B, tokens), ascending.

    Args:
        decode_masked_pos: (B, N), true or 1 where a token is not predicted, the same number in every video.
        video: (B, ...), on whose device the result is.
        grid: the video's token grid.

    Raises:
        ValueError: another shape, other values than 0 and 1, different counts, or nothing to predict.
    """
    _check_shape(decode_masked_pos, video, grid, "decode_masked_pos")
    decoded_ids, _ = _split_by_mask(decode_masked_pos, "decode_masked_pos", "to be predicted")
    return decoded_ids.to(video.device, non_blocking=True)


def _check_shape(mask: torch.Tensor, video: torch.Tensor, grid: Grid, name: str, is_part: bool = False) -> None:
    """Raise unless a mask has the tokens' shape or, where it is the numbers of a part of them, as many rows."""
    shape = (video.shape[0], grid.num_tokens)
    if mask.ndim != 2 or mask.shape[0] != shape[0] or (mask.shape[1] != shape[1] and not is_part):
        raise ValueError(
            f"`{name}` must have the shape (batch, tokens) = {shape}, because the input's tokens form a grid of "
            f"{grid.t} × {grid.h} × {grid.w}; got {tuple(mask.shape)}. `vidformers.tube_mask` and "
            "`vidformers.models.videomae.dual_masks` draw such masks."
        )


def _split_by_mask(mask: torch.Tensor, name: str, rest: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the tokens where a mask is off and where it is on; `rest` says what the former are."""
    if mask.dtype != torch.bool:
        is_masked = mask == 1
        require(
            (is_masked | (mask == 0)).all(),
            f"A `{name}` with an entry for every token must hold booleans, or 0 where a token is {rest} and 1 where "
            "it is not. To mask tokens of the encoder by their numbers, give fewer numbers than there are tokens.",
        )
        mask = is_masked
    counts = mask.sum(1)
    if torch.compiler.is_compiling():
        require((counts == counts[0]).all(), f"`{name}` must mask the same number of tokens in every video.")
        num_masked = counts[0].item()
    else:
        num_masked, *others = numbers = counts.tolist()
        if any(other != num_masked for other in others):
            raise ValueError(
                f"`{name}` must mask the same number of tokens in every video, got {numbers}: tokens {rest} share one "
                "tensor in a batch. Draw masks of one ratio (and of one `start`, on grids with odd sides), or run the "
                "videos one by one."
            )
    num_left = mask.shape[1] - num_masked
    torch._check_value(num_left >= 1, lambda: f"`{name}` masks all tokens: leave at least one {rest}.")
    order = ascending_order(mask)  # (B, N): those left come first
    return order[:, :num_left], order[:, num_left:]


def _split_by_numbers(masked_ids: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    if masked_ids.is_floating_point() or masked_ids.dtype == torch.bool:
        raise ValueError(
            f"`bool_masked_pos` of {masked_ids.dtype} must have an entry for each of the {num_tokens} tokens, got "
            f"{masked_ids.shape[1]}; fewer entries are read as the integer numbers of the masked tokens."
        )
    masked_ids = masked_ids.long()
    require(
        ((masked_ids >= 0) & (masked_ids < num_tokens)).all(),
        f"Token numbers in `bool_masked_pos` must lie between 0 and {num_tokens - 1}.",
    )
    mask = masked_ids.new_zeros(masked_ids.shape[0], num_tokens, dtype=torch.uint8).scatter(1, masked_ids, 1)
    num_masked = masked_ids.shape[1]
    require(
        (mask.sum(1) == num_masked).all(), "A token number occurs twice in a row of `bool_masked_pos`; give each once."
    )
    return ascending_order(mask)[:, : num_tokens - num_masked], masked_ids


def require(condition: torch.Tensor, message: str) -> None:
    """A ValueError unless the condition, a scalar tensor on the CPU, holds; in a traced graph it is an assertion."""
    if torch.compiler.is_compiling():
        torch._assert_async(condition, message)
    elif condition.device.type == "cpu" and not condition:
        raise ValueError(message)


__all__ = ["VideoMAEMaskCollator", "dual_masks", "random_mask", "running_cell_mask", "tube_mask"]
