"""The package `datasets` itself: what the commands make of videos in its data sets, saved in every way that it has."""

import json
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Video
from PIL import Image
from transformers import AutoModelForPreTraining, AutoModelForVideoClassification
from typer.testing import CliRunner

from tests.inference.directories import directory_of
from tests.video_files import write_video
from vidformers import VideoEmbedder
from vidformers.commands.cli import app
from vidformers.commands.pretrain import recipes
from vidformers.inference.labeled_clips import find_clips, find_unlabeled
from vidformers.inference.media import IMAGES
from vidformers.models.records import ImageRecipe
from vidformers.training import ImageReader


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

CLASSES = ["flat", "tall"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, four clips of each of two classes in the folder `clips`, and data sets of these."""
    folder = tmp_path_factory.mktemp("data_sets")
    directory_of("VJEPA2Model", folder / "model")
    for name, height in zip(CLASSES, (32, 64), strict=True):
        (folder / "clips" / name).mkdir(parents=True)
        for number in range(4):
            write_video(folder / f"clips/{name}/{number}.mp4", num_frames=8, height=height, width=48)
    files = sorted((folder / "clips").rglob("*.mp4"))
    labels, paths = [CLASSES.index(file.parent.name) for file in files], list(map(str, files))
    rows = Dataset.from_dict({"clip": paths, "label": labels}).cast_column("label", ClassLabel(names=CLASSES))
    rows.cast_column("clip", Video()).save_to_disk(folder / "videos")  # with what is in the files
    plain = Dataset.from_dict({"path": paths, "label": [CLASSES[label] for label in labels]})
    plain.save_to_disk(folder / "paths")
    DatasetDict(train=plain, test=plain.select([0])).save_to_disk(folder / "splits")
    return folder


def run(command: str, *arguments) -> str:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize("saved", ["videos", "paths", "splits"])
def test_clips_are_those_of_the_folder(saved, folder):
    """With the same classes, and those without labels, too."""
    expected, classes = find_clips(folder / "clips")
    clips, found = find_clips(folder / saved)
    assert found == classes == CLASSES and [clip.label for clip in clips] == [clip.label for clip in expected]
    for each in (clips, find_unlabeled(folder / saved)):
        contents = [clip.open() if saved == "videos" else Path(clip.open()).read_bytes() for clip in each]
        assert contents == [clip.source.read_bytes() for clip in expected]


def test_images_are_read_undecoded(tmp_path):
    """From paths or from bytes, as `vidformers pretrain --images` takes them."""
    colors = ("red", "green")
    for color in colors:
        Image.new("RGB", (48, 32), color).save(tmp_path / f"{color}.png")
    files = [tmp_path / f"{color}.png" for color in colors]
    rows = Dataset.from_dict({"picture": list(map(str, files)), "label": [0, 1]})
    rows.cast_column("picture", datasets.Image()).save_to_disk(tmp_path / "paths")
    contents = [{"path": None, "bytes": file.read_bytes()} for file in files]
    features = datasets.Features({"picture": datasets.Image()})
    Dataset.from_dict({"picture": contents}, features=features).save_to_disk(tmp_path / "bytes")
    reader = ImageReader(recipes()["vjepa2.1-vitl-cooldown"][1], ImageRecipe(0.5, 1, 16, ()))
    for saved in ("paths", "bytes"):
        images = find_unlabeled(tmp_path / saved, IMAGES)
        strongest = [reader(image)[0, :, 8, 8].argmax().item() for image in images]
        assert strongest == [0, 1]


@pytest.mark.parametrize("command", ["finetune", "probe"])
def test_a_classifier_learns(command, folder, tmp_path):
    options = ["--model", folder / "model", "--out", tmp_path / "out", "--epochs", 1, "--num-frames", 4]
    output = run(command, folder / "videos", *options, "--workers", 1, "--batch-size", 2)
    assert "2 classes" in output
    assert AutoModelForVideoClassification.from_pretrained(tmp_path / "out").config.label2id == {"flat": 0, "tall": 1}


def test_a_model_learns_without_labels(folder, tmp_path):
    options = ["--model", folder / "model", "--out", tmp_path / "out", "--steps", 1, "--batch-size", 2, "--json"]
    clips = ["--set", "num_frames=4", "--set", "frame_step=1", "--workers", 1]
    output = run("pretrain", folder / "videos", *options, *clips)
    (record,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert record["step"] == 1 and record["unusable"] == 0
    AutoModelForPreTraining.from_pretrained(tmp_path / "out")


def test_rows_are_embedded_as_the_files(folder, tmp_path):
    """From paths and from bytes, and the command from their folder."""
    run("embed", folder / "clips", "--model", folder / "model", "--out", tmp_path / "out.parquet", "--num-frames", 4)
    expected = Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=tmp_path)["embedding"][:]
    embedder = VideoEmbedder.from_pretrained(folder / "model", device="cpu", num_frames=4)
    rows = datasets.load_from_disk(folder / "videos").cast_column("clip", Video(decode=False))
    for given in ([row["clip"]["bytes"] for row in rows], datasets.load_from_disk(folder / "paths")["path"][:]):
        for one, other in zip(embedder.encode(given).tolist(), expected, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
