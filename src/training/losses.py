"""Losses of classifiers."""

import torch
from torch import nn


def sigmoid_focal_loss(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "sum"
) -> torch.Tensor:
    """Binary cross-entropy of every class, less of those that are told well already.

    Args:
        logits: (B, classes).
        labels: (B,) class numbers.
        alpha: weight of the right class, the others having 1 - alpha; below 0 all count alike.
        gamma: exponent of the share that is told wrongly.
        reduction: "sum", as V-JEPA 2's probes have it, or "mean", over batch and classes.

    Returns:
        A scalar.

    Raises:
        ValueError: another reduction.

    Source: https://arxiv.org/abs/1708.02002; facebookresearch/vjepa2 at c2963a47,
    `evals/action_anticipation_frozen/losses.py`.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f'Expected reduction="sum" or "mean", got {reduction!r}.')
    right = nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    wrongly = (right - logits.sigmoid()).abs()
    losses = nn.functional.binary_cross_entropy_with_logits(logits, right, reduction="none") * wrongly**gamma
    if alpha >= 0:
        losses = losses * (alpha * right + (1 - alpha) * (1 - right))
    return losses.sum() if reduction == "sum" else losses.mean()
