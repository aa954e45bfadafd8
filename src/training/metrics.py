"""Metrics that add up over the batches of an evaluation."""

from collections.abc import Collection

import torch


class ClassMeanRecall:
    """Share of videos whose class is among the k most likely ones, for each class and its mean over classes.

    Args:
        num_classes: number of classes.
        k: how many most likely classes count.

    Attributes:
        hits: (num_classes,) videos of each class that were told.
        misses: (num_classes,) those that weren't.

    Source: facebookresearch/vjepa2 at c2963a47, `evals/action_anticipation_frozen/metrics.py`. There, processes add
    their counts up; here, `hits` and `misses` are for the caller to add.
    """

    def __init__(self, num_classes: int, k: int = 5):
        if num_classes < 1 or k < 1:
            raise ValueError(f"Expected `num_classes` and `k` of at least 1, got {num_classes} and {k}.")
        self.k = k
        self.hits, self.misses = torch.zeros(num_classes), torch.zeros(num_classes)

    @torch.no_grad()
    def update(self, logits: torch.Tensor, labels: torch.Tensor, valid_classes: Collection[int] | None = None) -> None:
        """Count a batch.

        Args:
            logits: (B, num_classes).
            labels: (B,) class numbers.
            valid_classes: the classes that may be told; the others count as impossible.

        Raises:
            ValueError: logits of another number of classes.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.hits) or tuple(labels.shape) != (len(logits),):
            raise ValueError(
                f"Expected logits (batch, {len(self.hits)}) and labels (batch,), got {tuple(logits.shape)} and "
                f"{tuple(labels.shape)}."
            )
        scores, labels = logits.sigmoid(), labels.to(logits.device)
        if valid_classes is not None:
            valid = torch.zeros(len(self.hits), dtype=torch.bool, device=logits.device)
            valid[list(valid_classes)] = True
            scores = torch.where(valid, scores, 0.0)
        best = scores.topk(min(self.k, scores.shape[1]), dim=1).indices
        is_hit = (best == labels[:, None]).any(1).cpu()
        for counts, chosen in ((self.hits, is_hit), (self.misses, ~is_hit)):
            counts += labels.cpu()[chosen].bincount(minlength=len(counts))

    def compute(self) -> dict[str, float]:
        """What was counted so far, in percent.

        Returns:
            `recall`, the mean over the classes that occurred, and `accuracy`, the share of all videos.

        Raises:
            ValueError: nothing was counted.
        """
        counts = self.hits + self.misses
        if not counts.any():
            raise ValueError("No video was counted: call `update` before `compute`.")
        recall = (self.hits / (counts + 1e-8)).sum() / (counts > 0).sum()
        return {"recall": 100 * recall.item(), "accuracy": 100 * (self.hits.sum() / counts.sum()).item()}


MOST_TOKENS = 4096
"""Tokens that the spread of features is computed of, spread evenly where there are more."""


@torch.no_grad()
def feature_spread(features: torch.Tensor) -> dict[str, torch.Tensor]:
    """How much features differ from token to token, by which a collapse shows: both numbers then fall.

    Args:
        features: (tokens, D).

    Returns:
        Two scalars on the CPU, NaN for features that are no numbers. `std`, the mean over channels of the standard
        deviation over tokens; and `effective_rank`, the exponential of the entropy of the shares that the singular
        values of the centered features have of their sum: 1 if all lie on a line, D if they spread alike in all
        directions.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007).
    """
    # In single precision, the roots of eigenvalues that should be 0 count.
    features = features[:: max(len(features) // MOST_TOKENS, 1)].to("cpu", torch.float64)
    centered = features - features.mean(0)
    covariance = centered.T @ centered / max(len(centered) - 1, 1)
    std = covariance.diagonal().sqrt().mean()
    if not std.isfinite():  # There are no eigenvalues.
        return {"std": std, "effective_rank": std * torch.nan}
    singular_values = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
    shares = singular_values / singular_values.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return {"std": std, "effective_rank": torch.special.entr(shares).sum().exp()}
