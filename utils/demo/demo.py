#!/usr/bin/env python3
"""Show the main jobs on real video files: convert and check a checkpoint, embed a video, classify one, fill one in.

Usage: python utils/demo/demo.py [VIDEO] [--out FOLDER]

Without VIDEO a small one is drawn and encoded. The checkpoint is a tiny one with random weights in the layout of
Meta's V-JEPA 2 files, so nothing is downloaded. FOLDER (demo_output) receives the video, the checkpoint, the converted
directory and `features.png`: frames above the first three principal components of their patch features. Without
training these show color and texture only; with a real checkpoint they show objects. Then a clip of a moving shape is
encoded (`shapes.mp4`), and decoded for the two toy models that ship with the package: a VideoPrism CLIP compares it
with labels (`labels.png`), and a VideoMAE that sees a quarter of it draws the rest (`reconstruction.png`);
`best_and_worst.png` has the scene of many that it draws best and the worst. Then a film of twelve such scenes is
embedded in windows and searched by sentences (`film.mp4`, `film.png`, `film.html`). At last a V-JEPA 2-AC plans how a
shape comes to where a picture shows it (`plan.png`).
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import film
import numpy as np
import shapes
import torch
import world
from figures import MARGIN, draw_figure, titled, to_images
from PIL import Image
from reconstruction import MASK_RATIO, SHAPES_MAE, compare_scenes, fill_in, hidden_errors, rows_of
from rich.console import Console
from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor
from transformers.utils import logging

from vidformers import decode_video, tube_mask
from vidformers.commands import cli
from vidformers.commands.classify import Classifier
from vidformers.video import uniform_indices


console = Console(highlight=False, soft_wrap=True)

NUM_FRAMES, FRAMES_PER_SECOND, SIDE = 48, 12, 256
# What the shapes of the tensors do not tell; the crop leaves 28 × 28 patches of a frame.
SETTINGS = {"num_attention_heads": 4, "pred_num_attention_heads": 4, "crop_size": 224, "frames_per_clip": 16}
WIDTH, DEPTH, PREDICTOR_WIDTH, PREDICTOR_DEPTH, NUM_MASK_TOKENS = 128, 4, 64, 2, 10
PATCH, TUBELET = 8, 2
# The scene is one that the toy models have not been trained on; each other label differs from it in one word or two.
SCENE = shapes.Scene("blue", "triangle", "moves up")
LABELS = [
    "a blue triangle moves up",
    "a blue triangle moves down",
    "a green triangle moves up",
    "a blue cross moves up",
    "a yellow circle grows",
]
MASK_SEED = 0
# Wide enough that attention and MLP leave their mark on features that nothing has trained.
WEIGHT_STD = 0.06


# --------------------------------------------------------------------------------------------------------- the video


def draw_frame(index: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: a checkered disc circles and a striped square sweeps over a drifting gradient."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    phase = 2 * np.pi * index / NUM_FRAMES
    image = np.stack([0.25 + 0.4 * y, 0.45 + 0.25 * np.sin(phase + 3 * x), 0.75 - 0.35 * y], axis=-1)

    disc_x, disc_y = x - 0.5 - 0.24 * np.cos(phase), y - 0.5 - 0.24 * np.sin(phase)
    disc = disc_x**2 + disc_y**2 < 0.17**2
    checks = (np.floor(disc_x * 16) + np.floor(disc_y * 16)) % 2
    image[disc] = np.where(checks[..., None], [0.98, 0.85, 0.2], [0.75, 0.2, 0.1])[disc]

    square_x, square_y = x - 0.26 - 0.48 * (0.5 - 0.5 * np.cos(2 * phase)), y - 0.72
    square = np.maximum(abs(square_x), abs(square_y)) < 0.13
    stripes = np.floor((square_x + square_y) * 20) % 2
    image[square] = np.where(stripes[..., None], [0.95, 0.95, 0.95], [0.1, 0.25, 0.15])[square]
    return (255 * image).round().astype(np.uint8)


def draw_frames() -> np.ndarray:
    """The drawn video: (NUM_FRAMES, SIDE, SIDE, 3) uint8."""
    return np.stack([draw_frame(index) for index in range(NUM_FRAMES)])


# ---------------------------------------------------------------------------------------------------- the checkpoint


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a linear layer."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def blocks(name: str, count: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of transformer blocks, with queries, keys and values in one tensor as Meta stores them."""
    shapes = {}
    for block in (f"{name}.{index}" for index in range(count)):
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Tensors of the given shapes, norms at one and the rest random, under the prefixes of Meta's training code."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        is_norm_weight = "norm" in name and name.endswith("weight")
        value = torch.ones(shape) if is_norm_weight else WEIGHT_STD * torch.randn(shape, generator=generator)
        state[f"module.backbone.{name}"] = value
    return state


def write_checkpoint(path: Path) -> Path:
    """A training checkpoint as Meta publishes them: two encoders, the predictor, and what the training left."""
    encoder = {
        "pos_embed": (1, 8 * 28 * 28, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, TUBELET, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        **blocks("blocks", DEPTH, WIDTH),
        **norm("norm", WIDTH),
    }
    predictor = {
        **linear("predictor_embed", PREDICTOR_WIDTH, WIDTH),
        **{f"mask_tokens.{index}": (1, 1, PREDICTOR_WIDTH) for index in range(NUM_MASK_TOKENS)},
        **blocks("predictor_blocks", PREDICTOR_DEPTH, PREDICTOR_WIDTH),
        **norm("predictor_norm", PREDICTOR_WIDTH),
        **linear("predictor_proj", WIDTH, PREDICTOR_WIDTH),
    }
    checkpoint = {
        "encoder": random_state(encoder, seed=1),
        "target_encoder": random_state(encoder, seed=2),
        "predictor": random_state(predictor, seed=3),
        "opt": {"state": {}, "param_groups": []},
        "scaler": None,
        "epoch": 1,
        "loss": 0.5,
        "batch_size": 1,
        "world_size": 1,
        "lr": 1e-4,
    }
    torch.save(checkpoint, path)
    return path


def convert(checkpoint: Path, directory: Path) -> None:
    """Run `vidformers convert` as a user would; it exits with an error if a check fails."""
    settings = [argument for name, value in SETTINGS.items() for argument in ("--set", f"{name}={value}")]
    arguments = ["convert", str(checkpoint), str(directory), *settings]
    console.print(f"[dim]$ vidformers {' '.join(arguments)}[/dim]")
    if cli.app(arguments, standalone_mode=False):
        raise SystemExit(1)


# -------------------------------------------------------------------------------------------------------- the features


def principal_components(features: np.ndarray, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components of tokens (N, D): their values (N, count), and their shares of the variance."""
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered.T @ centered)
    components = centered @ vectors[:, ::-1][:, :count]
    # A component's sign is arbitrary: let its longer tail be bright.
    components *= np.where((components**3).sum(axis=0) < 0, -1, 1)
    return components, values[::-1][:count] / values.sum()


def to_gray(components: np.ndarray) -> np.ndarray:
    """Each component (..., count) to uint8, from its first to its 99th percentile."""
    low, high = np.percentile(components.reshape(-1, components.shape[-1]), (1, 99), axis=0)
    return (255 * ((components - low) / (high - low)).clip(0, 1)).round().astype(np.uint8)


def embed(video: Path, directory: Path) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Load the converted directory through the Auto classes and embed a video.

    Returns:
        The frame at which each tubelet starts, as the model saw it (t, height, width, 3) uint8; the features
        (t, h, w, D); and the seconds at which the tubelets start.
    """
    processor = AutoVideoProcessor.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory).eval()
    frames, metadata = decode_video(video, partial(uniform_indices, num_frames=model.config.num_frames))
    inputs = processor(frames, return_tensors="pt")
    with torch.no_grad():
        features = model.get_vision_features(**inputs)[0]

    pixels = inputs["pixel_values_videos"][0, ::TUBELET]  # (t, 3, H, W)
    grid = (len(pixels), pixels.shape[2] // PATCH, pixels.shape[3] // PATCH)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    seconds = [index / metadata.fps for index in metadata.frames_indices[::TUBELET]]
    total = f"{metadata.total_num_frames} frames in {metadata.duration:.1f} s"
    console.print(f"[green]✓[/green] embedded {video.name}: {len(frames)} of {total}")
    console.print(f"  {type(model).__module__}.{type(model).__name__} → features {tuple(features.shape)}, grid {grid}")
    return to_images(pixels * std + mean), features.unflatten(0, grid).numpy(), seconds


# ---------------------------------------------------------------------------------------------------------- the labels


def draw_scores(
    title: str, subtitle: str, frames: np.ndarray, shares: dict[str, float], path: Path, tile: int = 168
) -> Path:
    """A PNG of a title, frames (T, height, width, 3) uint8 in a row, and below them a bar for each label's share."""
    gap, line, label_width, head = 6, 30, 240, 76
    width = 2 * MARGIN + len(frames) * (tile + gap) - gap
    top = head + tile + 2 * MARGIN
    figure, draw, font = titled((width, top + len(shares) * line + MARGIN), title, subtitle)
    for column, frame in enumerate(frames):
        scaled = Image.fromarray(frame).resize((tile, tile), Image.Resampling.LANCZOS)
        figure.paste(scaled, (MARGIN + column * (tile + gap), head))
    full = width - 2 * MARGIN - label_width - 70
    for row, (label, share) in enumerate(shares.items()):
        x, y = MARGIN + label_width, top + row * line
        draw.text((MARGIN, y), label, fill="black", font=font)
        draw.rectangle((x, y, x + full, y + 18), fill="#eeeeee")
        draw.rectangle((x, y, x + round(full * share), y + 18), fill="#3b6fb6" if row == 0 else "#9db7da")
        draw.text((x + full + 10, y), f"{share:.1%}", fill="black", font=font)
    figure.save(path)
    return path


def classify_shapes(clip: Path, out: Path) -> None:
    """Let `vidformers classify` choose among sentences about a clip of a moving shape."""
    labels = ", ".join(LABELS)
    console.print(f'[dim]$ vidformers classify {clip} --labels "{labels}"[/dim]')
    if cli.app(["classify", str(clip), "--labels", labels], standalone_mode=False):
        raise SystemExit(1)
    classifier = Classifier()
    frames, _ = decode_video(clip, partial(uniform_indices, num_frames=classifier.num_frames))
    title = f"{clip.name}: which of these sentences fits?"
    subtitle = "tiny VideoPrism CLIP; the frames that it sees, and how it shares 100 % among the sentences"
    figure = draw_scores(title, subtitle, frames, classifier.classify(clip, LABELS), out / "labels.png")
    console.print(f"[green]✓[/green] wrote {figure}: the frames that the model saw, and its scores")


# -------------------------------------------------------------------------------------------------- the reconstruction


def reconstruct_shapes(clip: Path, out: Path, every: int = 1) -> None:
    """Hide most of a clip of a moving shape from the toy VideoMAE, and let it draw the rest; show `every` frame."""
    processor = AutoVideoProcessor.from_pretrained(SHAPES_MAE)
    model = AutoModelForPreTraining.from_pretrained(SHAPES_MAE)
    original = processor(clip, do_normalize=False, return_tensors="pt")["pixel_values"]  # (1, T, 3, H, W)
    pixels = processor(clip, return_tensors="pt")["pixel_values"]
    mask = tube_mask(model.config.token_grid, MASK_RATIO, seed=MASK_SEED)
    seen, drawn = fill_in(model, pixels, mask)
    error = hidden_errors(drawn, original, mask).item()

    title = f"{clip.name}: {SCENE.caption()}, with {MASK_RATIO:.0%} hidden"
    side = pixels.shape[-1]
    subtitle = f"tiny VideoMAE, {side} by {side} pixels; root mean square error of the hidden ones: {error:.3f} of 1"
    figure = draw_figure(
        title,
        subtitle,
        [f"frame {index + 1}" for index in range(0, original.shape[1], every)],
        rows_of("original", original[0], seen[0], drawn[0], every),
        out / "reconstruction.png",
        tile=128,
    )
    console.print(f"[green]✓[/green] wrote {figure}: the error of the hidden pixels is {error:.3f} (root mean square)")


def main(arguments: list[str] | None = None) -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="video to embed; one is drawn by default")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder to write to")
    options = parser.parse_args(arguments)
    if options.video and not options.video.is_file():
        parser.error(f"there is no file {options.video}")
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()

    video = options.video or shapes.write_clip(out / "demo.mp4", draw_frames(), FRAMES_PER_SECOND)
    console.print(f"[green]✓[/green] {'took' if options.video else 'encoded'} {video}")
    checkpoint = write_checkpoint(out / "original.pt")
    console.print(f"[green]✓[/green] wrote {checkpoint}: random weights in the layout of Meta's files")
    directory = out / "vjepa2-tiny"
    shutil.rmtree(directory, ignore_errors=True)
    convert(checkpoint, directory)
    read_from = json.loads((directory / "provenance.json").read_text("utf-8"))["parts"]["encoder"]["entry"]
    console.print(f"[green]✓[/green] converted to {directory}; the encoder is the file's `{read_from}`")

    frames, features, seconds = embed(video, directory)
    components, shares = principal_components(features.reshape(-1, features.shape[-1]))
    gray = to_gray(components.reshape(*features.shape[:3], 3))
    percent = [f"{100 * share:.0f} %" for share in shares]
    rows = [("input: first of\na step's two frames", frames), ("components\n1, 2, 3 as\nred, green, blue", gray)]
    rows += [(f"component {i + 1}\n{percent[i]} of variance", gray[..., i]) for i in range(3)]
    title = f"{video.name}: principal components of the patch features over time"
    subtitle = f"tiny V-JEPA 2, random weights; each square is the feature of {PATCH} by {PATCH} pixels of two frames"
    figure = draw_figure(title, subtitle, [f"{second:.2f} s" for second in seconds], rows, out / "features.png")
    console.print(f"[green]✓[/green] wrote {figure}: the components hold {', '.join(percent)} of the variance")
    clip = shapes.write_clip(out / "shapes.mp4", shapes.render(SCENE, np.random.default_rng(0), 48, SIDE))
    console.print(f"[green]✓[/green] encoded {clip}: {SCENE.caption()}, which the toy models were not trained on")
    classify_shapes(clip, out)
    reconstruct_shapes(clip, out)
    compare_scenes(console, out)
    film.search_film(console, out)
    world.plan_moves(console, out)


if __name__ == "__main__":
    main()
