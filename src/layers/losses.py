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
    check_pairs(similarity)
    similarity = similarity.float()
    pairs = torch.arange(similarity.shape[0], device=similarity.device)
    return (nn.functional.cross_entropy(similarity, pairs) + nn.functional.cross_entropy(similarity.T, pairs)) / 2


def check_pairs(matrix: torch.Tensor) -> None:
    """A ValueError for similarities of videos (rows) and texts that aren't as many as the videos."""
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"The contrastive loss needs as many texts as videos, pair by pair, got {matrix.shape[0]} videos and "
            f"{matrix.shape[1]} texts."
        )
