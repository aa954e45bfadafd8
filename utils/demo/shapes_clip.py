"""The model that tells moving shapes by sentences: a tiny VideoPrism CLIP, which train_demo.py trains.

It sees 120 of 144 scenes (6 colors × 4 shapes × 6 motions, see shapes.py), with captions of many kinds. Its
accuracy is that on clips of the other 24 scenes: how often the right one among the captions of all 144 is the closest.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sentencepiece
import shapes
import torch
import training
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


MAX_LOGIT_SCALE = 100.0
# Of pixel values in [0, 1], for all channels. Without them the brightness of the background drowns the rest.
MEAN, STD = 0.25, 0.25


@dataclass(frozen=True)
class Settings(training.Settings):
    """What a training run depends on. Sizes are in pixels, frames and channels."""

    steps: int = 850
    batch_size: int = 32
    learning_rate: float = 6e-4
    image_size: int = 48
    patch_size: int = 12
    num_frames: int = 4
    hidden_size: int = 96
    intermediate_size: int = 192
    num_attention_heads: int = 4
    max_text_tokens: int = 24
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
    # Motion is place times time. At their usual size beside normalized features both say too little to start from.
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
    for attribute, values in (("color", shapes.COLORS), ("shape", shapes.SHAPES), ("motion", shapes.MOTIONS)):
        template = str(rng.choice(shapes.PARTIAL_TEMPLATES[attribute]))
        words = {"color": "red", "shape": "circle", "motion": "grows"}
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


def build_processor(settings: Settings, tokenizer: VideoPrismTokenizer) -> VideoPrismProcessor:
    """What makes model input of clips and captions."""
    video_processor = VideoPrismVideoProcessor(
        size=settings.image_size,
        num_frames=settings.num_frames,
        do_normalize=True,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return VideoPrismProcessor(video_processor, tokenizer)


def train(settings: Settings) -> tuple[VideoPrismClipModel, VideoPrismProcessor, dict]:
    """Train; returns the model, its processor, and the record that becomes `training.json`."""
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(settings.max_text_tokens)
    model = build_model(settings, len(tokenizer))

    def accuracy(clips_per_scene: int) -> dict:
        return {"held_out_accuracy": held_out_accuracy(model, tokenizer, clips_per_scene, settings)}

    @torch.no_grad()
    def limit_scale() -> None:
        model.logit_scale.clamp_(max=float(np.log(MAX_LOGIT_SCALE)))

    record = training.fit(
        model,
        settings,
        batch_loss=lambda rng: batch_loss(model, tokenizer, rng, settings),
        evaluate=lambda: accuracy(settings.clips_per_scene),
        after_step=limit_scale,
    )
    record |= {
        "captions": len(shapes.SCENES),
        "held_out_clips": len(shapes.HELD_OUT) * settings.final_clips_per_scene,
        **accuracy(settings.final_clips_per_scene),
    }
    return model, build_processor(settings, tokenizer), record


def describe(record: dict) -> str:
    """The result in a line."""
    return f"held-out accuracy {record['held_out_accuracy']:.1%} of {record['held_out_clips']} clips"
