#!/usr/bin/env python3
"""Train the demo model: a tiny VideoPrism CLIP that knows moving shapes, from clips drawn on the fly.

Usage: python utils/train_demo.py [--out FOLDER] [--steps N] [--batch-size N] [--seed N] [--threads N]

The model sees 120 of 144 scenes (6 colours × 4 shapes × 6 motions, see utils/shapes.py), with captions of many kinds.
Its accuracy is that on clips of the other 24 scenes: how often the right one among the captions of all 144 is the
closest. FOLDER (src/demo_model) receives model, tokenizer and processor as `from_pretrained` takes them, and
`training.json`: settings, the curve of losses and accuracies, and the final accuracy.
"""

import argparse
import io
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sentencepiece
import shapes
import torch
from torch import nn

from vidformers import (
    VideoPrismClipModel,
    VideoPrismConfig,
    VideoPrismProcessor,
    VideoPrismTextConfig,
    VideoPrismTokenizer,
    VideoPrismVideoProcessor,
    VideoPrismVisionConfig,
)
from vidformers.layers.losses import contrastive_loss
from vidformers.models.videoprism.tokenization_videoprism import canonicalize_text


FOLDER = Path(__file__).parents[1] / "src/demo_model"
MAX_LOGIT_SCALE = 100.0
# Of pixel values in [0, 1], for all channels. Without them the brightness of the background drowns the rest.
MEAN, STD = 0.25, 0.25


@dataclass(frozen=True)
class Settings:
    """What a training run depends on. Sizes are in pixels, frames and channels."""

    steps: int = 850
    batch_size: int = 32
    seed: int = 0
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup_steps: int = 30
    image_size: int = 48
    patch_size: int = 12
    num_frames: int = 4
    hidden_size: int = 96
    intermediate_size: int = 192
    num_attention_heads: int = 4
    max_text_tokens: int = 24
    evaluate_every: int = 50
    clips_per_scene: int = 2
    final_clips_per_scene: int = 25


def train_tokenizer(max_tokens: int) -> VideoPrismTokenizer:
    """A tokenizer whose sentencepiece model has seen the captions of the training scenes."""
    texts = [scene.caption(template) for scene in shapes.TRAINING for template in shapes.TEMPLATES]
    texts += [scene.caption(part) for parts in shapes.PARTIAL_TEMPLATES.values() for part in parts
              for scene in shapes.TRAINING]  # fmt: skip
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(canonicalize_text, texts),
        model_writer=model,
        vocab_size=128,
        hard_vocab_limit=False,
        # Words that no caption has come as letters.
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789",
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, "spiece.model")
        path.write_bytes(model.getvalue())
        return VideoPrismTokenizer(path, model_max_length=max_tokens)


def build_model(settings: Settings, vocab_size: int) -> VideoPrismClipModel:
    """The model with random weights, two spatial, one temporal, one auxiliary and two text blocks."""
    shared = {
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.intermediate_size,
        "num_attention_heads": settings.num_attention_heads,
    }
    vision = VideoPrismVisionConfig(
        image_size=settings.image_size,
        num_frames=settings.num_frames,
        tubelet_size=(1, settings.patch_size, settings.patch_size),
        num_spatial_layers=2,
        num_temporal_layers=1,
        num_auxiliary_layers=1,
        **shared,
    )
    text = VideoPrismTextConfig(
        vocab_size=vocab_size,
        num_hidden_layers=2,
        max_position_embeddings=settings.max_text_tokens,
        **shared,
    )
    config = VideoPrismConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), logit_scale_init_value=float(np.log(10))
    )
    # At a few dozen tokens a matrix of scores costs less than going about without one.
    model = VideoPrismClipModel._from_config(config, attn_implementation="eager")
    # Motion is place times time. At their usual size beside normalised features both say too little to start from.
    encoder = model.video_model.vision_model
    with torch.no_grad():
        encoder.spatial_embeddings.position_embeddings.mul_(3)
        encoder.temporal_embeddings.position_embeddings.mul_(8)
    return model


def draw_pixels(scenes: list[shapes.Scene], rng: np.random.Generator, settings: Settings) -> torch.Tensor:
    """A clip of every scene as model input: (scenes, T, 3, H, W)."""
    clips = [shapes.render(scene, rng, settings.num_frames, settings.image_size) for scene in scenes]
    return (torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 255 - MEAN) / STD


def embed_texts(model: VideoPrismClipModel, tokenizer: VideoPrismTokenizer, texts: list[str]) -> torch.Tensor:
    """(texts, D), of length one."""
    return model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output


def batch_loss(
    model: VideoPrismClipModel, tokenizer: VideoPrismTokenizer, rng: np.random.Generator, settings: Settings
) -> torch.Tensor:
    """The loss of a batch of different scenes.

    It is the contrastive loss over clips and captions, and for each attribute the cross-entropy of a clip's value
    among the sentences about all values. There several clips share a sentence, which the former has no room for.
    """
    chosen = rng.choice(len(shapes.TRAINING), settings.batch_size, replace=False)
    scenes = [shapes.TRAINING[index] for index in chosen]
    texts = [scene.caption(str(rng.choice(shapes.TEMPLATES))) for scene in scenes]
    targets, widths = [], []
    for attribute, values in (("colour", shapes.COLOURS), ("shape", shapes.SHAPES), ("motion", shapes.MOTIONS)):
        template = str(rng.choice(shapes.PARTIAL_TEMPLATES[attribute]))
        words = {"colour": "red", "shape": "circle", "motion": "grows"}
        texts += [shapes.Scene(**{**words, attribute: value}).caption(template) for value in values]
        targets.append(torch.tensor([list(values).index(getattr(scene, attribute)) for scene in scenes]))
        widths.append(len(values))

    videos = model.get_video_features(draw_pixels(scenes, rng, settings)).pooler_output  # (B, D)
    similarity = model.logit_scale.exp() * videos @ embed_texts(model, tokenizer, texts).T  # (B, B + values)
    whole, *parts = similarity.split([len(scenes), *widths], dim=1)
    loss = contrastive_loss(whole)
    return loss + sum(nn.functional.cross_entropy(part, target) for part, target in zip(parts, targets))


@torch.no_grad()
def held_out_accuracy(
    model: VideoPrismClipModel, tokenizer: VideoPrismTokenizer, clips_per_scene: int, settings: Settings
) -> float:
    """Share of clips of held-out scenes that are closest to their caption among those of all scenes."""
    rng = np.random.default_rng([settings.seed, 1])
    captions = embed_texts(model, tokenizer, [scene.caption() for scene in shapes.SCENES])
    right = []
    for _ in range(clips_per_scene):
        videos = model.get_video_features(draw_pixels(list(shapes.HELD_OUT), rng, settings)).pooler_output
        best = (videos @ captions.T).argmax(1).tolist()
        right += [shapes.SCENES[index] == scene for index, scene in zip(best, shapes.HELD_OUT)]
    return sum(right) / len(right)


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW, with decay of matrices and tables alone."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def train(settings: Settings) -> tuple[VideoPrismClipModel, VideoPrismTokenizer, dict]:
    """Train; returns the model, its tokenizer, and the record that becomes `training.json`."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 0])
    tokenizer = train_tokenizer(settings.max_text_tokens)
    model = build_model(settings, len(tokenizer)).train()
    optimizer = build_optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, settings))
    curve, losses, start, processor_start = [], [], time.perf_counter(), time.process_time()
    for step in range(1, settings.steps + 1):
        loss = batch_loss(model, tokenizer, rng, settings)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(MAX_LOGIT_SCALE)))
        losses.append(loss.item())
        if step % settings.evaluate_every == 0 or step == settings.steps:
            accuracy = held_out_accuracy(model.eval(), tokenizer, settings.clips_per_scene, settings)
            model.train()
            curve.append({"step": step, "loss": round(float(np.mean(losses)), 4), "held_out_accuracy": accuracy})
            losses = []
            print(f"{time.perf_counter() - start:6.0f} s  {json.dumps(curve[-1])}", flush=True)
    record = {
        "settings": asdict(settings),
        "threads": torch.get_num_threads(),
        "training_seconds": round(time.perf_counter() - start),
        "processor_seconds": round(time.process_time() - processor_start),
        "captions": len(shapes.SCENES),
        "held_out_clips": len(shapes.HELD_OUT) * settings.final_clips_per_scene,
        "held_out_accuracy": held_out_accuracy(model.eval(), tokenizer, settings.final_clips_per_scene, settings),
        "curve": curve,
    }
    return model, tokenizer, record


def rate_at(step: int, settings: Settings) -> float:
    """Share of the learning rate at a step: up in a line, down in half a cosine."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, done)))


def write(folder: Path, model: VideoPrismClipModel, tokenizer: VideoPrismTokenizer, record: dict) -> None:
    """Save model, processor and record as a directory for `from_pretrained`."""
    settings = record["settings"]
    video_processor = VideoPrismVideoProcessor(
        size=settings["image_size"],
        num_frames=settings["num_frames"],
        do_normalize=True,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    model.save_pretrained(folder)
    VideoPrismProcessor(video_processor, tokenizer).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Train and write the directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    for name in ("steps", "batch_size", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Settings, name))
    parser.add_argument("--threads", type=int, default=1, help="threads to compute on; the result depends on it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    model, tokenizer, record = train(settings)
    write(options.out, model, tokenizer, record)
    size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
    print(f"held-out accuracy {record['held_out_accuracy']:.1%} of {record['held_out_clips']} clips, {size:.2f} MB")


if __name__ == "__main__":
    main()
