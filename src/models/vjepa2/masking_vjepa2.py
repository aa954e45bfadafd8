"""Masks of V-JEPA 2: the selections of tokens that the encoder sees and that the predictor predicts.

How they are drawn for pre-training stands in `sampling_vjepa2.py`.

Shapes: B videos of N tokens on a grid; M selections ("masks") from every video, K context tokens and L target tokens
each. Whatever holds several selections holds them one after the other: (M·B, K).
"""

import torch

from vidformers.layers.patchify import Grid, split_token_ids


Masks = torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...]


def join_masks(name: str, masks: Masks, video: torch.Tensor, limit: int | None = None) -> torch.Tensor:
    """Check selections of tokens and put them one after the other.

    Args:
        name: the argument's name, for errors.
        masks: (B, K) token numbers, or a list of M such tensors.
        video: (B, ...), the input that they select from.
        limit: number of tokens of the input, where the selection must lie inside it.

    Returns:
        (M·B, K), int64, on the video's device.

    Raises:
        ValueError: an empty list, selections of different shapes, another batch size, or numbers outside the input.
    """
    masks = [masks] if isinstance(masks, torch.Tensor) else list(masks)
    if not torch.compiler.is_compiling():
        check_masks(name, masks, video.shape[0], limit)
    return torch.cat([mask.to(video.device, torch.long) for mask in masks])


def check_masks(name: str, masks: list[torch.Tensor], batch_size: int, limit: int | None) -> None:
    """The checks of [`join_masks`]. Numbers are looked at on the CPU only, where that costs no synchronization."""
    shapes = [tuple(mask.shape) for mask in masks]
    if not masks or len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][0] != batch_size or shapes[0][1] == 0:
        raise ValueError(
            f"`{name}` must hold token numbers of shape (batch = {batch_size}, count ≥ 1), the same count in every "
            f"tensor of a list; got {shapes}. Cut longer ones, or run selections of different counts one by one."
        )
    if any(mask.is_floating_point() or mask.dtype == torch.bool for mask in masks):
        raise ValueError(
            f"`{name}` must hold integer token numbers, got {masks[0].dtype}. A boolean mask with the same count in "
            "every row becomes one by `mask.nonzero()[:, 1].view(len(mask), -1)`."
        )
    if all(mask.device.type == "cpu" for mask in masks):
        low, high = (int(extreme(torch.cat(masks))) for extreme in (torch.min, torch.max))
        if low < 0 or (limit is not None and high >= limit):
            inside = "not be negative" if limit is None else f"lie between 0 and {limit - 1}"
            raise ValueError(f"Token numbers in `{name}` must {inside}; got {low} to {high}.")


def highest_on_cpu(masks: Masks, default: int) -> int:
    """The highest token number of masks, if all are on the CPU, where looking costs no wait; else `default`."""
    masks = [masks] if isinstance(masks, torch.Tensor) else list(masks)
    if any(mask.device.type != "cpu" for mask in masks):
        return default
    return max(int(mask.max()) for mask in masks)


def pair_masks(
    video: torch.Tensor,
    features: torch.Tensor,
    grid: Grid,
    context_mask: Masks | None,
    target_mask: Masks | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bring context and targets together, selection by selection; without a mask, all tokens for each selection.

    Args:
        video: (B, ...), the input.
        features: (M·B, K, D) of the context tokens, or (B, N, D) without `context_mask`.
        grid: the grid of the whole input.
        context_mask: (B, K) token numbers, or a list of M such tensors.
        target_mask: (B, L) token numbers, or a list of M such tensors.

    Returns:
        Features (M·B, K, D) and numbers (M·B, K) of the context tokens, and numbers (M·B, L) of the targets.

    Raises:
        ValueError: different numbers of selections, or masks that [`join_masks`] refuses.
    """
    num_contexts, num_targets = (
        1 if mask is None or isinstance(mask, torch.Tensor) else len(mask) for mask in (context_mask, target_mask)
    )
    if context_mask is not None and target_mask is not None and num_contexts != num_targets:
        raise ValueError(
            f"`context_mask` and `target_mask` form pairs, got {num_contexts} and {num_targets}. Give as many of "
            "one as of the other, repeating where one serves several."
        )
    num_pairs = max(num_contexts, num_targets)
    every = torch.arange(grid.num_tokens, device=features.device).expand(video.shape[0], -1)  # (B, N)
    if context_mask is None:
        context_ids, features = every.repeat(num_pairs, 1), features.repeat(num_pairs, 1, 1)
    else:
        context_ids = join_masks("context_mask", context_mask, video)
    if target_mask is None:
        target_ids = every.repeat(num_pairs, 1)
    else:
        target_ids = join_masks("target_mask", target_mask, video)
    return features, context_ids, target_ids


def context_distances(
    context_mask: torch.Tensor, target_mask: torch.Tensor, grid: tuple[int, int, int], offset: bool = False
) -> torch.Tensor:
    """How far every context token lies from the target token next to it, by which V-JEPA 2.1 weights its error.

    Args:
        context_mask: (B, K) token numbers.
        target_mask: (B, L) token numbers.
        grid: number of tokens along time, height and width.
        offset: divide distances by the sixteenth part of the grid's smaller side, rounded down and at least 1, so that
            they count alike at other resolutions.

    Returns:
        (B, K) float32, the square root of the Euclidean distance in steps of the grid.

    Raises:
        ValueError: masks that aren't two-dimensional, of different batch sizes, or without targets.

    Source: facebookresearch/vjepa2 at 204698b4, `app/vjepa_2_1/models/utils/masks_dist.py`, which takes square grids
    alone and, with `offset`, none of fewer than 16 rows.
    """
    shapes = [tuple(mask.shape) for mask in (context_mask, target_mask)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != shapes[1][0] or not shapes[1][1]:
        raise ValueError(f"Expected context (batch, K) and target (batch, L ≥ 1) token numbers, got {shapes}.")
    context, target = (
        torch.stack(split_token_ids(mask, Grid(*grid)), dim=-1).float() for mask in (context_mask, target_mask)
    )  # (B, K or L, 3)
    # Differences of whole numbers are exact, unlike the products that cdist takes in their place by default.
    distances = torch.cdist(context, target, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
    return (distances / (max(min(grid[1:]) // 16, 1) if offset else 1)).sqrt()


__all__ = ["context_distances"]
