"""Pre-train a tiny V-JEPA 2 on clips of moving shapes, and measure what its features tell beside those of a new one.

`python utils/demo/pretrain.py --out DIR` trains three seeds, about two minutes each on one core, and writes the
numbers and pictures of docs/pretrain.md.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch

from vidformers import VJEPA2Config, VJEPA2ForPreTraining, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands import pretrain


SIDE, FRAMES = 32, 8
CONFIG = {
    "crop_size": SIDE,
    "frames_per_clip": FRAMES,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pred_hidden_size": 32,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 2,
}
SETTINGS = {
    "steps": 400,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "start_learning_rate": 1e-4,
    "final_learning_rate": 1e-5,
    "schedule": "warmup_cosine",
    "schedule_scale": 1.0,
    "warmup_steps": 40,
    "momentum": 0.99,
    "final_momentum": 1.0,
    "frame_step": 1,
    "resize_scale": [0.6, 1.0],
}
LABELS = {"motion": shapes.MOTIONS, "shape": shapes.SHAPES}


def write_clips(folder: Path, count: int, seed: int) -> list[shapes.Scene]:
    """Write clips of random scenes, and tell which."""
    rng = np.random.default_rng(seed)
    scenes = [shapes.SCENES[index] for index in rng.integers(len(shapes.SCENES), size=count)]
    folder.mkdir(parents=True)
    for index, scene in enumerate(scenes):
        shapes.write_clip(folder / f"{index:04}.mp4", shapes.render(scene, rng, FRAMES, SIDE))
    return scenes


@torch.no_grad()
def features(model: VJEPA2Model, folder: Path) -> torch.Tensor:
    """The mean feature of every clip at each time, side by side: (clips, t·D)."""
    processor = VJEPA2VideoProcessor(crop_size=SIDE, size={"shortest_edge": SIDE})
    rows = []
    for file in sorted(folder.glob("*.mp4")):
        clip = processor(str(file), num_frames=FRAMES, return_tensors="pt")["pixel_values_videos"]
        rows.append(model.get_feature_map(clip).mean((2, 3)).flatten(1))
    return torch.cat(rows).double()


def probe(known: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of the clips whose class a linear probe tells: ridge regression on features of unit variance."""
    mean, std = known.mean(0), known.std(0) + 1e-6
    known, asked = (torch.nn.functional.pad((each - mean) / std, (0, 1), value=1.0) for each in (known, asked))
    targets = torch.nn.functional.one_hot(labels).double()
    penalty = 0.1 * len(known) * torch.eye(known.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(known.T @ known + penalty, known.T @ targets)
    return ((asked @ weights).argmax(1) == truth).double().mean().item()


def accuracies(model: VJEPA2Model, clips: Path, scenes: dict[str, list[shapes.Scene]]) -> dict[str, float]:
    """What linear probes tell by a model's features of clips kept from the probes, for each set of classes."""
    found = {part: features(model.eval(), clips / part) for part in scenes}
    result = {}
    for name, classes in LABELS.items():
        order = list(classes)
        labels = {part: torch.tensor([order.index(getattr(s, name)) for s in each]) for part, each in scenes.items()}
        result[name] = probe(found["known"], labels["known"], found["asked"], labels["asked"])
    return result


def train(clips: Path, out: Path, seed: int, **changes: Any) -> VJEPA2Model:
    """Pre-train a new model: its teacher, by which it is evaluated."""
    torch.manual_seed(seed)
    start = out.with_name(f"{out.name}-start")
    VJEPA2ForPreTraining(VJEPA2Config(**CONFIG)).save_pretrained(start)
    VJEPA2VideoProcessor(crop_size=SIDE).save_pretrained(start)
    task = pretrain.prepare([clips], model=start, changes=SETTINGS | changes, seed=seed)
    pretrain.pretrain(
        task, out, workers=0, save_every=10_000, on_record=lambda record: print(pretrain.describe(record))
    )
    return VJEPA2ForPreTraining.from_pretrained(out).features_model()


def run(out: Path, seeds: int = 3, videos: int = 1500, probed: int = 600, **changes: Any) -> list[dict[str, Any]]:
    """Train several models and compare each with a new one of the same seed.

    Args:
        out: folder for the models.
        seeds: how many.
        videos: clips to pre-train on.
        probed: clips to train the probes on, and as many to measure with.
        changes: fields of the recipe to change.

    Returns:
        For each seed, accuracies of both models.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder)
        write_clips(clips / "unlabeled", videos, seed=0)
        scenes = {part: write_clips(clips / part, probed, seed) for seed, part in enumerate(("known", "asked"), 1)}
        for seed in range(seeds):
            torch.manual_seed(seed)
            new = accuracies(VJEPA2Model(VJEPA2Config(**CONFIG)), clips, scenes)
            trained = accuracies(train(clips / "unlabeled", out / f"seed{seed}", seed, **changes), clips, scenes)
            results.append({"seed": seed, "new": new, "trained": trained})
            print(json.dumps(results[-1]), flush=True)
    return results


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the models, the picture and the numbers")
    out = parser.parse_args().out
    results = run(out)
    (out / "accuracies.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
