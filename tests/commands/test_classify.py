"""`vidformers classify` and the toy model that ships with the package, on clips of moving shapes."""

import json
import re
import shutil
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from setuptools import Distribution
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from tests.video_files import write_video
from vidformers import (
    VideoPrismClipModel,
    VideoPrismProcessor,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2VideoProcessor,
    decode_video,
)
from vidformers.commands.classify import TOY_MODEL, Classifier, gather_labels
from vidformers.commands.cli import app
from vidformers.video import uniform_indices


ROOT = Path(__file__).parents[2]
FILES = {
    "shapes_clip": "config.json model.safetensors processor_config.json tokenizer.json tokenizer_config.json",
    "shapes_mae": "config.json model.safetensors video_preprocessor_config.json",
    "shapes_world": "config.json model.safetensors video_preprocessor_config.json",
}


@pytest.fixture(scope="module")
def clips(shapes, tmp_path_factory) -> dict:
    """An mp4 of every held-out scene."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(7)
    return {
        scene: shapes.write_clip(folder / f"{scene.caption()}.mp4", shapes.render(scene, rng, 40, 160))
        for scene in shapes.HELD_OUT
    }


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier()


def run(*arguments, expect: int = 0) -> str:
    result = CliRunner().invoke(app, ["classify", *map(str, arguments)])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def shares(output: str) -> dict[str, float]:
    return {
        label.strip(): float(share) for label, share in re.findall(r"^ *([a-z ]+?) +[━╸╺ ]+ +([\d.]+)%", output, re.M)
    }


@pytest.mark.xdist_group("shapes")
def test_held_out_scenes_from_files(shapes, clips, classifier):
    """The whole way, from files of another size and rate than the training's, among all 144 captions."""
    captions = [scene.caption() for scene in shapes.SCENES]
    found = {scene: next(iter(classifier.classify(clip, captions))) for scene, clip in clips.items()}
    right = [scene.caption() == caption for scene, caption in found.items()]
    assert np.mean(right) >= 0.85, {scene: caption for scene, caption in found.items() if scene.caption() != caption}


@pytest.mark.xdist_group("shapes")
@pytest.mark.parametrize("attribute", ["color", "shape", "motion"])
def test_labels_of_one_word(shapes, clips, classifier, attribute):
    values = {"color": shapes.COLORS, "shape": shapes.SHAPES, "motion": shapes.MOTIONS}[attribute]
    right = [
        next(iter(classifier.classify(clip, [f"it {value}" if attribute == "motion" else value for value in values])))
        == ("it " * (attribute == "motion") + getattr(scene, attribute))
        for scene, clip in clips.items()
    ]
    assert np.mean(right) >= 0.85


def test_command(shapes, clips):
    scene, clip = next(iter(clips.items()))
    others = [other.caption() for other in shapes.SCENES[40:43]]
    output = run(clip, "--labels", ", ".join([*others, scene.caption()]))
    assert "toy model" in output and "moving shapes" in output
    found = shares(output)
    assert next(iter(found)) == scene.caption() and set(found) == {scene.caption(), *others}
    assert sum(found.values()) == pytest.approx(100, abs=0.3) and list(found.values()) == sorted(found.values())[::-1]


def test_a_directory_and_a_number_of_frames(clips):
    scene, clip = next(iter(clips.items()))
    output = run(
        clip, "--labels", f"{scene.caption()},a white cross grows", "--model", TOY_MODEL, "--num-frames", "12"
    )
    assert "toy" not in output and next(iter(shares(output))) == scene.caption()


def test_scores_are_the_models(clips, classifier):
    scene, clip = next(iter(clips.items()))
    labels = ["a green cross grows", scene.caption(), "something white"]
    processor, model = AutoProcessor.from_pretrained(TOY_MODEL), AutoModel.from_pretrained(TOY_MODEL)
    inputs = processor(videos=str(clip), text=labels, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    expected = (model.logit_scale.exp() * output.video_embeds @ output.text_embeds.T).softmax(1)[0]
    found = classifier.classify(clip, labels)
    assert [found[label] for label in labels] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (" , ", "two or more labels"),
        ("red", "two or more"),
        ("a,b,a", "more than once: a"),
    ],
)
def test_labels_that_are_none(clips, labels, message):
    clip = next(iter(clips.values()))
    assert message in run(clip, "--labels", labels, expect=1)
    with pytest.raises(ValueError, match=message):
        gather_labels(text=labels)
    assert "Give labels in words" in run(clip, expect=1)


def test_bad_videos_and_models(tmp_path):
    assert "absent.mp4" in run(tmp_path / "absent.mp4", "--labels", "a,b", expect=1)
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in run(tmp_path / "text.mp4", "--labels", "a,b", expect=1)
    video = write_video(tmp_path / "video.mp4")
    VJEPA2Config().save_pretrained(tmp_path / "vjepa2")
    assert "neither has a text tower" in run(video, "--labels", "a,b", "--model", tmp_path / "vjepa2", expect=1)
    assert "absent" in run(video, "--labels", "a,b", "--model", tmp_path / "absent", expect=1)


def test_many_videos_and_labels_from_everywhere(shapes, clips, tmp_path):
    """A label may hold a comma; a video that cannot be read costs its own scores only."""
    (scene, clip), (other, second) = list(clips.items())[:2]
    shutil.copytree(
        clip.parent, tmp_path / "clips", ignore=lambda folder, names: set(names) - {clip.name, second.name}
    )
    (tmp_path / "clips/broken.mp4").write_text("no video")
    (tmp_path / "labels.txt").write_text(f"{other.caption()}\nsomething white\n")
    options = ("--label", "red, green or blue", "--labels", scene.caption(), "--labels-file", tmp_path / "labels.txt")
    output = run(tmp_path / "clips", *options, "--top", 2, "--json", expect=1)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {line["video"]: next(iter(line["labels"])) for line in lines} == {
        clip.name: scene.caption(),
        second.name: other.caption(),
    }
    assert all(len(line["labels"]) == 2 for line in lines) and "broken.mp4" in output
    assert gather_labels(["red, green or blue"], "a,b") == ["red, green or blue", "a", "b"]


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fine_tuned")
    torch.manual_seed(0)
    labels = {"id2label": {0: "waves", 1: "jumps", 2: "sits"}, "label2id": {"waves": 0, "jumps": 1, "sits": 2}}
    config = VJEPA2Config(
        crop_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, frames_per_clip=4, **labels
    )
    VJEPA2ForVideoClassification(config).save_pretrained(folder)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder)
    return folder


def test_a_classifier_has_labels_of_its_own(clips, fine_tuned):
    clip = next(iter(clips.values()))
    found = {}
    for line in run(clip, "--model", fine_tuned, "--json").splitlines():
        found |= json.loads(line)["labels"]
    frames = decode_video(clip, partial(uniform_indices, num_frames=4))[0]
    pixels = VJEPA2VideoProcessor(crop_size=32)(frames, return_tensors="pt")
    with torch.no_grad():
        logits = VJEPA2ForVideoClassification.from_pretrained(fine_tuned).eval()(**pixels).logits[0]
    expected = dict(zip(("waves", "jumps", "sits"), logits.softmax(0).tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5) and sum(found.values()) == pytest.approx(1)
    assert "takes no others" in run(clip, "--model", fine_tuned, "--labels", "a,b", expect=1)


def test_windows_over_time(shapes, tmp_path):
    """Two scenes one after the other are told apart by their windows, in numbers and in a picture."""
    rng, scenes = np.random.default_rng(0), [shapes.SCENES[3], shapes.SCENES[90]]
    frames = np.concatenate([shapes.render(scene, rng, 24, 64) for scene in scenes])
    video = shapes.write_clip(tmp_path / "two.mp4", frames, 12)
    labels = [scene.caption() for scene in scenes]
    options = ("--label", labels[0], "--label", labels[1], "--window", "2s", "--plot", tmp_path / "scores.png")
    lines = [json.loads(line) for line in run(video, *options, "--json").splitlines()]
    assert [(line["start_seconds"], line["end_seconds"]) for line in lines] == [(0, 2), (2, 4)]
    assert [next(iter(line["labels"])) for line in lines] == labels
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.width > 900
    assert "0.00 to 2.00 s" in run(video, *options[:-2])
    assert "give the length of windows" in run(video, *options[:4], *options[6:], expect=1)


def test_a_still_image_is_said_to_be_one(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    output = run(tmp_path / "red.png", "--labels", "something red,something green")
    assert "red.png is a still image" in output and next(iter(shares(output))) == "something red"


def test_input_is_looked_at_before_models_are_loaded(clips, tmp_path, monkeypatch):
    def load(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("vidformers.inference.directory.Directory.load_model", load)
    clip, labels = next(iter(clips.values())), ("--labels", "a,b")
    assert "There is no such file" in run(clip, tmp_path / "absent.mp4", *labels, expect=1)
    assert "no device 'cuda:7' here; this machine has cpu" in run(clip, *labels, "--device", "cuda:7", expect=1)
    assert "more than once" in run(clip, "--labels", "a,a", expect=1)
    wrong = TOY_MODEL.with_name("shapes_clop")
    assert f"Did you mean {TOY_MODEL}?" in " ".join(run(clip, *labels, "--model", wrong, expect=1).split())
    assert "no such repository on the Hub" in run(clip, *labels, "--model", "nobody/nothing", expect=1)
    assert "is a file" in run(clip, *labels, "--model", clip, expect=1)


def test_the_demo_models_are_package_data():
    folder = resources.files("vidformers") / "demo_models"
    shipped = {
        f"{model.name}/{file.name}": len(file.read_bytes()) for model in folder.iterdir() for file in model.iterdir()
    }
    assert set(shipped) == {
        f"{model}/{name}" for model, names in FILES.items() for name in [*names.split(), "training.json"]
    }
    for model, limit in (("shapes_clip", 3e6), ("shapes_mae", 2e6), ("shapes_world", 3e6)):
        assert sum(size for name, size in shipped.items() if name.startswith(model)) <= limit
    distribution = Distribution({"packages": ["vidformers"], "package_dir": {"vidformers": str(ROOT / "src")}})
    distribution.package_data = {"vidformers": package_data_patterns()}
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {name for _, _, _, names in build.data_files for name in names}
    assert packed == {"py.typed", *(f"demo_models/{name}" for name in shipped)}


def package_data_patterns() -> list[str]:
    return re.findall(r'"(demo_models/[^"]+)"', (ROOT / "setup.py").read_text())


def test_the_toy_model_is_what_its_record_says(shapes):
    record = json.loads((TOY_MODEL / "training.json").read_text())
    assert record["held_out_accuracy"] >= 0.9 and record["held_out_clips"] >= 240
    assert record["captions"] == len(shapes.SCENES) == 144 and len(shapes.HELD_OUT) == 24
    losses = [point["loss"] for point in record["curve"]]
    assert losses[-1] < losses[0] / 3 and record["curve"][-1]["step"] == record["settings"]["steps"]
    assert type(AutoModel.from_pretrained(TOY_MODEL)) is VideoPrismClipModel
    assert type(AutoProcessor.from_pretrained(TOY_MODEL)) is VideoPrismProcessor
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"{100 * record['held_out_accuracy']:.1f} %" in readme and f"{record['held_out_clips']} clips" in readme
