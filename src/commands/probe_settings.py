"""How probes are trained and measured: the numbers, and those that V-JEPA 2's authors publish."""

from dataclasses import dataclass
from itertools import product
from typing import Any


ORIGINAL_STEP = 4
_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 5e-3)
PUBLISHED: dict[str, dict[str, Any]] = {
    "videos": {"rates": _RATES, "decays": (0.01, 0.1, 0.4, 0.8), "views": 3, "frame_step": ORIGINAL_STEP},
    "images": {
        "rates": (5e-4, 1e-3, 1.5e-3, 2e-3),
        "decays": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
        "warmup": 5.0,
        "start_rate": 2e-4,
    },
    "actions": {"rates": _RATES, "decays": (1e-4, 1e-3, 0.01, 0.1), "loss": "focal"},
}
"""Settings of the original's evaluations of Kinetics-400, ImageNet (but for the last of its 21 heads) and
EPIC-KITCHENS-100."""


@dataclass(frozen=True)
class Settings:
    """How probes are trained and measured.

    Attributes:
        epochs: passes over the clips.
        batch_size: clips of a step.
        rates: learning rates. Each falls along a cosine to zero.
        decays: weight decays; there is a head for every pair of both.
        warmup: epochs in which rates rise from `start_rate` first.
        start_rate: where they rise from.
        layers: self-attention blocks of a head before its cross-attention.
        segments: parts of a video, of each of which the model sees a clip.
        views: crops of a clip in validation and test, whose probabilities are averaged; in training it is one.
        frame_step: frames from one of a clip to the next; `None` for the model's processor to choose and prepare them.
        fps: frames per second of the clips before an action.
        out_layers: blocks of a V-JEPA encoder whose outputs heads read side by side, from 0; by default the last one.
        augment: draw training clips and their views anew in every epoch, so that none of their features are kept.
        loss: "cross_entropy" or "focal".
        as_original: validation takes drawn clips of videos, and leaves out the last ones that fill no batch.
        max_unreadable: share of the clips that may be unusable.
        seed: decides the splits, the order, what is drawn and the new heads.
    """

    epochs: int = 20
    batch_size: int = 8
    rates: tuple[float, ...] = (1e-3, 3e-3)
    decays: tuple[float, ...] = (0.1,)
    warmup: float = 0.0
    start_rate: float = 0.0
    layers: int = 0
    segments: int = 1
    views: int = 1
    frame_step: int | None = None
    fps: float = 8.0
    out_layers: tuple[int, ...] | None = None
    augment: bool = False
    loss: str = "cross_entropy"
    as_original: bool = False
    max_unreadable: float = 0.1
    seed: int = 0

    @classmethod
    def original(cls, of: str = "videos", **others: Any) -> "Settings":
        """Those of the original's evaluation, as far as `others` don't say otherwise.

        Args:
            of: "videos", "images" or "actions".
            **others: fields.
        """
        return cls(as_original=True, **{"layers": 3, "augment": True, **PUBLISHED[of], **others})

    @property
    def step(self) -> int | None:
        """`frame_step`, or that of the original where the processor can't make segments, views and augmentations."""
        plain = self.segments == self.views == 1 and not self.augment
        return self.frame_step or (None if plain else ORIGINAL_STEP)

    @property
    def heads(self) -> list[dict[str, float]]:
        """What [`~vidformers.training.ProbeTrainer`] takes, a head for every pair of rate and decay."""
        rises = {"start_lr": self.start_rate, "warmup": self.warmup}
        return [
            {"ref_lr": rate, "final_lr": 0.0, "ref_wd": decay, "final_wd": decay, **rises}
            for rate, decay in product(self.rates, self.decays)
        ]

    def check_for_images(self) -> None:
        """A ValueError unless these can be settings of images."""
        if self.segments > 1 or self.views > 1 or self.frame_step is not None:
            raise ValueError(
                "Images are seen whole and still: leave segments, views and the step of frames out "
                f"(got {self.segments}, {self.views} and {self.frame_step})."
            )
