"""`vidformers finetune`: a classifier learns from a folder of clips, and what is wrong with a folder is said."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModelForVideoClassification, AutoVideoProcessor
from typer.testing import CliRunner

import vidformers
from tests.video_files import write_video
from vidformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands import finetune
from vidformers.commands.cli import app
from vidformers.inference import labeled_clips
from vidformers.inference.labeled_clips import Clip, find_clips, split
from vidformers.training import state


SHAPES_MAE = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
VJEPA2 = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "pred_hidden_size": 24}
VJEPA2 |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "crop_size": 32, "patch_size": 16}


VIDEOMAE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}
VIDEOMAE |= {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
VIDEOMAE |= {"decoder_intermediate_size": 32, "image_size": 32, "patch_size": 16, "num_frames": 4}


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


def fake_datasets(files: list[Path]) -> ModuleType:
    """As much of the package `datasets` as a data set of these files needs, classes named after their folders."""
    module = ModuleType("datasets")
    module.Video = type("Video", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    module.ClassLabel = type("ClassLabel", (), {"names": ["flat", "tall"]})

    class Rows:
        features = {"video": module.Video(), "label": module.ClassLabel()}

        def __init__(self, decode: bool = True):
            self.decode = decode

        def cast_column(self, name, feature):
            return Rows(feature.decode)

        def select_columns(self, names):
            return self

        def __getitem__(self, key):
            if key == "label":
                return [self.features["label"].names.index(file.parent.name) for file in files]
            assert not self.decode
            return {"video": {"path": files[key].name, "bytes": files[key].read_bytes()}}

    def load_dataset(name, split):
        assert (name, split) == ("someone/clips", "validation")
        return Rows()

    module.load_dataset, module.__spec__ = load_dataset, True
    return module


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
    measured = json.loads((tmp_path / "out/training.json").read_text())
    assert measured["epochs"][-1]["accuracy"] >= 0.95
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
    assert "too few of tall (1). Folders are searched for .3gp" in message(two_classes)


@pytest.mark.parametrize("package", ["accelerate", "matplotlib"])
def test_without_a_package(two_classes, tiny_vjepa2, tmp_path, monkeypatch, package):
    monkeypatch.setattr(state, "find_spec", lambda name: None if name == package else name)
    output = run(two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", expect=1)
    assert f"needs {package}" in output and "vidformers[train]" in output


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
    assert "too few of tall (0)" in run(*arguments[:-2], "--skip-unreadable", "--out", tmp_path / "other", expect=1)


def test_a_directory_that_is_there_is_kept(two_classes, tiny_vjepa2, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    assert "exists already" in run(two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", expect=1)
    assert (tmp_path / "out/mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "table",
    ["path,label\n{},tall\n{},flat\n", "label\tpath\ntall\t{}\nflat\t{}\n", "{} 10\n{} 9\n"],
    ids=["comma", "tab, other order", "list of the originals"],
)
def test_tables(tmp_path, table):
    (tmp_path / "list.csv").write_text(table.format("a b.mp4", "c.mp4"))
    clips, classes = find_clips(tmp_path / "list.csv")
    assert classes == (["9", "10"] if "10" in table else ["flat", "tall"])
    assert clips == [
        Clip(str(tmp_path / name), label, tmp_path / name) for name, label in (("a b.mp4", 1), ("c.mp4", 0))
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "got no line"), ("path,label\n", "got no line"), ("a.mp4,1\nb.mp4\n", "got the line 'b.mp4'")],
)
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_clips(tmp_path / "list.csv")
    with pytest.raises(ValueError, match="there is no such file"):
        find_clips(tmp_path / "absent.csv")


def test_a_data_set(two_classes, monkeypatch):
    """Its rows are read when a clip is opened, with their bytes."""
    files = sorted(two_classes.rglob("*.mp4"))
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(files))
    clips, classes = find_clips("someone/clips:validation")
    assert classes == ["flat", "tall"] and [clip.label for clip in clips] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert clips[5].open() == files[5].read_bytes() and clips[5].name == "someone/clips:validation[5]"


def test_without_datasets(monkeypatch):
    monkeypatch.setattr(labeled_clips, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="there is no such folder or file.*pip install datasets"):
        find_clips("someone/clips")


def test_clips_to_measure_with(two_classes, tiny_vjepa2, tmp_path):
    (tmp_path / "measured").mkdir()
    for name in ("flat", "tall"):
        shutil.copytree(two_classes / name, tmp_path / "measured" / name)
    task = finetune.prepare(two_classes, tiny_vjepa2, validation=tmp_path / "measured", num_frames=4)
    assert len(task.training) == len(task.validation) == 8
    (tmp_path / "measured/tall").rename(tmp_path / "measured/wide")
    with pytest.raises(ValueError, match="classes wide"):
        finetune.prepare(two_classes, tiny_vjepa2, validation=tmp_path / "measured", num_frames=4)


def test_loading_is_told_in_one_line_and_the_mean_is_pooled(tmp_path):
    """A directory of a pre-trained VideoMAE says that the first token is pooled, which no training has touched."""
    config = vidformers.VideoMAEConfig(**VIDEOMAE, use_mean_pooling=False)
    vidformers.VideoMAEForPreTraining(config).save_pretrained(tmp_path / "model")
    model, loading = finetune.load_classifier(tmp_path / "model", ["a", "b", "c"])
    assert model.config.use_mean_pooling and model.config.num_labels == 3
    assert loading.startswith("New: classifier (2 tensors), fc_norm (2 tensors). Left out: decoder (")
    model.config.use_mean_pooling = False
    vidformers.VideoMAEForVideoClassification(model.config).save_pretrained(tmp_path / "classifier")
    model, loading = finetune.load_classifier(tmp_path / "classifier", ["a", "b", "c"])
    assert not model.config.use_mean_pooling and loading == "New: nothing. Left out: nothing."


@pytest.mark.parametrize(("options", "changed"), [({"freeze": True}, "head"), ({"lora": 2}, "attention"), ({}, "all")])
def test_what_is_trained(two_classes, tiny_vjepa2, tmp_path, options, changed):
    task = finetune.prepare(two_classes, tiny_vjepa2, num_frames=4)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    settings = finetune.Settings(epochs=1, batch_size=2, learning_rate=0.05, **options)
    finetune.train(task, tmp_path / "out", settings, workers=0)
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    differing = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    encoder = {name for name in differing if name.startswith("vjepa2.encoder")}
    assert "classifier.weight" in differing and before.keys() == model.state_dict().keys()
    assert bool(encoder) == (changed != "head")
    assert any("norm" in name for name in encoder) == (changed == "all")


def test_a_stopped_training_goes_on(two_classes, tiny_vjepa2, tmp_path, monkeypatch):
    """As one that was not stopped, and only for the same task."""
    settings = finetune.Settings(epochs=3, learning_rate=1e-3)

    def task(seed: int = 0) -> finetune.Task:
        return finetune.prepare(two_classes, tiny_vjepa2, num_frames=4, seed=seed)

    whole = finetune.train(task(), tmp_path / "whole", settings, workers=0)

    def stop(epoch):
        if epoch["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune.train(task(), tmp_path / "out", settings, workers=0, on_epoch=stop)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="Pass --resume to go on"):
        finetune.train(task(), tmp_path / "out", settings, workers=0)
    with pytest.raises(ValueError, match="of another task: epochs was 3, now 4"):
        finetune.train(task(), tmp_path / "out", replace(settings, epochs=4), resume=True, workers=0)
    resumed = finetune.train(task(), tmp_path / "out", settings, resume=True, workers=0)
    assert resumed.confusion == whole.confusion
    for mine, theirs in zip(resumed.epochs, whole.epochs, strict=True):
        assert mine == pytest.approx(theirs)
    weights = [
        AutoModelForVideoClassification.from_pretrained(tmp_path / name).state_dict() for name in ("out", "whole")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])
    assert not (tmp_path / "out.training").exists()
    with pytest.raises(ValueError, match="nothing to resume"):
        finetune.train(task(), tmp_path / "new", settings, resume=True, workers=0)


def test_the_card(two_classes, tiny_vjepa2, tmp_path):
    output = run(two_classes, "--model", tiny_vjepa2, "--out", tmp_path / "out", "--num-frames", 4, "--epochs", 2)
    assert "epoch 2: loss" in output and "New: classifier (2 tensors), pooler (" in output
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert ModelCard(card).data.pipeline_tag == "video-classification"
    assert "![Accuracy and loss after each epoch](accuracy.png)" in card and card.count("\n| 2 | ") == 1
    for name in ("accuracy.png", "confusion.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert (
                min(picture.size) > 300 and len(set(picture.convert("RGB").resize((64, 64)).get_flattened_data())) > 10
            )
    record = json.loads((tmp_path / "out/training.json").read_text())
    assert sum(map(sum, record["confusion"])) == 2 and len(record["epochs"]) == 2


def test_split():
    clips = [Clip(f"{label}/{index}", label, None) for label, count in ((0, 2), (1, 20)) for index in range(count)]
    training, validation = split(clips, 0.2, seed=0)
    assert sorted(clip.label for clip in validation) == [0, 1, 1, 1, 1] and len(training) == 17
    assert set(training) | set(validation) == set(clips)
    assert split(clips, 0.2, seed=0)[1] == validation != split(clips, 0.2, seed=1)[1]
    training, _ = split(clips, 0.99, seed=0)
    assert sorted(clip.label for clip in training) == [0, 1]
