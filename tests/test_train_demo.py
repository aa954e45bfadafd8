"""utils/train_demo.py and utils/shapes.py, on a smaller model and for a few steps."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor


ROOT = Path(__file__).parents[1]
TINY = {
    "batch_size": 16,
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "learning_rate": 4e-3,
    "warmup_steps": 10,
    "clips_per_scene": 1,
    "final_clips_per_scene": 1,
}


@pytest.fixture(scope="module")
def train_demo():
    sys.path.insert(0, str(ROOT / "utils"))
    try:
        import train_demo
    finally:
        sys.path.remove(str(ROOT / "utils"))
    return train_demo


def test_the_loss_falls(train_demo, tmp_path):
    settings = train_demo.Settings(**TINY, steps=80, evaluate_every=20)
    model, tokenizer, record = train_demo.train(settings)
    losses = [point["loss"] for point in record["curve"]]
    assert [point["step"] for point in record["curve"]] == [20, 40, 60, 80]
    assert losses[-1] < losses[0] - 0.3 and record["settings"]["steps"] == 80

    train_demo.write(tmp_path, model, tokenizer, record)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    loaded, processor = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert processor.video_processor.size == {"height": 16, "width": 16} and processor.video_processor.num_frames == 4
    again = train_demo.held_out_accuracy(loaded, processor.tokenizer, 1, settings)
    assert again == record["held_out_accuracy"]


def test_a_seed_decides(train_demo):
    def weights(seed):
        return train_demo.train(train_demo.Settings(**TINY, steps=3, seed=seed))[0].state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["text_model.embeddings.cls_emb"], other["text_model.embeddings.cls_emb"])


def test_scenes_held_out(train_demo):
    shapes = train_demo.shapes
    assert (
        len(shapes.HELD_OUT) == 24 and len(shapes.TRAINING) == 120 and not set(shapes.HELD_OUT) & set(shapes.TRAINING)
    )
    for attribute, count in (("colour", 4), ("shape", 6), ("motion", 4)):
        words = [getattr(scene, attribute) for scene in shapes.HELD_OUT]
        assert {words.count(word) for word in words} == {count}, "every word is held out equally often"


def test_clips_show_their_scenes(train_demo):
    shapes = train_demo.shapes
    for scene in shapes.SCENES:
        frames = shapes.render(scene, np.random.default_rng(3), 8, 64).astype(float)
        assert frames.shape == (8, 64, 64, 3)
        colour = 255 * np.array(shapes.COLOURS[scene.colour])
        shown = np.abs(frames - colour).max(-1) < 35  # (T, H, W)
        times, y, x = np.nonzero(shown)
        size = np.array([shown[time].sum() for time in (0, 7)])
        shift = [values[times == 7].mean() - values[times == 0].mean() for values in (x, y)]
        towards = dict(zip(("left", "right", "up", "down"), ((-1, 0), (1, 0), (0, -1), (0, 1))))
        expected = towards.get(scene.motion.split()[-1], (0, 0))
        assert np.round(np.array(shift) / 64 / 0.35).tolist() == list(expected), scene
        growth = {"grows": 1, "shrinks": -1}.get(scene.motion, 0)
        assert (size[1] > 1.5 * size[0], size[0] > 1.5 * size[1]) == (growth > 0, growth < 0), scene


def test_the_tokenizer_spells_words_that_it_has_not_seen(train_demo):
    tokenizer = train_demo.train_tokenizer(24)
    ids = tokenizer("a quick zebra moves left")["input_ids"]
    assert tokenizer.unk_token_id not in ids and len(ids) <= 24
    assert len(tokenizer("a red circle moves left")["input_ids"]) <= 9
