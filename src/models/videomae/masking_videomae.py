"""Masks for VideoMAE's pre-training: how they are drawn, and what they say about the tokens of a video.

Shapes: B videos, N tokens on a grid of t × h × w, of which K are masked.
"""

import numpy as np
import torch

from vidformers.layers.patchify import Grid


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
    if seed is None:
        seed = int(torch.randint(2**32, ()))
    generator = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
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
    if mask.ndim != 2 or mask.shape[0] != video.shape[0] or mask.shape[1] > num_tokens:
        raise ValueError(
            f"`bool_masked_pos` must have the shape (batch, tokens) = ({video.shape[0]}, {num_tokens}), because the "
            f"input's tokens form a grid of {grid.t} × {grid.h} × {grid.w}; got {tuple(bool_masked_pos.shape)}. "
            "`vidformers.tube_mask` draws such masks."
        )
    if mask.shape[1] < num_tokens:
        split = _split_by_numbers(mask, num_tokens)
    else:
        split = _split_by_mask(mask if mask.dtype == torch.bool else _as_booleans(mask))
    visible_ids, masked_ids = (ids.to(video.device, non_blocking=True) for ids in split)
    return visible_ids, masked_ids


def _as_booleans(mask: torch.Tensor) -> torch.Tensor:
    is_masked = mask == 1
    _require(
        (is_masked | (mask == 0)).all(),
        "A `bool_masked_pos` with an entry for every token must hold booleans, or 0 where a token is visible and 1 "
        "where it is masked. To mask tokens by their numbers, give fewer numbers than there are tokens.",
    )
    return is_masked


def _split_by_mask(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    counts = mask.sum(1)
    if torch.compiler.is_compiling():
        _require((counts == counts[0]).all(), "`bool_masked_pos` must mask the same number of tokens in every video.")
        num_masked = counts[0].item()
    else:
        num_masked, *others = numbers = counts.tolist()
        if any(other != num_masked for other in others):
            raise ValueError(
                f"`bool_masked_pos` must mask the same number of tokens in every video, got {numbers}: videos of a "
                "batch share one tensor of visible tokens. Draw masks of one ratio, or run the videos one by one."
            )
    num_visible = mask.shape[1] - num_masked
    torch._check_value(num_visible >= 1, lambda: "`bool_masked_pos` masks all tokens: leave at least one visible.")
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)  # (B, N): visible ones first
    return order[:, :num_visible], order[:, num_visible:]


def _split_by_numbers(masked_ids: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    if masked_ids.is_floating_point() or masked_ids.dtype == torch.bool:
        raise ValueError(
            f"`bool_masked_pos` of {masked_ids.dtype} must have an entry for each of the {num_tokens} tokens, got "
            f"{masked_ids.shape[1]}; fewer entries are read as the integer numbers of the masked tokens."
        )
    masked_ids = masked_ids.long()
    _require(
        ((masked_ids >= 0) & (masked_ids < num_tokens)).all(),
        f"Token numbers in `bool_masked_pos` must lie between 0 and {num_tokens - 1}.",
    )
    mask = masked_ids.new_zeros(masked_ids.shape[0], num_tokens, dtype=torch.uint8).scatter(1, masked_ids, 1)
    num_masked = masked_ids.shape[1]
    _require(
        (mask.sum(1) == num_masked).all(), "A token number occurs twice in a row of `bool_masked_pos`; give each once."
    )
    return mask.argsort(dim=1, stable=True)[:, : num_tokens - num_masked], masked_ids


def _require(condition: torch.Tensor, message: str) -> None:
    """A ValueError unless the condition, a scalar tensor on the CPU, holds; in a traced graph it is an assertion."""
    if torch.compiler.is_compiling():
        torch._assert_async(condition, message)
    elif condition.device.type == "cpu" and not condition:
        raise ValueError(message)


__all__ = ["random_mask", "tube_mask"]
