"""Pre-train a tiny V-JEPA 2 on clips of moving shapes, and measure what its features tell beside those of a new one.

`python utils/demo/pretrain.py --out DIR` trains three seeds, some minutes each on one core, and writes the picture and
the numbers of docs/pretrain.md.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from accelerate import Accelerator
from transformers import set_seed

from vidformers import VJEPA2Config, VJEPA2ForPreTraining, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands.pretrain import change, describe, recipes
from vidformers.commands.pretraining_card import draw_history
from vidformers.training import ClipBatches, PreTrainer
from vidformers.video.augment import VJEPA2PretrainingAugmentation


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
SHAPE = {"temporal_scale": (1.0, 1.0), "aspect_ratio": (0.75, 1.5)}
RECIPE = change(
    recipes()["vjepa2-vitg-pretrain"][1],
    {
        "num_frames": FRAMES,
        "crop_size": SIDE,
        "steps": 400,
        "batch_size": 16,
        "start_learning_rate": 1e-4,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-5,
        "schedule_scale": 1.0,
        "warmup_steps": 50,
        "momentum": 0.99,
        "final_momentum": 1.0,
        "masks": [{"num_blocks": count, "spatial_scale": (s, s), **SHAPE} for count, s in ((2, 0.5), (1, 0.7))],
        "frame_step": 1,
        "resize_scale": (0.6, 1.0),
        "flip": False,
    },
)
LABELS = {"motion": shapes.MOTIONS, "shape": shapes.SHAPES, "color": shapes.COLORS}


@dataclass(frozen=True)
class Drawn:
    """A clip that is drawn when it is opened.

    Attributes:
        name: what messages call it.
        scene: what it shows.
        seed: decides all else.
    """

    name: str
    scene: shapes.Scene
    seed: int

    def open(self) -> np.ndarray:
        """The frames, uint8 (T, H, W, 3)."""
        return shapes.render(self.scene, np.random.default_rng(self.seed), FRAMES, SIDE)


def draw(count: int, seed: int) -> list[Drawn]:
    """Clips of random scenes."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(shapes.SCENES), size=count)
    return [Drawn(str(index), shapes.SCENES[scene], seed * count + index) for index, scene in enumerate(chosen)]


@torch.no_grad()
def features(model: VJEPA2Model, clips: list[Drawn]) -> torch.Tensor:
    """The mean feature of every clip: (clips, D)."""
    processor = VJEPA2VideoProcessor(crop_size=SIDE, size={"shortest_edge": SIDE})
    videos = processor([clip.open() for clip in clips], return_tensors="pt")["pixel_values_videos"]
    return torch.cat([model.eval().embed_videos(part) for part in videos.split(100)]).double()


def probe(known: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of the clips whose class a linear probe tells: ridge regression on features of unit variance."""
    mean, std = known.mean(0), known.std(0) + 1e-6
    known, asked = (torch.nn.functional.pad((each - mean) / std, (0, 1), value=1.0) for each in (known, asked))
    penalty = 0.01 * len(known) * torch.eye(known.shape[1], dtype=torch.float64)
    targets = torch.nn.functional.one_hot(labels).double()
    weights = torch.linalg.solve(known.T @ known + penalty, known.T @ targets)
    return ((asked @ weights).argmax(1) == truth).double().mean().item()


def accuracies(model: VJEPA2Model, probed: int) -> dict[str, float]:
    """What linear probes on a model's features tell of clips kept from the probes, for each set of classes."""
    clips = draw(probed, seed=1), draw(probed, seed=2)
    known, asked = (features(model, part) for part in clips)
    result = {}
    for name, classes in LABELS.items():
        order = list(classes)
        labels = [torch.tensor([order.index(getattr(clip.scene, name)) for clip in part]) for part in clips]
        result[name] = probe(known, labels[0], asked, labels[1])
    return result


def train(model: VJEPA2ForPreTraining, state: Path, seed: int, videos: int, **changes: Any) -> list[dict[str, float]]:
    """Pre-train a model; the records."""
    recipe = change(RECIPE, changes)
    augment = VJEPA2PretrainingAugmentation(SIDE, recipe.resize_scale, recipe.resize_aspect_ratio, recipe.flip)
    collator = model.mask_collator(recipe.masks, FRAMES, SIDE)
    clips = [draw(videos, seed=0)]
    batches = ClipBatches(clips, [1.0], lambda clip: augment(clip.open()), collator, recipe.batch_size, seed=seed)
    trainer = PreTrainer(model, batches, recipe, Accelerator(cpu=True), state, save_every=recipe.steps)
    return trainer.train(lambda record: print(describe(record), flush=True))


def compare(state: Path, seed: int, videos: int = 3000, probed: int = 1000, **changes: Any) -> dict[str, Any]:
    """Train a model and measure what its features tell, and what those of the same one told before.

    Args:
        state: folder for checkpoints.
        seed: decides the model, the order and the masks.
        videos: clips to pre-train on.
        probed: clips to train the probes on, and as many to measure with.
        changes: fields of the recipe to change.

    Returns:
        Accuracies "before" and "after", and the records.
    """
    set_seed(seed)
    model = VJEPA2ForPreTraining(VJEPA2Config(**CONFIG))
    before = accuracies(model.features_model(), probed)
    history = train(model, state, seed, videos, **changes)
    return {"before": before, "after": accuracies(model.features_model(), probed), "history": history}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the picture and the numbers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        found = compare(arguments.out / f"state{seed}", seed)
        (arguments.out / f"seed{seed}.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        draw_history(found["history"], arguments.out / f"seed{seed}.png")
        print(seed, found["before"], found["after"], flush=True)


if __name__ == "__main__":
    main()
