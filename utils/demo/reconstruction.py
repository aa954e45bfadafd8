"""The part of the demo in which a toy VideoMAE fills in scenes: the one of many that it draws best, and the worst."""

from pathlib import Path

import numpy as np
import shapes
import shapes_mae
import torch
from figures import draw_figure, to_images
from rich.console import Console
from transformers import AutoModelForPreTraining, AutoVideoProcessor

import vidformers
from vidformers import VideoMAEForPreTraining


SHAPES_MAE = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
MASK_RATIO, SEED, EVERY = 0.75, 1, 2


@torch.no_grad()
def fill_in(
    model: VideoMAEForPreTraining, pixels: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model sees, gray where tokens are hidden, and what it draws there: both (B, T, 3, H, W) from 0 to 1."""
    logits = model(pixels, bool_masked_pos=mask).logits
    seen, drawn = (model.reconstruct(pixels, mask, each) for each in (torch.full_like(logits, 0.5), logits))
    return seen, drawn.clamp(0, 1)


def hidden_errors(drawn: torch.Tensor, original: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) root mean square errors of the hidden pixels; the visible ones of `drawn` are the original's."""
    return ((drawn - original).square().flatten(1).mean(1) / mask.float().mean(1)).sqrt()


def rows_of(
    name: str, original: torch.Tensor, seen: torch.Tensor, drawn: torch.Tensor, every: int
) -> list[tuple[str, np.ndarray]]:
    """Rows of a figure for one clip, (T, 3, H, W) each."""
    labels = (
        name,
        f"{1 - MASK_RATIO:.0%} of it:\nall that the\nmodel sees",
        "reconstructed:\nthat, and what the\nmodel draws",
    )
    return [(label, to_images(each[::every])) for label, each in zip(labels, (original, seen, drawn), strict=True)]


def compare_scenes(console: Console, out: Path) -> None:
    """Fill in a clip of every scene that the model was not trained on, and draw the best and the worst."""
    processor = AutoVideoProcessor.from_pretrained(SHAPES_MAE)
    model, settings = AutoModelForPreTraining.from_pretrained(SHAPES_MAE), shapes_mae.Settings()
    rng = np.random.default_rng(SEED)
    clips = shapes_mae.draw_clips(list(shapes.HELD_OUT), rng, settings)
    mask, original = shapes_mae.draw_masks(model, len(clips), rng, settings), clips / 255
    seen, drawn = fill_in(model, processor(list(clips), return_tensors="pt")["pixel_values"], mask)
    errors = hidden_errors(drawn, original, mask)
    rows = []
    for name, index in (("best", int(errors.argmin())), ("worst", int(errors.argmax()))):
        label = f"{name}, error {errors[index]:.3f}:\n{shapes.HELD_OUT[index].caption()}".replace(" that", "\nthat")
        rows += rows_of(label, original[index], seen[index], drawn[index], EVERY)
    figure = draw_figure(
        f"The toy's best and its worst of {len(clips)} scenes that it never saw",
        f"tiny VideoMAE; errors of the hidden pixels are root mean squares, {errors.mean():.3f} on average",
        [f"frame {index + 1}" for index in range(0, clips.shape[1], EVERY)],
        rows,
        out / "best_and_worst.png",
        tile=128,
    )
    console.print(
        f"[green]✓[/green] wrote {figure}: of {len(clips)} scenes, the one that the toy draws best (error "
        f"{errors.min():.3f}) and the worst ({errors.max():.3f})"
    )
