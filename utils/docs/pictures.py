#!/usr/bin/env python3
"""Draw the pictures of README.md and the pages, with the toys that ship and with toys that are trained for it.

Usage: python utils/docs/pictures.py [NAME ...] [--out FOLDER]

Without names all are drawn, in about ten minutes on one core, most of which is the training of a tiny V-JEPA 2.
`search` needs lancedb. FOLDER (docs/images) receives NAME.png.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModel, AutoProcessor

import vidformers
from vidformers.commands.search_results import add_pictures, write_sheet


sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

import demo
import film
import reconstruction
import shapes
import shapes_clip
import shapes_colors
import shapes_jepa
import world
from figures import MARGIN, draw_figure, titled


ROOT = Path(__file__).parents[2]
SHAPES_CLIP = Path(vidformers.__file__).parent / "demo_models/shapes_clip"
CLIP_SECONDS, SIDE = 2, 256
FRAMES_PER_SECOND = 24
BLUE = np.array([59, 111, 182])  # of a cell with all of the share
SHOWN, SHOWN_SEED = 5, 0  # a held-out scene, and a seed for which the hidden block lies over its shape


# ------------------------------------------------------------------------------------------------------------ drawing


def draw_shares(
    title: str,
    subtitle: str,
    columns: dict[str, Sequence[np.ndarray]],
    shares: dict[str, Sequence[float]],
    path: Path,
    tile: int = 84,
) -> Path:
    """A PNG of columns of images, and below them a row of shares for each label: the darker, the more.

    Args:
        title: the first line.
        subtitle: a smaller line below it.
        columns: for each heading its images (height, width, 3) uint8, from the top.
        shares: for each label a share from 0 to 1 for each column.
        path: the file to write.
        tile: side of an image.
    """
    gap, line, label_width, head = 5, 32, 224, 100
    top = head + len(next(iter(columns.values()))) * (tile + gap) + gap
    size = (label_width + len(columns) * (tile + gap) + MARGIN, top + len(shares) * (line + gap) + MARGIN)
    figure, draw, font = titled(size, title, subtitle)
    for column, (heading, images) in enumerate(columns.items()):
        x = label_width + column * (tile + gap)
        draw.text((x + tile // 2, head - 8), heading, fill="#555555", font=font, anchor="ms")
        for row, image in enumerate(images):
            scaled = Image.fromarray(image).resize((tile, tile), Image.Resampling.LANCZOS)
            figure.paste(scaled, (x, head + row * (tile + gap)))
    for row, (label, values) in enumerate(shares.items()):
        y = top + row * (line + gap)
        draw.text((MARGIN, y + line // 2), label, fill="black", font=font, anchor="lm")
        for column, share in enumerate(values):
            x = label_width + column * (tile + gap)
            color = tuple((255 - share * (255 - BLUE) - 10 * (1 - share)).astype(int))
            draw.rectangle((x, y, x + tile - 1, y + line - 1), fill=color)
            middle, ink = (x + tile // 2, y + line // 2), "white" if share > 0.5 else "#555555"
            draw.text(middle, f"{share:.0%}", fill=ink, font=font, anchor="mm")
    figure.save(path)
    return path


def draw_clip(scene: shapes.Scene, seed: int, num_frames: int, side: int) -> np.ndarray:
    """A clip of a scene: (num_frames, side, side, 3) uint8."""
    return shapes.render(scene, np.random.default_rng(seed), num_frames, side)


# ------------------------------------------------------------------------------------------------------- the pictures


def draw_of_demo(job: Callable[[Path, Path], None], out: Path) -> None:
    """A picture of `make demo`, from its clip of a shape."""
    with TemporaryDirectory() as folder:
        frames = draw_clip(demo.SCENE, 0, CLIP_SECONDS * FRAMES_PER_SECOND, SIDE)
        job(shapes.write_clip(Path(folder, "shapes.mp4"), frames, FRAMES_PER_SECOND), out)


def draw_labels(out: Path) -> None:
    """A clip and the labels that VideoPrism's toy gives it."""
    draw_of_demo(demo.classify_shapes, out)


def draw_reconstruction(out: Path) -> None:
    """What VideoMAE's toy makes of a quarter of a clip."""
    draw_of_demo(lambda clip, folder: demo.reconstruct_shapes(clip, folder, every=2), out)


def draw_best_and_worst(out: Path) -> None:
    """The scene that VideoMAE's toy fills in best, and the worst."""
    reconstruction.compare_scenes(Console(quiet=True), out)


def draw_plan(out: Path) -> None:
    """A plan of the toy world model, and its energies."""
    world.plan_moves(Console(quiet=True), out)


@torch.no_grad()
def draw_videoprism(out: Path) -> None:
    """Six clips of scenes that VideoPrism's toy was not trained on, and six captions."""
    scenes = [shapes.HELD_OUT[index] for index in (0, 5, 8, 13, 18, 22)]
    model, processor = AutoModel.from_pretrained(SHAPES_CLIP), AutoProcessor.from_pretrained(SHAPES_CLIP)
    clips = [draw_clip(scene, seed, 24, 128) for seed, scene in enumerate(scenes)]
    captions = [scene.caption() for scene in scenes]
    batch = processor(text=captions, videos=clips, return_tensors="pt", padding=True)
    output = model(**batch)
    shares = model.compare(output.video_embeds, output.text_embeds).softmax(-1).T.tolist()
    draw_shares(
        "VideoPrism: clips beside sentences",
        "tiny VideoPrism CLIP; each clip, first and last frame shown, shares 100 % among the sentences",
        {f"clip {index + 1}": (clip[0], clip[-1]) for index, clip in enumerate(clips)},
        dict(zip(captions, shares)),
        out / "videoprism.png",
    )


def draw_pe_core(out: Path) -> None:
    """Pictures of four shapes, and the patches that a toy PE core finds for words."""
    model, tokenizer = shapes_colors.train(shapes_colors.build_pe_core, shapes_colors.Settings())
    colors, rows = ("red", "green", "blue", "yellow"), []
    for row, order in enumerate((colors, colors[::-1])):
        scenes = [shapes.Scene(color, shape, "grows") for color, shape in zip(order, shapes.SHAPES)]
        quarters = [draw_clip(scene, 4 * row + seed, 2, 96)[1] for seed, scene in enumerate(scenes)]
        picture = np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])
        fits = patch_fits(model, tokenizer, picture)
        rows.append(np.stack([picture, *(fade(picture, fits[color]) for color in colors)]))
    draw_figure(
        "PE core: where in the picture?",
        "tiny PE core, trained for a minute on colors; what fits a sentence stays, the rest fades",
        ["picture", *(f"“{shapes_colors.SENTENCES[color]}”" for color in colors)],
        [("four shapes", rows[0]), ("four others", rows[1])],
        out / "pe_core.png",
        tile=128,
    )


@torch.no_grad()
def patch_fits(model: vidformers.PeCoreModel, tokenizer: Callable, picture: np.ndarray) -> dict[str, np.ndarray]:
    """For each color how well its sentence fits each patch of a picture (H, W, 3): (h, w), from 0 to 1."""
    texts = model.embed_texts(**tokenizer([*shapes_colors.SENTENCES.values()], return_tensors="pt"))
    pixels = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - shapes_clip.MEAN) / shapes_clip.STD
    patches = model.get_patch_embeds(pixels[None, None])[0, 0]
    cosines = (patches @ texts.T).numpy()  # (h, w, colors)
    low, high = np.percentile(cosines, (70, 98), axis=(0, 1))
    fits = ((cosines - low) / (high - low)).clip(0, 1) * model.compare(patches, texts).softmax(-1).numpy()
    return dict(zip(shapes_colors.SENTENCES, np.moveaxis(fits, -1, 0)))


def fade(picture: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 that fades to a light gray where shares (h, w) are low."""
    kept = np.kron(shares, np.ones(np.array(picture.shape[:2]) // shares.shape))[..., None]
    return (kept * picture + (1 - kept) * (0.12 * picture + 215)).round().astype(np.uint8)


def draw_pe_video(out: Path) -> None:
    """A film of three shapes one after the other, and the sentences that a toy PE Video finds for its windows."""
    settings = shapes_colors.Settings(num_frames=2)
    model, tokenizer = shapes_colors.train(shapes_colors.build_pe_video, settings)
    scenes = ("red", "circle", "moves right"), ("green", "cross", "grows"), ("blue", "square", "moves up")
    clips = [draw_clip(shapes.Scene(*words), seed, 4, settings.image_size) for seed, words in enumerate(scenes)]
    film = np.concatenate(clips)
    pixels = (torch.from_numpy(film).permute(0, 3, 1, 2).float() / 255 - shapes_clip.MEAN) / shapes_clip.STD
    with torch.no_grad():
        frames = model.encode_frames(pixels[None])[0]  # (12, E)
        windows = frames.unfold(0, 4, 2).transpose(1, 2)  # (5, 4, E)
        texts = model.embed_texts(**tokenizer([*shapes_colors.SENTENCES.values()], return_tensors="pt"))
        shares = model.compare(model.encode_clip(windows), texts).softmax(-1).T.tolist()
    draw_shares(
        "PE Video: when does which sentence fit?",
        "tiny PE Video, trained for a minute on colors; of each window of a film first and last frame are shown",
        {f"frames {start + 1} to {start + 4}": (film[start], film[start + 3]) for start in range(0, len(film) - 3, 2)},
        dict(zip(shapes_colors.SENTENCES.values(), shares)),
        out / "pe_video.png",
        tile=100,
    )


def draw_vjepa2(out: Path) -> None:
    """Features that a toy V-JEPA 2 finds in a clip, and those that it predicts where it does not look."""
    settings = shapes_jepa.Settings()
    model = shapes_jepa.train(settings)
    clips = shapes_clip.draw_pixels(list(shapes.HELD_OUT), np.random.default_rng(SHOWN_SEED), settings)
    torch.manual_seed(SHOWN_SEED)
    collator = shapes_jepa.build_collator([shapes_jepa.LARGE_BLOCK], settings)
    batch = collator.model_inputs([{"pixel_values_videos": clip} for clip in clips])
    with torch.no_grad():
        output = model(**batch)
    found, predicted = output.target_hidden_states[0], output.predicted_hidden_states[0][0]  # (B, N, D), (B, L, D)
    tokens = torch.cat([found.flatten(0, 1), predicted[SHOWN]]).numpy()
    colors = demo.to_gray(demo.principal_components(tokens)[0])
    of_clip = colors[: -predicted.shape[1]].reshape(len(clips), -1, 3)[SHOWN]  # (N, 3)
    of_hidden = np.full_like(of_clip, 225)
    of_hidden[batch["target_mask"][0][SHOWN]] = colors[-predicted.shape[1] :]
    frames = demo.to_images(clips[SHOWN, :: settings.tubelet_size] * shapes_clip.STD + shapes_clip.MEAN)
    rows = [
        ("clip", frames),
        ("features of\nthe whole clip", of_clip.reshape(*settings.grid, 3)),
        ("predicted features\nof the hidden part,\nfrom the gray one", of_hidden.reshape(*settings.grid, 3)),
    ]
    draw_figure(
        "V-JEPA 2: features as colors, found and predicted",
        "tiny V-JEPA 2, trained for six minutes on other clips; like features have like colors",
        [f"frames {index + 1}, {index + 2}" for index in range(0, settings.num_frames, settings.tubelet_size)],
        rows,
        out / "vjepa2.png",
        tile=132,
    )


def draw_search(out: Path) -> None:
    """What a sentence finds in a film of scenes."""
    path, (sentence, *_) = out / "search.png", film.ASKED.values()
    with TemporaryDirectory() as folder:
        film.search_film(Console(quiet=True), Path(folder))
        spans = vidformers.Searcher(Path(folder, "film.lance")).search(sentence, top=3)
        results = [
            replace(result, span=replace(result.span, video="videos/film.mp4")) for result in add_pictures(spans)
        ]
    write_sheet(path, results, f"“{sentence}”", "Top 3 in film.lance: a minute, twelve scenes, windows of 4 seconds")
    with Image.open(path) as sheet:
        sheet.resize((880, 880 * sheet.height // sheet.width), Image.Resampling.LANCZOS).save(path)


PICTURES = {
    "labels": draw_labels,
    "reconstruction": draw_reconstruction,
    "videoprism": draw_videoprism,
    "pe_core": draw_pe_core,
    "pe_video": draw_pe_video,
    "vjepa2": draw_vjepa2,
    "plan": draw_plan,
    "best_and_worst": draw_best_and_worst,
    "search": draw_search,
}


def shrink(path: Path) -> None:
    """Write a PNG with 256 colors, a third of its bytes."""
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
    reduced.save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help=f"among {', '.join(PICTURES)}; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images", help="folder to write to")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or PICTURES:
        PICTURES[name](options.out)
        path = options.out / f"{name}.png"
        shrink(path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
