"""A toy that predicts features: a tiny V-JEPA 2, trained in six minutes on one core where a picture of it is drawn.

It sees a part of a clip of a moving shape (shapes.py), and predicts the features of the rest. A slowly moving copy of
its encoder, the teacher, says what they are.
"""

from dataclasses import dataclass

import numpy as np
import shapes
import shapes_clip
import torch
import training

from vidformers import VJEPA2Config, VJEPA2ForPreTraining
from vidformers.models.vjepa2 import VJEPA2MaskCollator


ASPECT_RATIO = (0.75, 1.5)
SMALL_BLOCKS = {"num_blocks": 4, "spatial_scale": (0.15, 0.15), "aspect_ratio": ASPECT_RATIO}
LARGE_BLOCK = {"num_blocks": 1, "spatial_scale": (0.5, 0.5), "aspect_ratio": ASPECT_RATIO}
PREDICTOR = {"pred_hidden_size": 48, "pred_num_hidden_layers": 3, "pred_num_attention_heads": 4, "pred_mlp_ratio": 2}
PREDICTOR |= {"pred_num_mask_tokens": 2, "pred_zero_init_mask_tokens": False}


@dataclass(frozen=True)
class Settings(training.Settings):
    """What a training run depends on. Sizes are in pixels, frames and channels."""

    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 1e-3
    image_size: int = 64
    patch_size: int = 8
    num_frames: int = 8
    tubelet_size: int = 2
    hidden_size: int = 96
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    first_momentum: float = 0.99
    last_momentum: float = 0.999

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        side = self.image_size // self.patch_size
        return self.num_frames // self.tubelet_size, side, side


def build_model(settings: Settings) -> VJEPA2ForPreTraining:
    """The model with random weights."""
    names = ("patch_size", "tubelet_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    fields = {name: getattr(settings, name) for name in names}
    sizes = {"crop_size": settings.image_size, "frames_per_clip": settings.num_frames, "mlp_ratio": 2}
    return VJEPA2ForPreTraining(VJEPA2Config(**fields, **sizes, **PREDICTOR))


def build_collator(masks: list[dict], settings: Settings) -> VJEPA2MaskCollator:
    """What draws masks of the given kinds for clips."""
    return VJEPA2MaskCollator(
        masks,
        [settings.num_frames],
        crop_size=settings.image_size,
        patch_size=settings.patch_size,
        tubelet_size=settings.tubelet_size,
    )


def train(settings: Settings) -> VJEPA2ForPreTraining:
    """Train a model."""
    torch.manual_seed(settings.seed)
    model, collator = build_model(settings), build_collator([SMALL_BLOCKS, LARGE_BLOCK], settings)
    step = 0

    def loss_on(scenes: list[shapes.Scene], rng: np.random.Generator) -> torch.Tensor:
        clips = shapes_clip.draw_pixels(scenes, rng, settings)
        return model(**collator.model_inputs([{"pixel_values_videos": clip} for clip in clips])).loss

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        chosen = rng.choice(len(shapes.TRAINING), settings.batch_size, replace=False)
        return loss_on([shapes.TRAINING[index] for index in chosen], rng)

    def update_teacher() -> None:
        nonlocal step
        done, step = step / settings.steps, step + 1
        model.update_teacher(settings.first_momentum + done * (settings.last_momentum - settings.first_momentum))

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        loss = loss_on(list(shapes.HELD_OUT), np.random.default_rng([settings.seed, 1]))
        return {"held_out_loss": round(loss.item(), 4)}

    training.fit(model, settings, batch_loss, evaluate, after_step=update_teacher)
    return model
