"""Pipelines of transformers on directories of PE core."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, PreTrainedModel, pipeline

from tests.pe_core.spec import SPEC
from vidformers import PeCoreImageProcessor, PeCoreProcessor, PeCoreTokenizer, PeCoreVideoProcessor


RECORDED = json.loads((Path(__file__).parents[1] / "assets/pe_core_tokens.json").read_text("utf-8"))
LABELS = ["a cat", "a red wall", "two dogs"]
IMAGE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
SIZE = {"height": 16, "width": 16}


def build(name: str, **config) -> PreTrainedModel:
    """A tiny model with the vocabulary of the recorded merges."""
    spec = next(model for model in SPEC.models if model.name == name)
    return SPEC.build(spec, attention="sdpa", **config)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PeCoreTokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "merges.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version", *RECORDED["merges"]]).encode()))
    return PeCoreTokenizer(path)


@pytest.fixture(scope="module")
def core(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("core")
    processors = PeCoreImageProcessor(size=SIZE), PeCoreVideoProcessor(size=SIZE)
    PeCoreProcessor(*processors, tokenizer).save_pretrained(folder)
    spec = next(model for model in SPEC.models if model.name == "PeCoreModel")
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 32}
    text_config = {**SPEC.config(spec).text_config.to_dict(), **text}
    build("PeCoreModel", text_config=text_config).save_pretrained(folder)
    return folder


def test_zero_shot_image_classification(core):
    classify = pipeline("zero-shot-image-classification", model=str(core))
    found = {entry["label"]: entry["score"] for entry in classify(IMAGE, candidate_labels=LABELS)}
    processor, model = AutoProcessor.from_pretrained(core), AutoModel.from_pretrained(core)
    texts = [f"This is a photo of {label}." for label in LABELS]
    with torch.no_grad():
        logits = model(**processor(text=texts, images=IMAGE, return_tensors="pt")).logits_per_image
    torch.testing.assert_close(torch.tensor([found[label] for label in LABELS]), logits.softmax(-1)[0])


def test_image_feature_extraction(core, tmp_path):
    """Of the model of images and texts, embeddings; of a tower alone, tokens or the pooled vector."""
    images = AutoProcessor.from_pretrained(core)(images=IMAGE, return_tensors="pt")
    extract = pipeline("image-feature-extraction", model=str(core))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(core)(**images).image_embeds
    torch.testing.assert_close(extract(IMAGE, return_tensors=True), expected)
    tower = build("PeVisionModel")
    tower.save_pretrained(tmp_path)
    PeCoreImageProcessor(size=SIZE).save_pretrained(tmp_path)
    extract = pipeline("image-feature-extraction", model=str(tmp_path))
    with torch.no_grad():
        expected = tower(**images)
    torch.testing.assert_close(extract(IMAGE, return_tensors=True), expected.last_hidden_state)
    torch.testing.assert_close(extract(IMAGE, pool=True, return_tensors=True), expected.pooler_output)


def test_feature_extraction(tokenizer, tmp_path):
    tower = build("PeCoreTextModel", vocab_size=len(tokenizer), max_position_embeddings=32)
    tower.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    extract = pipeline("feature-extraction", model=str(tmp_path))
    with torch.no_grad():
        expected = tower(**tokenizer(LABELS[0], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(extract(LABELS[0], return_tensors=True), expected)
