"""The model that fills in hidden parts of clips of moving shapes: a tiny VideoMAE, which train_demo.py trains.

It sees clips of 120 of 144 scenes (see shapes.py) with three quarters of each hidden, other ones in every clip,
and predicts the hidden pixels as they are: without the normalization of targets that published checkpoints have, after
which a picture needs each hidden patch's true brightness and contrast.

Its error is the root mean square over the hidden pixels of clips of the other 24 scenes, where pixels run from 0 to 1.
It is compared with two ways of filling in without a model: the mean color of a frame's visible patches, and for each
hidden patch a copy of the nearest visible one.
"""

from dataclasses import dataclass

import numpy as np
import shapes
import torch
import training

from vidformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEVideoProcessor, tube_mask


@dataclass(frozen=True)
class Settings(training.Settings):
    """What a training run depends on. Sizes are in pixels, frames and channels."""

    steps: int = 2500
    batch_size: int = 16
    learning_rate: float = 3e-3
    evaluate_every: int = 100
    mask_ratio: float = 0.75
    image_size: int = 64
    patch_size: int = 8
    num_frames: int = 8
    hidden_size: int = 96
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int = 192
    decoder_hidden_size: int = 80
    decoder_num_hidden_layers: int = 3
    decoder_num_attention_heads: int = 2
    decoder_intermediate_size: int = 160
    clips_per_scene: int = 2
    final_clips_per_scene: int = 25


CONFIG_FIELDS = [name for name in Settings.__dataclass_fields__ if hasattr(VideoMAEConfig, name)]


def build_model(settings: Settings) -> VideoMAEForPreTraining:
    """The model with random weights that make the first steps count.

    Queries and keys start alike, so that a token looks at places near its own before it has learned anything; pixels
    start small beside positions; and the first predictions are nearly one gray.
    """
    config = VideoMAEConfig(**{name: getattr(settings, name) for name in CONFIG_FIELDS}, norm_pix_loss=False)
    model = VideoMAEForPreTraining(config)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "query"):
                module.query.weight.mul_(1.4)
                module.key.weight.copy_(module.query.weight)
        model.videomae.embeddings.patch_embeddings.projection.weight.mul_(0.3)
        model.decoder.head.weight.mul_(0.1)
        model.decoder.head.bias.fill_(0.25)
    return model


def build_processor(settings: Settings) -> VideoMAEVideoProcessor:
    """What makes model input of clips."""
    return VideoMAEVideoProcessor(size=settings.image_size, num_frames=settings.num_frames)


def draw_clips(scenes: list[shapes.Scene], rng: np.random.Generator, settings: Settings) -> torch.Tensor:
    """A clip of every scene: (scenes, T, 3, H, W) uint8."""
    clips = [shapes.render(scene, rng, settings.num_frames, settings.image_size) for scene in scenes]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)


def draw_masks(
    model: VideoMAEForPreTraining, count: int, rng: np.random.Generator, settings: Settings
) -> torch.Tensor:
    """(count, N) booleans, true for hidden tokens: the same patches in every frame of a clip."""
    return tube_mask(model.config.token_grid, settings.mask_ratio, count, seed=int(rng.integers(2**32)))


def batch_loss(
    model: VideoMAEForPreTraining, processor: VideoMAEVideoProcessor, rng: np.random.Generator, settings: Settings
) -> torch.Tensor:
    """The loss of a batch of different scenes."""
    chosen = rng.choice(len(shapes.TRAINING), settings.batch_size, replace=False)
    clips = draw_clips([shapes.TRAINING[index] for index in chosen], rng, settings)
    mask = draw_masks(model, len(clips), rng, settings)
    return model(**processor(list(clips), return_tensors="pt"), bool_masked_pos=mask).loss


@torch.no_grad()
def held_out_errors(
    model: VideoMAEForPreTraining, processor: VideoMAEVideoProcessor, clips_per_scene: int, settings: Settings
) -> dict[str, float]:
    """The model's error on clips of held-out scenes and that of filling in without a model, as described above."""
    rng = np.random.default_rng([settings.seed, 1])
    squares = []  # for every round, the mean squared error of each way
    for _ in range(clips_per_scene):
        clips = draw_clips(list(shapes.HELD_OUT), rng, settings)
        mask = draw_masks(model, len(clips), rng, settings)
        pixels = processor(list(clips), return_tensors="pt")["pixel_values"]
        logits = model(pixels, mask).logits
        predicted = patches_of(model.reconstruct(pixels, mask, logits), settings.patch_size)
        true, is_hidden = patches_of(clips / 255, settings.patch_size), mask[:, : predicted.shape[1]]
        ways = (predicted.clamp(0, 1), mean_color(true, is_hidden), nearest_visible(true, is_hidden))
        squares.append([(way - true)[is_hidden].square().mean().item() for way in ways])
    names = ("held_out_error", "error_of_mean_color", "error_of_nearest_patch")
    return {name: round(float(error), 4) for name, error in zip(names, np.sqrt(np.mean(squares, axis=0)))}


def patches_of(frames: torch.Tensor, side: int) -> torch.Tensor:
    """Frames (B, T, 3, H, W) as N squares through all frames: (B, N, T, 3, side, side)."""
    squares = frames.unflatten(4, (-1, side)).unflatten(3, (-1, side))  # (B, T, 3, h, side, w, side)
    return squares.permute(0, 3, 5, 1, 2, 4, 6).flatten(1, 2)


def mean_color(patches: torch.Tensor, is_hidden: torch.Tensor) -> torch.Tensor:
    """For every patch (B, N, T, 3, side, side) the mean color of its frame's visible patches, in the same shape."""
    visible = patches[~is_hidden].unflatten(0, (len(patches), -1))
    return visible.mean((1, 4, 5))[:, None, :, :, None, None].expand_as(patches)


def nearest_visible(patches: torch.Tensor, is_hidden: torch.Tensor) -> torch.Tensor:
    """For every patch (B, N, T, 3, side, side) the nearest visible one, in the same shape."""
    steps = torch.arange(int(patches.shape[1] ** 0.5), dtype=torch.float32)
    places = torch.cartesian_prod(steps, steps)  # (N, 2)
    distances = torch.cdist(places, places).masked_fill(is_hidden[:, None], torch.inf)  # (B, N, N)
    return torch.stack([clip[nearest] for clip, nearest in zip(patches, distances.argmin(2))])


def train(settings: Settings) -> tuple[VideoMAEForPreTraining, VideoMAEVideoProcessor, dict]:
    """Train; returns the model, its processor, and the record that becomes `training.json`."""
    torch.manual_seed(settings.seed)
    model, processor = build_model(settings), build_processor(settings)

    def error(clips_per_scene: int) -> dict[str, float]:
        return held_out_errors(model, processor, clips_per_scene, settings)

    record = training.fit(
        model,
        settings,
        batch_loss=lambda rng: batch_loss(model, processor, rng, settings),
        evaluate=lambda: {"held_out_error": error(settings.clips_per_scene)["held_out_error"]},
    )
    record |= {"held_out_clips": len(shapes.HELD_OUT) * settings.final_clips_per_scene}
    return model, processor, record | error(settings.final_clips_per_scene)


def describe(record: dict) -> str:
    """The result in a line."""
    return (
        f"error of hidden pixels {record['held_out_error']:.3f} on {record['held_out_clips']} held-out clips; nearest "
        f"visible patch {record['error_of_nearest_patch']:.3f}, mean color {record['error_of_mean_color']:.3f}"
    )
