"""Toys that tell colors: a tiny PE core and a tiny PE Video, trained in a minute where a picture of them is drawn.

They see single shapes (shapes.py) and learn by which of six sentences, one a color, fits.
"""

from dataclasses import dataclass

import numpy as np
import shapes
import shapes_clip
import torch
import training
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from vidformers import PeCoreConfig, PeCoreModel, PeVideoConfig, PeVideoModel


SENTENCES = {color: f"a {color} shape" for color in shapes.COLORS}
PAD, START, END = "<pad>", "<start>", "<end>"
BLOCKS = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192, "num_hidden_layers": 2}
# Wide enough that colors leave their mark on features from the first step on.
BLOCKS |= {"initializer_range": 0.1}


@dataclass(frozen=True)
class Settings(training.Settings):
    """What a training run depends on. Sizes are in pixels and frames."""

    steps: int = 150
    batch_size: int = 24
    learning_rate: float = 1e-3
    image_size: int = 48
    num_frames: int = 1


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word, between a first and a last one. The last has the highest number, as PE core wants it."""
    words = sorted({word for sentence in SENTENCES.values() for word in sentence.split()})
    numbers = {word: number for number, word in enumerate([PAD, START, *words, END])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(name, numbers[name]) for name in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, model_input_names=["input_ids"])


def build_pe_core(settings: Settings, vocab_size: int) -> PeCoreModel:
    """A PE core of random weights, with patches of 6 pixels."""
    vision = {"architecture": "vit_pe_core_base_patch16_224", "image_size": settings.image_size, "patch_size": 6}
    text = {"vocab_size": vocab_size, "max_position_embeddings": 8}
    parts = ({**part, **BLOCKS, "projection_dim": 64} for part in (vision, text))
    return PeCoreModel(PeCoreConfig(**dict(zip(("vision_config", "text_config"), parts))))


def build_pe_video(settings: Settings, vocab_size: int) -> PeVideoModel:
    """A PE Video of random weights, with patches of 8 pixels."""
    tower = {**BLOCKS, "image_size": settings.image_size, "patch_size": 8, "projection_dim": 96}
    video = {**BLOCKS, "head_dim": 24, "num_key_value_heads": 4, "vision_config": tower}
    tokens = {"pad_token_id": 0, "cls_token_id": 1, "bos_token_id": 1, "eos_token_id": vocab_size - 1}
    text = {**BLOCKS, **tokens, "model_type": "modernbert", "vocab_size": vocab_size, "sep_token_id": vocab_size - 1}
    model = PeVideoModel(PeVideoConfig(text_config=text, video_config=video))
    nn.init.ones_(model.text_video_logit_scale)  # 0 in a new model, from which no gradient comes
    return model


def logits(
    model: PeCoreModel | PeVideoModel, tokenizer: PreTrainedTokenizerFast, pixels: torch.Tensor
) -> torch.Tensor:
    """How well each of the sentences fits each video (B, T, 3, H, W): (B, colors)."""
    texts = model.embed_texts(**tokenizer([*SENTENCES.values()], return_tensors="pt"))
    return model.compare(model.embed_videos(pixels), texts)


def train(
    build: type[PeCoreModel] | type[PeVideoModel], settings: Settings
) -> tuple[PeCoreModel | PeVideoModel, PreTrainedTokenizerFast]:
    """Train a model of one of the two builders; returns it and its tokenizer."""
    torch.manual_seed(settings.seed)
    tokenizer = build_tokenizer()
    model = build(settings, len(tokenizer))

    def loss_and_hits(scenes: list[shapes.Scene], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        found = logits(model, tokenizer, shapes_clip.draw_pixels(scenes, rng, settings))
        true = torch.tensor([list(SENTENCES).index(scene.color) for scene in scenes])
        return nn.functional.cross_entropy(found, true), found.argmax(1) == true

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        chosen = rng.choice(len(shapes.TRAINING), settings.batch_size, replace=False)
        return loss_and_hits([shapes.TRAINING[index] for index in chosen], rng)[0]

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        hits = loss_and_hits(list(shapes.HELD_OUT), np.random.default_rng([settings.seed, 1]))[1]
        return {"held_out_accuracy": round(hits.float().mean().item(), 3)}

    training.fit(model, settings, batch_loss, evaluate)
    return model, tokenizer
