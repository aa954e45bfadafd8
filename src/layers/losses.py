"""Losses that several families share."""

import torch
from torch import nn


def contrastive_loss(similarity: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy of matching pairs in both directions, averaged (https://arxiv.org/abs/2103.00020).

    Args:
        similarity: (N, N) scaled similarities; entry (i, i) belongs to a matching pair, all others don't match.

    Returns:
        A scalar, in float32.

    Raises:
        ValueError: the matrix isn't square, so that pairs cannot be told.
    """
    _check_pairs(similarity)
    similarity = similarity.float()
    pairs = torch.arange(similarity.shape[0], device=similarity.device)
    return (nn.functional.cross_entropy(similarity, pairs) + nn.functional.cross_entropy(similarity.T, pairs)) / 2


def sigmoid_loss(logits: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of every pair, summed over the texts of a video (https://arxiv.org/abs/2303.15343).

    Args:
        logits: (N, N); entry (i, i) belongs to a matching pair, all others don't match.

    Returns:
        A scalar, in float32: the mean over videos.

    Raises:
        ValueError: the matrix isn't square, so that pairs cannot be told.
    """
    _check_pairs(logits)
    signs = 2 * torch.eye(logits.shape[0], device=logits.device) - 1
    return -nn.functional.logsigmoid(signs * logits.float()).sum() / logits.shape[0]


def _check_pairs(matrix: torch.Tensor) -> None:
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"The contrastive loss needs as many texts as videos, pair by pair, got {matrix.shape[0]} videos and "
            f"{matrix.shape[1]} texts."
        )
