"""VideoMAE's video and image processor: pixels, old settings, published snippets, and whose a class name is."""

import json
import unittest

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor, AutoProcessor, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from tests.harness.fresh import IMPORTS, succeed_afresh
from tests.harness.processing import ProcessingMixin
from tests.video_files import decode_all, write_video
from tests.videomae.spec import SPEC
from vidformers import (
    VideoMAEConfig,
    VideoMAEFeatureExtractor,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEVideoProcessor,
)
from vidformers.compat import IMAGES, VIDEOS, adopted_class
from vidformers.video.transform import center_crop, resize


class VideoMAEVideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NARROW = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 12,
}
OLD_SETTINGS = {
    "of 2022": {
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "size": 224,
    },
    "of 2023": {
        "crop_size": {"height": 224, "width": 224},
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 224},
    },
    "of the PIL class": {"image_processor_type": "VideoMAEImageProcessorPil", "size": {"shortest_edge": 224}},
    "of the fast class": {"image_processor_type": "VideoMAEImageProcessorFast", "crop_size": 224},
    "without a class": {"size": 224},
}
AUTO = {AutoVideoProcessor: VideoMAEVideoProcessor, AutoImageProcessor: VideoMAEImageProcessor}


def video(num_frames: int = 4, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def pixels(videos, processor=None, **options) -> torch.Tensor:
    return (processor or VideoMAEVideoProcessor(crop_size=32))(videos, return_tensors="pt", **options).pixel_values


def write_settings(folder, settings: dict, model_type: str = "videomae", **config):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


# ------------------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("size", [(60, 80), (90, 70), (224, 224)])
def test_values(size):
    frames = torch.from_numpy(video(3, *size)).permute(0, 3, 1, 2)
    height, width = size
    new = (224, int(224 * width / height)) if height <= width else (int(224 * height / width), 224)
    expected = (center_crop(resize(frames, new), (224, 224)) / 255 - MEAN) / STD
    found = pixels(frames, VideoMAEVideoProcessor())
    assert found.dtype == torch.float32 and found.shape == (1, 3, 3, 224, 224)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-6)


def test_the_image_processor_gives_the_same_pixels_from_any_form():
    frames = video()
    images = [PIL.Image.fromarray(frame) for frame in frames]
    expected = pixels(frames)
    processor = VideoMAEImageProcessor(crop_size=32)
    first = [frame.transpose(2, 0, 1) for frame in frames]
    forms = {
        "images": images,
        "arrays": list(frames),
        "arrays, channels first": first,
        "tensors": [torch.from_numpy(frame) for frame in first],
        "one array": frames,
        "lists of images": [images, images],
        "lists of arrays": [first, first],
        "a batch": np.stack([frames, frames]),
    }
    for name, form in forms.items():
        for found in processor(form, return_tensors="pt").pixel_values:
            assert torch.equal(found, expected[0]), name
    assert processor(images)["pixel_values"][0].shape == (4, 3, 32, 32)


def test_both_names_of_the_argument():
    processor = VideoMAEFeatureExtractor(crop_size=32)
    for name in ("images", "videos"):
        assert torch.equal(processor(**{name: list(video())}, return_tensors="pt").pixel_values, pixels(video()))
    for arguments in ({}, {"images": video(), "videos": video()}):
        with pytest.raises(TypeError, match=f"images or videos; got {len(arguments)}"):
            processor(**arguments)


def test_against_the_class_of_transformers():
    """PIL rounds after each of two passes of resizing: one gray level."""
    settings = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    theirs = VideoMAEImageProcessorPil(**settings)(list(video(2, 70, 90)), return_tensors="pt").pixel_values
    found = pixels(list(video(2, 70, 90)), VideoMAEImageProcessor())
    torch.testing.assert_close(found, theirs, atol=1.01 / 255 / 0.224, rtol=0)


@pytest.mark.parametrize("size", [224, 250])
def test_noise_of_the_published_snippet_is_scaled_linearly(size):
    noise = np.random.default_rng(0).standard_normal((2, 3, size, size))
    assert noise.min() < 0 and noise.max() > 1
    expected = resize(torch.from_numpy(noise), (224, 224))
    expected = ((expected / 255 - MEAN) / STD).float()
    for processor in (VideoMAEVideoProcessor(), VideoMAEImageProcessor()):
        torch.testing.assert_close(pixels(list(noise), processor)[0], expected, atol=1e-6, rtol=1e-6)
    untouched = pixels(list(noise), VideoMAEVideoProcessor(), do_rescale=False, do_normalize=False, do_resize=False)
    assert torch.equal(untouched[0], center_crop(torch.from_numpy(noise), (224, 224)))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(-1.0, 1.0, "negative values"), (0.0, 1.0, "rescaled again"), (0.0, 255.0, None)],
)
def test_floats_that_may_have_been_scaled_are_named(monkeypatch, low, high, message):
    said = []
    monkeypatch.setattr("vidformers.video.processor.logger.warning_once", said.append)
    values = np.random.default_rng(0).uniform(low, high, (2, 3, 32, 32))
    pixels(values)
    assert len(said) == (message is not None) and all(message in text for text in said)
    pixels(values, do_rescale=False)
    assert len(said) == (message is not None)


# -------------------------------------------------------------------------------------------------- frames of a file


def test_of_a_file_as_many_frames_as_the_model_takes(tmp_path):
    path = write_video(tmp_path / "long.mp4", num_frames=20)
    frames = np.stack(decode_all(path))
    processor = VideoMAEVideoProcessor(crop_size=32)
    expected = pixels(frames[np.arange(16) * 20 // 16])
    for form in (str(path), path.read_bytes(), [path], (path,), [[str(path)]]):
        assert torch.equal(pixels(form), expected)
    assert torch.equal(pixels(str(path), VideoMAEImageProcessor(crop_size=32)), expected)
    assert pixels([str(path), str(path)]).shape[:2] == (2, 16)
    assert pixels(frames).shape[1] == 20
    names = [str(tmp_path / f"{index}.png") for index in range(3)]
    for name, frame in zip(names, frames):
        PIL.Image.fromarray(frame).save(name)
    assert torch.equal(pixels([[names]]), pixels(frames[:3]))
    assert pixels(frames, do_sample_frames=True).shape[1] == 16
    for options in ({"do_sample_frames": False}, {"num_frames": 20}):
        assert pixels(str(path), **options).shape[1] == 20
    for every in (VideoMAEVideoProcessor(num_frames=None), VideoMAEVideoProcessor(do_sample_frames=False)):
        assert pixels(str(path), every).shape[1] == 20
        assert pixels(str(path), every, num_frames=5).shape[1] == pixels(frames, every, num_frames=5).shape[1] == 5
    assert processor(str(path), fps=5)["pixel_values"][0].shape[0] == 4  # 20 frames at 25 a second


def test_short_files_repeat_frames(tmp_path):
    path = write_video(tmp_path / "short.mp4", num_frames=5)
    frames = np.stack(decode_all(path))
    assert torch.equal(pixels(str(path)), pixels(frames[np.arange(16) * 5 // 16]))


# ---------------------------------------------------------------------------------------------------------- settings


def test_settings_are_read_back(tmp_path):
    before = VideoMAEVideoProcessor(size=40, crop_size=32, image_mean=[0.5, 0.4, 0.3], num_frames=8)
    image = VideoMAEImageProcessor(size=40, crop_size=32, image_mean=[0.5, 0.4, 0.3])
    for processor, file in ((before, "video_preprocessor_config.json"), (image, "preprocessor_config.json")):
        processor.save_pretrained(tmp_path)
        assert (tmp_path / file).exists()
        again = type(processor).from_pretrained(tmp_path)
        assert again.to_dict() == processor.to_dict()
        assert torch.equal(pixels(video(), again), pixels(video(), processor))
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "VideoMAEImageProcessor" and "video_processor_type" not in saved
    theirs = VideoMAEImageProcessorPil.from_pretrained(tmp_path)
    assert (theirs.size["shortest_edge"], theirs.crop_size["height"], theirs.image_mean[2]) == (40, 32, 0.3)


@pytest.mark.parametrize(
    ("arguments", "shortest_edge", "crop"),
    [
        ({}, 224, (224, 224)),
        ({"size": 112}, 112, (112, 112)),
        ({"size": 128, "crop_size": 112}, 128, (112, 112)),
        ({"crop_size": 112}, 112, (112, 112)),
        ({"crop_size": {"height": 32, "width": 48}}, 48, (32, 48)),
        ({"crop_size": [32, 48]}, 48, (32, 48)),
        ({"size": {"shortest_edge": 112}}, 112, (224, 224)),
    ],
)
def test_sizes(arguments, shortest_edge, crop):
    processor = VideoMAEVideoProcessor(**arguments)
    assert (processor.size.shortest_edge, (processor.crop_size.height, processor.crop_size.width)) == (
        shortest_edge,
        crop,
    )
    assert pixels(video(1), processor).shape[-2:] == crop


@pytest.mark.parametrize("settings", OLD_SETTINGS)
@pytest.mark.parametrize("auto", AUTO)
def test_old_settings(tmp_path, auto, settings):
    processor = auto.from_pretrained(write_settings(tmp_path, OLD_SETTINGS[settings]))
    assert type(processor) is AUTO[auto]
    assert "shortest_edge" in processor.size and processor.size["shortest_edge"] == 224
    expected = pixels(video(), VideoMAEVideoProcessor())
    assert torch.equal(pixels(list(video()), processor), expected)
    assert torch.equal(pixels(list(video()), VideoMAEFeatureExtractor.from_pretrained(tmp_path, size=224)), expected)


def test_arguments_of_the_auto_classes(tmp_path):
    write_settings(tmp_path, OLD_SETTINGS["of 2022"])
    for auto, expected in AUTO.items():
        processor, unused = auto.from_pretrained(
            tmp_path, config=VideoMAEConfig(), do_normalize=False, foo=1, return_unused_kwargs=True
        )
        assert type(processor) is expected and processor.do_normalize is False and unused["foo"] == 1
    assert type(AutoImageProcessor.from_pretrained(tmp_path, use_fast=True, backend="pil")) is VideoMAEImageProcessor
    assert type(AutoProcessor.from_pretrained(tmp_path)) is VideoMAEImageProcessor


# ---------------------------------------------------------------------------------------------------------- snippets


def test_snippet_of_pretraining(tmp_path):
    """As published, for both kinds of values that it has had, but for the model's width."""
    write_settings(tmp_path, OLD_SETTINGS["of 2023"])
    VideoMAEForPreTraining(VideoMAEConfig(**NARROW)).save_pretrained(tmp_path)
    num_frames = 16
    noise = list(np.random.randn(16, 3, 224, 224))
    for frames in (noise, list(np.random.randint(0, 256, (num_frames, 3, 224, 224)))):
        image_processor = AutoImageProcessor.from_pretrained(tmp_path)
        model = VideoMAEForPreTraining.from_pretrained(tmp_path)
        pixel_values = image_processor(frames, return_tensors="pt").pixel_values
        num_patches_per_frame = (model.config.image_size // model.config.patch_size) ** 2
        seq_length = (num_frames // model.config.tubelet_size) * num_patches_per_frame
        bool_masked_pos = torch.randint(0, 2, (1, seq_length)).bool()
        outputs = model(pixel_values, bool_masked_pos=bool_masked_pos)
        assert outputs.loss.isfinite()


def test_snippet_of_classification(tmp_path):
    write_settings(tmp_path, OLD_SETTINGS["of 2023"])
    VideoMAEForVideoClassification(VideoMAEConfig(**NARROW, num_labels=3)).save_pretrained(tmp_path)
    video_path = write_video(tmp_path / "video.mp4", num_frames=40)
    video_processor = VideoMAEVideoProcessor.from_pretrained(tmp_path)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    inputs = video_processor(str(video_path), return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        features = model.videomae(**inputs).last_hidden_state
    assert list(features.shape) == [1, 1568, 24]
    assert model.config.id2label[logits.argmax(-1).item()].startswith("LABEL_")
    # The model card's, in both spellings that it has had.
    for processor_class in (VideoMAEFeatureExtractor, VideoMAEImageProcessor):
        processor = processor_class.from_pretrained(tmp_path)
        inputs = processor(list(np.random.randn(16, 3, 224, 224)), return_tensors="pt")
        with torch.no_grad():
            assert model(**inputs).logits.shape == (1, 3)
    classify = pipeline("video-classification", model=str(tmp_path))
    assert type(classify.video_processor) is VideoMAEVideoProcessor
    assert {entry["label"] for entry in classify(str(video_path))} == {"LABEL_0", "LABEL_1", "LABEL_2"}


# --------------------------------------------------------------------------------------------- whose a class name is


@pytest.mark.parametrize("model_type", ["timesformer", "xclip"])
@pytest.mark.parametrize("settings", ["of 2022", "of 2023"])
def test_directories_of_other_families_keep_their_class(tmp_path, model_type, settings):
    write_settings(tmp_path, OLD_SETTINGS[settings], model_type)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)).__module__.startswith("transformers.")
    for kind in (IMAGES, VIDEOS):
        assert adopted_class(tmp_path, {}, kind) is None
        assert adopted_class(tmp_path, {"config": VideoMAEConfig()}, kind) is not None


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("torchvision", [False, True], ids=["torchvision absent", "torchvision present"])
@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_in_a_fresh_process(tmp_path, order, torchvision):
    """Ours for VideoMAE; for TimeSformer what transformers gives, whichever is imported first."""
    for model_type in ("videomae", "timesformer"):
        (tmp_path / model_type).mkdir()
        write_settings(tmp_path / model_type, OLD_SETTINGS["of 2023"], model_type)
    code = """
import sys
from transformers.models.auto import image_processing_auto, video_processing_auto
videomae, timesformer = (sys.argv[1] + "/" + name for name in ("videomae", "timesformer"))
assert type(AutoImageProcessor.from_pretrained(videomae)) is vidformers.VideoMAEImageProcessor
assert type(AutoVideoProcessor.from_pretrained(videomae)) is vidformers.VideoMAEVideoProcessor
assert transformers.AutoImageProcessor is AutoImageProcessor
for auto, mapping in (
    (AutoImageProcessor, image_processing_auto.IMAGE_PROCESSOR_MAPPING),
    (AutoVideoProcessor, video_processing_auto.VIDEO_PROCESSOR_MAPPING),
):
    registered = [cls.__name__ for entry in mapping._extra_content.values() for cls in entry.values()]
    assert not any("VideoMAE" in name for name in registered), registered
    try:
        module = type(auto.from_pretrained(timesformer)).__module__
    except (ImportError, ValueError) as error:
        module = "transformers." if "torchvision" in str(error).lower() else repr(error)
    assert module.startswith("transformers."), module
"""
    succeed_afresh(code, tmp_path, order=order, torchvision=torchvision)
