"""utils/finetune.py: a classifier learns from a folder of clips, and what is wrong with a folder is said."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

import vidformers
from tests.video_files import write_video
from vidformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor


ROOT = Path(__file__).parents[2]
SHAPES_MAE = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
VJEPA2 = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "pred_hidden_size": 24}
VJEPA2 |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "crop_size": 32, "patch_size": 16}


@pytest.fixture(scope="module")
def finetune():
    spec = importlib.util.spec_from_file_location("_finetune", ROOT / "utils/finetune.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(finetune, *arguments) -> None:
    finetune.main([*map(str, arguments), "--workers", "0"])


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


def test_motions_are_learned(finetune, shapes, tmp_path):
    """From the toy VideoMAE, which knows clips but no classes: a single frame does not tell these four apart."""
    rng, motions = np.random.default_rng(0), list(shapes.MOTIONS)[:4]
    for motion in motions:
        (tmp_path / "clips" / motion).mkdir(parents=True)
        scenes = [scene for scene in shapes.SCENES if scene.motion == motion]
        for index in range(20):
            frames = shapes.render(scenes[rng.integers(len(scenes))], rng, num_frames=8, side=64)
            shapes.write_clip(tmp_path / "clips" / motion / f"{index}.mp4", frames)
    options = ("--model", SHAPES_MAE, "--out", tmp_path / "out", "--epochs", 4, "--learning-rate", 1e-3)
    run(finetune, tmp_path / "clips", *options, "--validation-share", 0.25)
    measured = json.loads((tmp_path / "out/eval_results.json").read_text())
    assert measured["eval_accuracy"] >= 0.95
    config = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == sorted(motions)


def test_any_family(finetune, two_classes, tiny_vjepa2, tmp_path, capsys):
    arguments = ("--model", tiny_vjepa2, "--out", tmp_path / "out", "--num-frames", 4, "--epochs", 1)
    run(finetune, two_classes, *arguments)
    assert "2 classes, 6 clips to train on, 2 to measure with" in capsys.readouterr().out
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    assert type(model) is vidformers.VJEPA2ForVideoClassification and model.config.label2id == {"flat": 0, "tall": 1}
    assert AutoVideoProcessor.from_pretrained(tmp_path / "out").crop_size == {"height": 32, "width": 32}


def test_folders_that_are_none(finetune, two_classes, tiny_vjepa2, tmp_path, capsys):
    def message(folder) -> str:
        with pytest.raises(SystemExit) as stop:
            run(finetune, folder, "--model", tiny_vjepa2, "--out", tmp_path / "out")
        assert stop.value.code == 1 and not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "each of two classes or more, found no such folder" in message(tmp_path / "absent")
    assert "found none" in message(two_classes / "flat")
    (tmp_path / "one/flat").mkdir(parents=True)
    (tmp_path / "one/.hidden").mkdir()
    assert "found only flat" in message(tmp_path / "one")
    for index in range(1, 4):
        (two_classes / f"tall/{index}.mp4").rename(two_classes / f"tall/{index}.txt")
    assert "too few of tall (1). Looked for .3gp" in message(two_classes)
    assert "absent" in message_of_model(finetune, two_classes, tmp_path, capsys)


def message_of_model(finetune, folder, tmp_path, capsys) -> str:
    for index in range(1, 4):
        (folder / f"tall/{index}.txt").rename(folder / f"tall/{index}.mp4")
    with pytest.raises(SystemExit):
        run(finetune, folder, "--model", tmp_path / "absent", "--out", tmp_path / "out")
    return capsys.readouterr().err


def test_unreadable_files_are_named_or_left_out(finetune, two_classes, tiny_vjepa2, tmp_path, capsys):
    (two_classes / "tall/2.mp4").write_text("no video")
    (two_classes / "flat/empty.mp4").touch()
    arguments = (two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", "--epochs", 1)
    with pytest.raises(SystemExit):
        run(finetune, *arguments)
    message = capsys.readouterr().err
    assert "tall/2.mp4" in message and "flat/empty.mp4" in message and "--skip-unreadable" in message
    run(finetune, *arguments, "--skip-unreadable")
    output = capsys.readouterr().out
    assert "2 classes, 5 clips to train on, 2 to measure with" in output and "tall/2.mp4" in output
    for index in (0, 1, 3):
        (two_classes / f"tall/{index}.mp4").write_text("no video")
    with pytest.raises(SystemExit):
        run(finetune, *arguments, "--skip-unreadable")
    assert "too few of tall (0)" in capsys.readouterr().err


def test_split(finetune):
    clips = [
        finetune.Clip(Path(f"{label}/{index}"), label) for label, count in ((0, 2), (1, 20)) for index in range(count)
    ]
    training, validation = finetune.split(clips, 0.2, seed=0)
    assert sorted(clip.label for clip in validation) == [0, 1, 1, 1, 1] and len(training) == 17
    assert set(training) | set(validation) == set(clips)
    assert finetune.split(clips, 0.2, seed=0)[1] == validation != finetune.split(clips, 0.2, seed=1)[1]
    training, _ = finetune.split(clips, 0.99, seed=0)
    assert sorted(clip.label for clip in training) == [0, 1]
