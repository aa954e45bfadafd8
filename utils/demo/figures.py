"""Pictures that the demo draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont


def to_images(frames: torch.Tensor) -> np.ndarray:
    """Frames (T, 3, H, W) with values from 0 to 1 as images (T, H, W, 3) uint8."""
    return (255 * frames).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


MARGIN = 16


def titled(size: tuple[int, int], title: str, subtitle: str) -> tuple[Image.Image, ImageDraw.ImageDraw, Any]:
    """A white image with two lines at the top, what draws on it, and the smaller line's font."""
    figure = Image.new("RGB", size, "white")
    draw, small = ImageDraw.Draw(figure), ImageFont.load_default(15)
    draw.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(20))
    draw.text((MARGIN, MARGIN + 30), subtitle, fill="#555555", font=small)
    return figure, draw, small


def draw_figure(
    title: str,
    subtitle: str,
    columns: list[str],
    rows: list[tuple[str, Sequence[np.ndarray]]],
    path: Path,
    tile: int = 168,
) -> Path:
    """A table of images as a PNG.

    Args:
        title: the first line.
        subtitle: a smaller line below it.
        columns: a heading for each column.
        rows: a label, whose lines are printed one below the other, and images (columns, height, width[, 3]) uint8.
        path: the file to write.
        tile: side of an image in the figure; smaller images are enlarged without smoothing.
    """
    gap, label_width, head = 6, 180, 100
    size = (label_width + len(columns) * (tile + gap) + MARGIN, head + len(rows) * (tile + gap) + MARGIN)
    figure, draw, small = titled(size, title, subtitle)
    for column, heading in enumerate(columns):
        x = label_width + column * (tile + gap) + tile // 2
        draw.text((x, head - 8), heading, fill="#555555", font=small, anchor="ms")
    for row, (label, images) in enumerate(rows):
        y = head + row * (tile + gap)
        draw.multiline_text((MARGIN, y + 8), label, fill="black", font=small, spacing=6)
        for column, image in enumerate(images):
            filtered = Image.Resampling.NEAREST if image.shape[0] < tile else Image.Resampling.LANCZOS
            scaled = Image.fromarray(image).resize((tile, tile), filtered)
            figure.paste(scaled, (label_width + column * (tile + gap), y))
    figure.save(path)
    return path
