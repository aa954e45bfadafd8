"""`vidformers probe` on images: still clips of any family, prepared and varied as V-JEPA 2's authors do."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from transformers import AutoModelForVideoClassification
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tests.commands.probes import prepared, run, settings, trained
from tests.inference.directories import directory_of
from vidformers import VideoDecodeError, VideoPrismVideoProcessor, VJEPA2VideoProcessor
from vidformers.commands import probe
from vidformers.commands.probe_task import kind_of
from vidformers.inference.labeled_clips import find_clips, medium_of
from vidformers.inference.media import IMAGES, VIDEOS, ImageClip
from vidformers.inference.probe_clips import PreparedClips, StillClips, renormalized
from vidformers.video.image_augment import CHANGES, POLICY, VJEPA2ImageAugmentation, VJEPA2ImageView, auto_augment


pytestmark = pytest.mark.usefixtures("no_drawings")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colors that differ from place to place, without edges: uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Six images of each of two classes, dark and light, of several sizes and kinds."""
    folder = tmp_path_factory.mktemp("images")
    for name, level in (("dark", 40), ("light", 220)):
        (folder / name).mkdir()
        for index in range(6):
            image = Image.fromarray((noise(40 + index, 50, index) // 16 + level - 8).astype(np.uint8))
            suffix, mode = (("png", "RGB"), ("jpg", "RGB"), ("png", "L"), ("webp", "RGB"))[index % 4]
            image.convert(mode).save(folder / name / f"{index}.{suffix}")
    return folder


def still(image: Image.Image, folder: Path, **options: Any) -> ImageClip:
    image.save(folder / "0.png", **options)
    return ImageClip("0.png", 0, folder / "0.png")


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("name", "frames"), [("VJEPA2Model", 4), ("VideoMAEModel", None), ("PeCoreModel", None), ("PeVideoModel", None)]
)
def test_classes_of_images_are_learned(images, tmp_path, name, frames):
    """By any family; a model of images sees an image once."""
    directory_of(name, tmp_path / "model")
    given = settings(epochs=6, rates=(1e-2,))
    task = probe.prepare(images, tmp_path / "model", given, num_frames=frames)
    usual = task.model.frames_per_clip
    assert task.num_frames == (frames or min(usual or 1, 16)) and [len(each) for each in task.parts.values()] == [
        8,
        2,
        2,
    ]
    measures = trained(task, tmp_path / "out")
    assert measures.epochs[-1]["losses"] < measures.epochs[0]["losses"]
    text = (tmp_path / "out/README.md").read_text("utf-8")
    assert "8 images of" in text and f"takes {task.num_frames} frames\nthat all show the image" in text
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").eval()
    data = PreparedClips(task.parts["test"], task.prepare_of("test"))
    with torch.no_grad():
        logits = torch.cat([model(inputs["pixel_values_videos"][None]).logits for _, inputs in data])
    right = sum(clip.label == each.argmax() for clip, each in zip(task.parts["test"], logits, strict=True))
    assert measures.test["accuracy"] == right / 2


def test_folders_of_parts(images, tiny, tmp_path):
    """As ImageNet has them: `val` chooses, and a share of `train` tests; clips of `test` do, if there are any."""
    for name in ("train", "val"):
        shutil.copytree(images, tmp_path / name)
    for options, counts in (
        ({}, [10, 12, 2]),
        ({"test_share": 0}, [12, 12, 0]),
        ({"validation": images}, [10, 12, 2]),
    ):
        parts = prepared(tmp_path, tiny, **options).parts
        assert [len(each) for each in parts.values()] == counts
        chosen = {Path(clip.source).parents[1] for clip in parts["validation"]}
        assert chosen == {options.get("validation", tmp_path / "val")}
    shutil.copytree(images, tmp_path / "test")
    assert [len(each) for each in prepared(tmp_path, tiny).parts.values()] == [12, 12, 12]
    assert not prepared(tmp_path, tiny, test_share=0).parts["test"]
    (tmp_path / "more").mkdir()
    shutil.copytree(images / "dark", tmp_path / "more/dark")  # Now they are classes.
    assert prepared(tmp_path, tiny).classes == ("more", "test", "train", "val")


def test_as_the_original(images, tiny, tmp_path):
    """Every head warms up, training clips are drawn, and validation is complete."""
    given = probe.Settings.original(kind_of(images))
    assert len(given.heads) == 20 and given.views == 1 and given.frame_step is None
    head = {"ref_lr": 5e-4, "start_lr": 2e-4, "final_lr": 0.0, "warmup": 5.0, "ref_wd": 5e-4, "final_wd": 5e-4}
    assert given.heads[0] == head
    out = tmp_path / "out"
    output = run(
        images, "--model", tiny, "--out", out, "--as-original", "--layers", 0, "--rate", 1e-3, "--decay", 1e-3
    )
    assert "clips 10 to train on, 2 to choose by, 0 to test with; 1 heads" in output
    record = json.loads((out / "training.json").read_text())
    assert (record["settings"]["warmup"], record["settings"]["start_rate"]) == (5.0, 2e-4)
    assert sum(map(sum, record["confusion"])) == 2  # They fill no batch of 3.
    assert len(list((tmp_path / "out.features").glob("*.safetensors"))) == 2
    assert "all of them. The numbers are of those same clips" in (out / "README.md").read_text("utf-8")


@pytest.mark.parametrize("change", [{"segments": 2}, {"views": 3}, {"frame_step": 1}])
def test_settings_that_are_of_videos(images, tiny, change):
    with pytest.raises(ValueError, match="Images are seen whole and still"):
        prepared(images, tiny, settings(**change))


def test_images_that_are_none(images, tiny, tmp_path):
    """One that cannot be opened, and one that ends too early."""
    folder = shutil.copytree(images, tmp_path / "images")
    (folder / "dark/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 12 clips cannot be used.*\n.*dark/0.png: it is no image"):
        prepared(folder, tiny, settings(max_unreadable=0))
    task = prepared(folder, tiny, settings(max_unreadable=0.2))
    cut = task.parts["training"][0].source
    cut.write_bytes(cut.read_bytes()[:-40])
    measures = trained(task, tmp_path / "out")
    assert len(task.unreadable) == 1 and len(measures.left_out) == 1 and str(cut) in measures.left_out[0]
    assert "2 could not be used" in (tmp_path / "out/README.md").read_text("utf-8")
    for file in (folder / "dark").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"at least 3 images of every class.*dark \(0\).*searched for .bmp"):
        prepared(folder, tiny)


# ------------------------------------------------------------------------------------------------------------- sources


def test_what_a_source_holds(images, tmp_path):
    assert kind_of(images) == "images" and medium_of(images / "dark") is IMAGES
    (tmp_path / "a").mkdir()
    assert medium_of(tmp_path) is VIDEOS
    shutil.copy(images / "dark/0.png", tmp_path / "a/preview.png")
    assert medium_of(tmp_path) is IMAGES
    (tmp_path / "a/film.MP4").touch()
    assert medium_of(tmp_path) is VIDEOS


@pytest.mark.parametrize("text", ["image,label\n{0},dark\n{1},light\n", "{0} 0\n{1} 1\n"], ids=["heading", "original"])
def test_a_table(images, text):
    """With paths relative to its own folder."""
    table = images / "list.csv"
    table.write_text(text.format("dark/0.png", "light/1.jpg"))
    clips, classes = find_clips(table, medium_of(table))
    table.unlink()
    assert [clip.source for clip in clips] == [images / "dark/0.png", images / "light/1.jpg"]
    assert all(isinstance(clip, ImageClip) for clip in clips) and len(classes) == 2


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (33, 33), (300, 200), (43, 57)])
def test_the_view_of_the_original(tmp_path, size):
    """Pillow resizes the shorter side to 256/224 of the crop in the middle. The processor's bytes differ by one.

    But where as many pixels can't be left out on both sides, it may take another middle.
    """
    image = Image.fromarray(noise(*size))
    short, (width, height) = int(32 * 256 / 224), image.size
    wide = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    left, top = (int(round((side - 32) / 2.0)) for side in wide)
    expected = np.array(image.resize(wide, Image.Resampling.BILINEAR).crop((left, top, left + 32, top + 32)))
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    for as_original, most in ((True, 1e-4), (False, 1.0001))[: 1 if sum(wide) % 2 else 2]:
        views = StillClips(VJEPA2VideoProcessor(crop_size=32), 4, as_original)
        pixels = views(still(image, tmp_path))["pixel_values_videos"]
        assert pixels.shape == (1, 1, 4, 3, 32, 32) and pixels[0, 0].eq(pixels[0, 0, 0]).all()
        found = ((pixels[0, 0, 0] * std + mean) * 255).permute(1, 2, 0)
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=most)


def test_images_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    clip = still(Image.fromarray(noise(20, 30)), tmp_path, exif=exif)
    assert np.array_equal(clip.read(), np.rot90(noise(20, 30), -1))


def test_a_image_too_large(tmp_path, monkeypatch):
    clip = still(Image.fromarray(noise(20, 30)), tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(VideoDecodeError, match="exceeds limit"):
        clip.check()


def test_augmented_images(tmp_path):
    """They are still, drawn by the global generators, and normalized as the processor does."""
    clip = still(Image.fromarray(noise(60, 80)), tmp_path)
    views = StillClips(VJEPA2VideoProcessor(crop_size=32), 3, augment=True)
    data = PreparedClips([clip] * 6, views)
    drawn = [inputs["pixel_values_videos"] for _, inputs in (data[index] for index in (0, *range(6)))]
    assert drawn[0].shape == (1, 1, 3, 3, 32, 32) and torch.equal(drawn[0][0, 0, 0], drawn[0][0, 0, 2])
    assert torch.equal(drawn[0], drawn[1]) and not any(torch.equal(drawn[1], each) for each in drawn[2:])
    other = StillClips(VideoPrismVideoProcessor(size=32), 3, augment=True)
    pixels = PreparedClips([clip], other)[0][1]["pixel_values_videos"]
    torch.testing.assert_close(pixels, renormalized(drawn[0], other.processor))


def test_numbers_are_drawn_as_in_the_original():
    """What Python and PyTorch draw next, as after timm 1.0.31's `create_transform` with the original's arguments."""
    following = [
        (0.358049, 0.768222),
        (0.788723, 0.279311),
        (0.860244, 0.724771),
        (0.469232, 0.105569),
        (0.289376, 0.559092),
        (0.113206, 0.126111),
        (0.734836, 0.553876),
        (0.214698, 0.198803),
    ]
    for seed, expected in enumerate(following):
        random.seed(seed)
        torch.manual_seed(seed)
        VJEPA2ImageAugmentation(32)(noise(40, 60)[None])
        assert (random.random(), torch.rand(1).item()) == pytest.approx(expected, abs=1e-6)


def test_the_policy():
    """25 pairs, of which five stand there twice; probabilities and strengths are tenths."""
    assert len(POLICY) == 25 and len({tuple(pair) for pair in POLICY}) == 20
    changes = [change for pair in POLICY for change in pair]
    assert len(changes) == 50 and {name for name, _, _ in changes} == set(CHANGES)
    assert sum(probability for _, probability, _ in changes) == pytest.approx(31)
    assert sum(strength for _, _, strength in changes) == pytest.approx(28.7)


def test_every_change():
    image = Image.fromarray(noise(20, 30) // 2 + 60)
    for name, make in CHANGES.items():
        random.seed(0)
        changed = make(0.4)(image)
        assert changed.size == image.size and changed.mode == "RGB" and changed.tobytes() != image.tobytes(), name
    for name, expected in (
        ("color", ImageEnhance.Color(image).enhance(0.82)),
        ("contrast", ImageEnhance.Contrast(image).enhance(0.82)),
        ("sharpness", ImageEnhance.Sharpness(image).enhance(0.82)),
        ("posterize", ImageOps.posterize(image, 5)),
        ("solarize", ImageOps.solarize(image, 102)),
        ("rotate", image.rotate(-12, Image.Resampling.BICUBIC, fillcolor=(124, 116, 104))),
    ):
        random.seed(0)  # The sign is a minus then.
        assert CHANGES[name](0.4)(image).tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("kind", [VJEPA2ImageAugmentation, VJEPA2ImageView])
def test_augmentation_that_cannot_be(kind):
    with pytest.raises(ValueError, match="`crop_size`"):
        kind(0)
    with pytest.raises(ValueError, match="uint8 frames"):
        kind(8)(torch.zeros(1, 3, 8, 8))
    assert auto_augment(Image.fromarray(noise(20, 30))).size == (30, 20)
