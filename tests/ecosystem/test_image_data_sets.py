"""The package `datasets` itself: `vidformers probe` on images in its data sets."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow
from typer.testing import CliRunner

from tests.inference.directories import directory_of
from vidformers.commands.cli import app
from vidformers.inference.labeled_clips import find_clips, medium_of
from vidformers.inference.media import IMAGES


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]


@pytest.mark.parametrize("saved", ["bytes", "paths", "splits"])
def test_images_of_a_data_set(saved, tmp_path):
    """They are the files' own, and a probe learns from them."""
    directory_of("PeCoreModel", tmp_path / "model")
    files, labels = [tmp_path / f"{number}.png" for number in range(8)], [number % 2 for number in range(8)]
    for file, label in zip(files, labels, strict=True):
        Pillow.fromarray(np.full((20, 30, 3), 40 + 170 * label, np.uint8)).save(file)
    features = Features({"image": Image(), "label": ClassLabel(names=["dark", "light"])})
    images = [{"path": None, "bytes": file.read_bytes()} if saved == "bytes" else str(file) for file in files]
    rows = Dataset.from_dict({"image": images, "label": labels}, features=features)
    (DatasetDict(train=rows, test=rows.select([0])) if saved == "splits" else rows).save_to_disk(tmp_path / "rows")
    assert medium_of(tmp_path / "rows") is IMAGES
    clips, classes = find_clips(tmp_path / "rows", IMAGES)
    assert classes == ["dark", "light"] and [clip.label for clip in clips] == labels
    for clip, file in zip(clips, files, strict=True):
        assert np.array_equal(clip.read(), np.asarray(Pillow.open(file)))
    options = "--epochs", "1", "--workers", "1", "--out", str(tmp_path / "out")
    result = CliRunner().invoke(app, ["probe", str(tmp_path / "rows"), "--model", str(tmp_path / "model"), *options])
    assert result.exit_code == 0, result.output + repr(result.exception)
    record = json.loads((tmp_path / "out/training.json").read_text("utf-8"))
    assert record["images"] and record["num_frames"] == 1 and record["training_clips"] == 4
