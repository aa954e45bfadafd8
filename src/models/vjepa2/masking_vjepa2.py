"""Masks of V-JEPA 2: the selections of tokens that the encoder sees and that the predictor predicts.

Shapes: B videos of N tokens on a grid; M selections ("masks") from every video, K context tokens and L target tokens
each. Whatever holds several selections holds them one after the other: (M·B, K).
"""

import torch

from vidformers.layers.patchify import Grid


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
