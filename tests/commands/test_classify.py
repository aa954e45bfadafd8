"""`vidformers classify` and the toy model that ships with the package, on clips of moving shapes."""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from setuptools import Distribution
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from tests.video_files import write_video
from vidformers import VideoPrismClipModel, VideoPrismProcessor, VJEPA2Config
from vidformers.commands.classify import TOY_MODEL, Classifier, read_label_list
from vidformers.commands.cli import app


ROOT = Path(__file__).parents[2]
FILES = {
    "shapes_clip": "config.json model.safetensors processor_config.json tokenizer.json tokenizer_config.json",
    "shapes_mae": "config.json model.safetensors video_preprocessor_config.json",
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


def test_held_out_scenes_from_files(shapes, clips, classifier):
    """The whole way, from files of another size and rate than the training's, among all 144 captions."""
    captions = [scene.caption() for scene in shapes.SCENES]
    found = {scene: next(iter(classifier.classify(clip, captions))) for scene, clip in clips.items()}
    right = [scene.caption() == caption for scene, caption in found.items()]
    assert np.mean(right) >= 0.85, {scene: caption for scene, caption in found.items() if scene.caption() != caption}


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
        ("", "two or more labels"),
        (" , ", "two or more labels"),
        ("red", "two or more"),
        ("a,b,a", "more than once: a"),
    ],
)
def test_labels_that_are_none(clips, labels, message):
    clip = next(iter(clips.values()))
    assert message in run(clip, "--labels", labels, expect=1)
    with pytest.raises(ValueError, match=message):
        read_label_list(labels)
    assert "two or more" in run(clip, expect=1)


def test_bad_videos_and_models(tmp_path):
    assert "absent.mp4" in run(tmp_path / "absent.mp4", "--labels", "a,b", expect=1)
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in run(tmp_path / "text.mp4", "--labels", "a,b", expect=1)
    video = write_video(tmp_path / "video.mp4")
    VJEPA2Config().save_pretrained(tmp_path / "vjepa2")
    assert "no text tower" in run(video, "--labels", "a,b", "--model", tmp_path / "vjepa2", expect=1)
    assert "absent" in run(video, "--labels", "a,b", "--model", tmp_path / "absent", expect=1)


def test_the_demo_models_are_package_data():
    folder = resources.files("vidformers") / "demo_models"
    shipped = {
        f"{model.name}/{file.name}": len(file.read_bytes()) for model in folder.iterdir() for file in model.iterdir()
    }
    assert set(shipped) == {
        f"{model}/{name}" for model, names in FILES.items() for name in [*names.split(), "training.json"]
    }
    for model, limit in (("shapes_clip", 3e6), ("shapes_mae", 2e6)):
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
    assert f"{100 * record['held_out_accuracy']:.1f} % of {record['held_out_clips']} clips" in readme
