"""Losses that several families share."""

from typing import Any

import torch
from torch import distributed, nn


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


def gather_pairs(videos: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings of the pairs of all processes, so that each one's loss has the negatives of all.

    Gradients flow back to the process that an embedding came from, from the losses of all processes; their mean over
    the processes, which data-parallel training takes, is the gradient of one process with all pairs (as open_clip's
    `gather_features` with `gather_with_grad`). In one process both are returned as they are.

    Args:
        videos: (N, D), of this process. Each process has as many.
        texts: (N, D), theirs.

    Returns:
        Both (processes · N, D), in the order of the processes.

    Raises:
        ValueError: other numbers of texts than of videos, or of pairs in different processes.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return videos, texts
    count = torch.tensor([len(videos), len(texts)], device=videos.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    found = sorted({tuple(each.tolist()) for each in counts})
    if len(found) > 1 or found[0][0] != found[0][1]:
        raise ValueError(
            "The contrastive loss needs as many pairs in each process, got (videos, texts) of "
            f"{', '.join(map(str, found))}. Leave out the last batch of an epoch: drop_last=True."
        )
    return _Gathered.apply(videos), _Gathered.apply(texts)


class _Gathered(torch.autograd.Function):
    """Rows of all processes; the gradient of a process' rows is the sum of what all processes have for them."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.count = len(rows)
        gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        start = distributed.get_rank() * ctx.count
        return summed[start : start + ctx.count]
