"""utils/demo/train_demo.py and the models that it trains, smaller ones and for a few steps."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor, AutoVideoProcessor

from vidformers import VJEPA2ACModel


ROOT = Path(__file__).parents[2]
SMALL = {"batch_size": 16, "image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 48}
SMALL |= {"intermediate_size": 96, "num_attention_heads": 2, "warmup_steps": 10}
SMALL |= {"clips_per_scene": 1, "final_clips_per_scene": 1}
CLIP = SMALL | {"learning_rate": 4e-3}
WORLD = {"batch_size": 8, "crop_size": 16, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 1}
WORLD |= {"num_attention_heads": 2, "pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
WORLD |= {"encoder_steps": 3, "warmup_steps": 10, "problems": 4}
MAE = SMALL | {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 32}


@pytest.fixture(scope="module")
def train_demo():
    sys.path.insert(0, str(ROOT / "utils/demo"))
    try:
        import train_demo
    finally:
        sys.path.remove(str(ROOT / "utils/demo"))
    return train_demo


@pytest.fixture(scope="module")
def shapes(train_demo):
    return train_demo.shapes_clip.shapes


@pytest.mark.slow
def test_the_loss_of_the_clip_falls(train_demo, tmp_path):
    settings = train_demo.shapes_clip.Settings(**CLIP, steps=80, evaluate_every=20)
    model, processor, record = train_demo.shapes_clip.train(settings)
    losses = [point["loss"] for point in record["curve"]]
    assert [point["step"] for point in record["curve"]] == [20, 40, 60, 80]
    assert losses[-1] < losses[0] - 0.3 and record["settings"]["steps"] == 80

    train_demo.write(tmp_path, model, processor, record)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    loaded, processor = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert processor.video_processor.size == {"height": 16, "width": 16} and processor.video_processor.num_frames == 4
    again = train_demo.shapes_clip.held_out_accuracy(loaded, processor.tokenizer, 1, settings)
    assert again == record["held_out_accuracy"]


@pytest.mark.slow
def test_the_error_of_the_mae_falls(train_demo, tmp_path):
    settings = train_demo.shapes_mae.Settings(**MAE, steps=300, evaluate_every=20)
    model, processor, record = train_demo.shapes_mae.train(settings)
    errors = [point["held_out_error"] for point in record["curve"]]
    assert [point["step"] for point in record["curve"]] == list(range(20, 301, 20))
    assert errors[-1] < errors[0] - 0.02 and record["held_out_clips"] == 24

    train_demo.write(tmp_path, model, processor, record)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    again = train_demo.shapes_mae.held_out_errors(loaded, AutoVideoProcessor.from_pretrained(tmp_path), 1, settings)
    assert again.items() <= record.items()


@pytest.mark.slow
def test_the_error_of_the_world_falls(train_demo, tmp_path):
    settings = train_demo.shapes_world.Settings(**WORLD | {"encoder_steps": 100}, steps=100, evaluate_every=20)
    world, processor, record = train_demo.shapes_world.train(settings)
    for name in ("curve", "encoder_curve"):
        losses = [point["loss"] for point in record[name]]
        assert len(losses) == 5 and losses[-1] < 0.9 * losses[0], name
    assert record["problems"] == 4 and record["settings"]["steps"] == 100

    train_demo.write(tmp_path, world, processor, record)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    loaded, processor = VJEPA2ACModel.from_pretrained(tmp_path).eval(), AutoVideoProcessor.from_pretrained(tmp_path)
    problems = train_demo.shapes_world.draw_problems(4, settings.seed)
    course = train_demo.shapes_world.solve(loaded, processor, problems, settings.seed)
    assert train_demo.shapes_world.share_near(course.states, problems) == record["solved"]


def test_the_world_is_drawn_where_its_state_says(train_demo):
    world = train_demo.shapes_world
    places = torch.tensor([[0.06, 0.2, 0.03], [-0.06, -0.2, -0.09]])
    look = world.Look("circle", np.ones(3), np.zeros(3), radius=0.12, tilt=0.1)
    frames = world.draw(look, torch.nn.functional.pad(places, (0, 4)), 60)
    for frame, (right, _, up) in zip(frames, places.tolist(), strict=True):
        y, x = (values.mean() for values in np.nonzero(frame[..., 0] > 127))
        assert (x + 0.5, y + 0.5) == pytest.approx((30 + 200 * right, 30 - 200 * up), abs=0.5)


@pytest.mark.parametrize(("name", "sizes"), [("clip", CLIP), ("mae", MAE), ("world", WORLD)])
def test_a_seed_decides(train_demo, name, sizes):
    module = train_demo.MODELS[name]

    def weights(seed):
        return module.train(module.Settings(**sizes, steps=3, seed=seed))[0].state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    token = {"clip": "text_model.embeddings.cls_emb", "mae": "mask_token", "world": "predictor.proj.weight"}[name]
    assert not torch.equal(first[token], other[token])


def test_the_command_gives_its_options_on(train_demo, tmp_path, monkeypatch, capsys):
    seen = []

    def train(settings):
        seen.append(settings)
        torch.manual_seed(0)
        model = train_demo.shapes_mae.build_model(settings)
        record = {"held_out_error": 0.05, "held_out_clips": 24}
        record |= {"error_of_nearest_patch": 0.2, "error_of_mean_color": 0.1}
        return model, train_demo.shapes_mae.build_processor(settings), record

    threads = torch.get_num_threads()
    monkeypatch.setattr(train_demo.shapes_mae, "train", train)
    train_demo.main(["mae", "--out", str(tmp_path / "out"), "--steps", "7", "--seed", "3", "--threads", str(threads)])
    assert seen == [train_demo.shapes_mae.Settings(steps=7, seed=3)]
    assert "error of hidden pixels 0.050" in capsys.readouterr().out
    assert (tmp_path / "out" / "training.json").exists()


def test_ways_to_fill_in_without_a_model(train_demo):
    mae = train_demo.shapes_mae
    frames = torch.rand(1, 2, 3, 6, 6)
    patches = mae.patches_of(frames, 2)
    assert patches.shape == (1, 9, 2, 3, 2, 2) and torch.equal(patches[0, 5], frames[0, :, :, 2:4, 4:6])
    is_hidden = torch.tensor([[False, True, True, True, True, True, False, True, False]])  # a corner and two below
    mean = mae.mean_color(patches, is_hidden)
    assert torch.allclose(mean[0, 4, 1, 2], patches[0, [0, 6, 8], 1, 2].mean().expand(2, 2))
    nearest = mae.nearest_visible(patches, is_hidden)
    for place, copied in ((0, 0), (1, 0), (5, 8), (7, 6)):
        assert torch.equal(nearest[0, place], patches[0, copied])


def test_scenes_held_out(shapes):
    assert (
        len(shapes.HELD_OUT) == 24 and len(shapes.TRAINING) == 120 and not set(shapes.HELD_OUT) & set(shapes.TRAINING)
    )
    for attribute, count in (("color", 4), ("shape", 6), ("motion", 4)):
        words = [getattr(scene, attribute) for scene in shapes.HELD_OUT]
        assert {words.count(word) for word in words} == {count}, "every word is held out equally often"


def test_clips_show_their_scenes(shapes):
    for scene in shapes.SCENES:
        frames = shapes.render(scene, np.random.default_rng(3), 8, 64).astype(float)
        assert frames.shape == (8, 64, 64, 3)
        color = 255 * np.array(shapes.COLORS[scene.color])
        shown = np.abs(frames - color).max(-1) < 35  # (T, H, W)
        times, y, x = np.nonzero(shown)
        size = np.array([shown[time].sum() for time in (0, 7)])
        shift = [values[times == 7].mean() - values[times == 0].mean() for values in (x, y)]
        towards = dict(zip(("left", "right", "up", "down"), ((-1, 0), (1, 0), (0, -1), (0, 1))))
        expected = towards.get(scene.motion.split()[-1], (0, 0))
        assert np.round(np.array(shift) / 64 / 0.35).tolist() == list(expected), scene
        growth = {"grows": 1, "shrinks": -1}.get(scene.motion, 0)
        assert (size[1] > 1.5 * size[0], size[0] > 1.5 * size[1]) == (growth > 0, growth < 0), scene


def test_the_tokenizer_spells_words_that_it_has_not_seen(train_demo):
    tokenizer = train_demo.shapes_clip.train_tokenizer(24)
    ids = tokenizer("a quick zebra moves left")["input_ids"]
    assert tokenizer.unk_token_id not in ids and len(ids) <= 24
    assert len(tokenizer("a red circle moves left")["input_ids"]) <= 9
