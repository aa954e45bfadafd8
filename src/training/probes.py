"""Training of probes: many heads at once on the features of one frozen model, each with settings of its own.

Source: facebookresearch/vjepa2 at c2963a47, `evals/video_classification_frozen/eval.py`,
`evals/image_classification_frozen/eval.py` and `evals/action_anticipation_frozen/eval.py`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidformers.models.attentive_pooler import ProbeFeatures
from vidformers.models.pretrained import VideoPreTrainedModel

from .losses import sigmoid_focal_loss
from .schedules import cosine_decay_schedule, warmup_cosine_schedule


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "focal": sigmoid_focal_loss,
}
SETTINGS = {"ref_wd", "final_wd", "start_lr", "ref_lr", "final_lr", "warmup"}


class ProbeTrainer:
    """Trains the heads of probes. The model runs once for all of them, without gradients.

    Every head has an AdamW for all of its parameters, biases and norms included, with a learning rate that warms up
    and falls along a cosine, and a weight decay that goes along a cosine.

    Args:
        model: a model with a probe (`has_probe`), such as [`VJEPA2ForVideoClassification`]. It is frozen and set to
            evaluation.
        heads: state dicts of what isn't the model's encoder, one a head, such as `pooler.query_tokens` (1, Q, D).
        settings: for each head `ref_wd`, `final_wd`, `start_lr`, `ref_lr`, `final_lr` and `warmup`, in epochs.
        iterations_per_epoch: number of steps of an epoch.
        num_epochs: number of epochs.
        loss: "cross_entropy", or "focal" for the sum of [`sigmoid_focal_loss`].

    Attributes:
        model: the model.
        heads: modules with the names of the state dicts.
        step: number of steps so far; setting it moves on all schedules.

    Raises:
        ValueError: settings that don't fit, an unknown loss, or a model without a probe.
    """

    def __init__(
        self,
        model: VideoPreTrainedModel,
        heads: Sequence[Mapping[str, torch.Tensor]],
        settings: Sequence[Mapping[str, float]],
        *,
        iterations_per_epoch: int,
        num_epochs: int,
        loss: str = "cross_entropy",
    ):
        if loss not in LOSSES:
            raise ValueError(f"Expected `loss` to be one of {', '.join(LOSSES)}, got {loss!r}.")
        if not heads or len(heads) != len(settings) or any(set(each) != SETTINGS for each in settings):
            raise ValueError(
                f"Expected as many settings as heads, at least one, each with {', '.join(sorted(SETTINGS))}; got "
                f"{len(heads)} heads and {[sorted(each) for each in settings]}."
            )
        if iterations_per_epoch < 1 or num_epochs < 1:
            raise ValueError(
                f"Expected `iterations_per_epoch` and `num_epochs` of at least 1, got {iterations_per_epoch} and "
                f"{num_epochs}."
            )
        self.model = model.eval().requires_grad_(False)
        self.heads = [self._head(state) for state in heads]
        self.settings = list(settings)
        self.optimizers = [
            torch.optim.AdamW(head.parameters(), lr=each["ref_lr"], weight_decay=each["ref_wd"])
            for head, each in zip(self.heads, self.settings, strict=True)
        ]
        self.iterations_per_epoch, self.num_epochs = iterations_per_epoch, num_epochs
        self.loss, self.step = LOSSES[loss], 0

    def _head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """A module of copies of the model's own parts, but for its base model, with other values."""
        head = nn.Module()
        for name, part in self.model.named_children():
            if name != self.model.base_model_prefix:
                head.add_module(name, copy.deepcopy(part))
        if not self.model.has_probe:
            raise ValueError(f"{type(self.model).__name__} has no probe to train.")
        head.load_state_dict(state)
        return head.requires_grad_(True)

    def train_step(self, **batch: torch.Tensor) -> torch.Tensor:
        """Train all heads on the same videos.

        Args:
            batch: arguments of the model's `forward`, such as videos (B, T, C, H, W) and labels (B,). The losses of
                several views of a video add up.

        Returns:
            (heads,) losses. Where there are several sets of labels, theirs are summed.

        Raises:
            ValueError: no labels.
        """
        inputs, labels = _apart(batch)
        if not labels:
            raise ValueError("Training needs labels, as an argument of the model's `forward`.")
        with torch.no_grad():
            features = self.model.probe_features(**inputs)
        return self.train_on(features, **labels)

    def train_on(self, features: ProbeFeatures, **labels: torch.Tensor) -> torch.Tensor:
        """As `train_step`, of features that the model made before.

        Args:
            features: of the model's `probe_features`.
            labels: (B,) class numbers, under the names that the model's `forward` has for them.

        Returns:
            (heads,) losses.
        """
        self._schedule()
        losses = []
        for head, optimizer in zip(self.heads, self.optimizers, strict=True):
            logits = self.model.probe_logits(self.model.probe_output(features, head=head.train()))
            loss = sum(self._loss(logits[name], target) for name, target in labels.items())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        self.step += 1
        return torch.stack(losses)

    @torch.no_grad()
    def predict(self, **inputs: torch.Tensor) -> list[Any]:
        """What each head makes of videos.

        Args:
            inputs: arguments of the model's `forward`, such as videos (B, T, C, H, W).

        Returns:
            An output of the model for each head.
        """
        inputs, labels = _apart(inputs)
        return self.predict_from(self.model.probe_features(**inputs), **labels)

    @torch.no_grad()
    def predict_from(self, features: ProbeFeatures, **labels: torch.Tensor) -> list[Any]:
        """As `predict`, from features that the model made before.

        Args:
            features: of the model's `probe_features`.
            labels: (B,) class numbers, under the names that the model's `forward` has for them.

        Returns:
            An output of the model for each head.
        """
        return [self.model.probe_output(features, head=head.eval(), **labels) for head in self.heads]

    def state_dict(self) -> dict[str, Any]:
        """What a training goes on from: the heads, their optimizers and the number of steps."""
        return {
            "heads": [head.state_dict() for head in self.heads],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, with as many heads."""
        for head, values in zip(self.heads, state["heads"], strict=True):
            head.load_state_dict(values)
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.step = state["step"]

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss in float32; of logits (B, views, classes) the sum over views."""
        views = logits.float().unbind(1) if logits.ndim == 3 else [logits.float()]
        return sum(self.loss(view, labels) for view in views)

    def _schedule(self) -> None:
        """Set the rates of this step."""
        total = self.num_epochs * self.iterations_per_epoch
        for optimizer, each in zip(self.optimizers, self.settings, strict=True):
            (group,) = optimizer.param_groups
            group["lr"] = warmup_cosine_schedule(
                self.step,
                start=each["start_lr"],
                ref=each["ref_lr"],
                final=each["final_lr"],
                warmup_steps=int(each["warmup"] * self.iterations_per_epoch),
                total_steps=total,
            )
            group["weight_decay"] = cosine_decay_schedule(
                self.step, ref=each["ref_wd"], final=each["final_wd"], total_steps=total
            )


def _apart(batch: Mapping[str, torch.Tensor | None]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a model reads, and the labels that are given."""
    inputs = {name: value for name, value in batch.items() if not name.endswith("labels")}
    return inputs, {name: each for name, each in batch.items() if name.endswith("labels") and each is not None}
