"""What heads of a probe are measured by."""

from collections.abc import Mapping
from typing import Any

import torch

from vidformers.training import ClassMeanRecall


class Accuracy:
    """Counts which class of videos was taken for which."""

    score = "accuracy"

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.long)

    def update(self, output: Any, labels: Mapping[str, torch.Tensor]) -> None:
        """Count a batch."""
        found, labels = output.logits.argmax(-1).cpu(), labels["labels"].cpu()
        size = len(self.counts)
        self.counts += (labels * size + found).bincount(minlength=size**2).unflatten(0, (size, size))

    def compute(self) -> dict[str, float]:
        """The share of the videos whose class was told."""
        total = self.counts.sum().item()
        if not total:
            raise ValueError("No clip was measured: there are fewer than fill a batch. Choose a smaller `batch_size`.")
        return {"accuracy": self.counts.trace().item() / total}

    @property
    def confusion(self) -> list[list[int]]:
        """(classes, classes), how many clips of a row's class were taken for a column's."""
        return self.counts.tolist()


class Recalls:
    """Class-mean recall at 5 of actions, verbs and nouns, and the share of the videos; from 0 to 1."""

    score, confusion = "action_recall", None

    def __init__(self, **num_classes: int):
        self.meters = {name: ClassMeanRecall(number) for name, number in num_classes.items()}

    def update(self, output: Any, labels: Mapping[str, torch.Tensor]) -> None:
        """Count a batch."""
        for name, meter in self.meters.items():
            prefix = "" if name == "action" else f"{name}_"
            meter.update(output[f"{prefix}logits"].float().cpu(), labels[f"{prefix}labels"].cpu())

    def compute(self) -> dict[str, float]:
        """The numbers of all three."""
        found = {name: meter.compute() for name, meter in self.meters.items()}
        kinds = (("recall", "recall"), ("accuracy", "top5"))
        return {f"{name}_{ours}": each[theirs] / 100 for name, each in found.items() for theirs, ours in kinds}


Meter = Accuracy | Recalls
