"""`vidformers finetune`: a classifier learns from a folder of clips, and what is wrong with a folder is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor
from typer.testing import CliRunner

import vidformers
from tests.video_files import write_video
from vidformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands import finetune
from vidformers.commands.cli import app


SHAPES_MAE = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
VJEPA2 = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "pred_hidden_size": 24}
VJEPA2 |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "crop_size": 32, "patch_size": 16}


def run(*arguments, expect: int = 0) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["finetune", *map(str, arguments), "--workers", "0"])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


@pytest.fixture
def two_classes(tmp_path) -> Path:
    """Four clips of each of two classes."""
    for name, height in (("flat", 32), ("tall", 96)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for index in range(4):
            write_video(tmp_path / "clips" / name / f"{index}.mp4", num_frames=6, height=height)
    return tmp_path / "clips"


@pytest.fixture(scope="module")
def tiny_vjepa2(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vjepa2")
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**VJEPA2)).save_pretrained(folder)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_motions_are_learned(shapes, tmp_path):
    """From the toy VideoMAE, which knows clips but no classes: a single frame does not tell these four apart."""
    rng, motions = np.random.default_rng(0), list(shapes.MOTIONS)[:4]
    for motion in motions:
        (tmp_path / "clips" / motion).mkdir(parents=True)
        scenes = [scene for scene in shapes.SCENES if scene.motion == motion]
        for index in range(20):
            frames = shapes.render(scenes[rng.integers(len(scenes))], rng, num_frames=8, side=64)
            shapes.write_clip(tmp_path / "clips" / motion / f"{index}.mp4", frames)
    options = ("--model", SHAPES_MAE, "--out", tmp_path / "out", "--epochs", 4, "--learning-rate", 1e-3)
    run(tmp_path / "clips", *options, "--validation-share", 0.25)
    measured = json.loads((tmp_path / "out/eval_results.json").read_text())
    assert measured["eval_accuracy"] >= 0.95
    config = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == sorted(motions)


def test_any_family(two_classes, tiny_vjepa2, tmp_path):
    output = run(two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", "--num-frames", 4, "--epochs", 1)
    assert "2 classes, 6 clips to train on, 2 to measure with" in output
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    assert type(model) is vidformers.VJEPA2ForVideoClassification and model.config.label2id == {"flat": 0, "tall": 1}
    assert AutoVideoProcessor.from_pretrained(tmp_path / "out").crop_size == {"height": 32, "width": 32}


def test_folders_and_models_that_are_none(two_classes, tiny_vjepa2, tmp_path):
    def message(folder, model=tiny_vjepa2) -> str:
        output = run(folder, "--model", model, "--out", tmp_path / "out", expect=1)
        assert not (tmp_path / "out").exists()
        return output

    assert "each of two classes or more, found no such folder" in message(tmp_path / "absent")
    assert "found none" in message(two_classes / "flat")
    (tmp_path / "one/flat").mkdir(parents=True)
    (tmp_path / "one/.hidden").mkdir()
    assert "found only flat" in message(tmp_path / "one")
    assert "no such directory" in message(two_classes, tmp_path / "absent-model")
    text = vidformers.VideoPrismTextConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    text.save_pretrained(tmp_path / "text")
    assert "VideoPrismTextModel has no counterpart that classifies videos" in message(two_classes, tmp_path / "text")
    for index in range(1, 4):
        (two_classes / f"tall/{index}.mp4").rename(two_classes / f"tall/{index}.txt")
    assert "too few of tall (1). Looked for .3gp" in message(two_classes)


def test_without_accelerate(two_classes, tiny_vjepa2, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "find_spec", lambda name: None)
    output = run(two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", expect=1)
    assert "needs accelerate" in output and "vidformers[train]" in output


def test_unreadable_files_are_named_or_left_out(two_classes, tiny_vjepa2, tmp_path):
    (two_classes / "tall/2.mp4").write_text("no video")
    (two_classes / "flat/empty.mp4").touch()
    arguments = (two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", "--epochs", 1)
    message = run(*arguments, expect=1)
    assert "tall/2.mp4" in message and "flat/empty.mp4" in message and "--skip-unreadable" in message
    output = run(*arguments, "--skip-unreadable")
    assert "2 classes, 5 clips to train on, 2 to measure with" in output and "tall/2.mp4" in output
    for index in (0, 1, 3):
        (two_classes / f"tall/{index}.mp4").write_text("no video")
    assert "too few of tall (0)" in run(*arguments, "--skip-unreadable", expect=1)


def test_split():
    clips = [
        finetune.Clip(Path(f"{label}/{index}"), label) for label, count in ((0, 2), (1, 20)) for index in range(count)
    ]
    training, validation = finetune.split(clips, 0.2, seed=0)
    assert sorted(clip.label for clip in validation) == [0, 1, 1, 1, 1] and len(training) == 17
    assert set(training) | set(validation) == set(clips)
    assert finetune.split(clips, 0.2, seed=0)[1] == validation != finetune.split(clips, 0.2, seed=1)[1]
    training, _ = finetune.split(clips, 0.99, seed=0)
    assert sorted(clip.label for clip in training) == [0, 1]
