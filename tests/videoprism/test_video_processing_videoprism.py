"""VideoPrism's video processor and processor, alone and through the Auto classes, with torchvision and without."""

import json
import unittest

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from tests.harness.fresh import IMPORTS, succeed_afresh
from tests.harness.processing import ProcessingMixin
from tests.text_files import reference_ids, sentencepiece_model, t5_model
from tests.video_files import write_video
from tests.videoprism.spec import SPEC
from vidformers import (
    VideoPrismConfig,
    VideoPrismProcessor,
    VideoPrismTextConfig,
    VideoPrismTokenizer,
    VideoPrismVideoProcessor,
    VideoPrismVisionConfig,
    VideoPrismVisionModel,
)
from vidformers.compat import adopted_class
from vidformers.video.transform import resize


class VideoPrismVideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC


# As published directories have it: the class of another family, and what it needs to do VideoPrism's work.
FOREIGN = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "size": {"height": 288, "width": 288},
    "resample": 3,
    "do_normalize": False,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}


def video(num_frames: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def write_processor_json(folder, settings: dict) -> None:
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))


def processor(folder, model: bytes | None = None) -> VideoPrismProcessor:
    (folder / "spm.model").write_bytes(model or t5_model())
    small = VideoPrismVideoProcessor(num_frames=4, size=36)
    return VideoPrismProcessor(small, VideoPrismTokenizer(folder / "spm.model"))


# --------------------------------------------------------------------------------------------------- video processor


@pytest.mark.parametrize("size", [36, 54])
def test_the_calls_of_transformers_documentation(tmp_path, size):
    """Its page for VideoPrism loads in half precision with sdpa, and takes the pixels from lists of files."""
    write_video(tmp_path / "video.mp4", num_frames=20)
    tower = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_spatial_layers": 1}
    tower |= {"num_temporal_layers": 1, "num_frames": 4, "image_size": 36}
    VideoPrismVisionModel(VideoPrismVisionConfig(**tower)).save_pretrained(tmp_path)
    VideoPrismVideoProcessor(num_frames=4, size=size).save_pretrained(tmp_path)

    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.float16, attn_implementation="sdpa")
    inputs = processor(videos=[str(tmp_path / "video.mp4")], return_metadata=True, do_sample_frames=True)
    metadata, pixels = inputs["video_metadata"], inputs["pixel_values_videos"]
    outputs = model(pixels) if size == 36 else model(pixels, interpolate_pos_encoding=True)

    assert list(metadata[0].frames_indices) == [0, 5, 10, 15]
    assert outputs.last_hidden_state.shape == (1, 4 * (size // 18) ** 2, 24)
    assert outputs.last_hidden_state.dtype == torch.float16 and outputs.last_hidden_state.isfinite().all()


def test_values():
    frames = video(40)
    pixels = VideoPrismVideoProcessor()(frames, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 16, 3, 288, 288) and pixels.dtype == torch.float32
    chosen = torch.from_numpy(frames[np.linspace(0, 40, num=16, endpoint=False, dtype=np.int32)]).permute(0, 3, 1, 2)
    expected = resize(chosen, (288, 288), resample=3)
    torch.testing.assert_close(pixels[0], expected / 255, atol=1e-7, rtol=0)
    assert pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize("length", [1, 5, 8, 9, 100, 301])
def test_frames_are_those_of_the_original(length):
    frames = np.arange(length, dtype=np.int64)[:, None, None, None] + np.zeros((length, 2, 2, 3), np.int64)
    options = {"do_resize": False, "do_rescale": False}
    pixels = VideoPrismVideoProcessor(num_frames=8)(frames, return_tensors="pt", **options)["pixel_values_videos"]
    assert pixels[0, :, 0, 0, 0].tolist() == np.linspace(0, length, num=8, endpoint=False, dtype=np.int32).tolist()


def test_a_file_is_a_video(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=20)
    pixels = VideoPrismVideoProcessor(num_frames=3, size=(18, 36))(str(path), return_tensors="pt")
    assert pixels["pixel_values_videos"].shape == (1, 3, 3, 18, 36)


def test_all_frames_with_a_mask():
    options = {"do_sample_frames": False, "do_pad": True, "return_tensors": "pt"}
    batch = VideoPrismVideoProcessor(size=36)([video(5), video(3)], **options)
    assert batch["pixel_values_videos"].shape == (2, 5, 3, 36, 36)
    assert batch["padding_mask_videos"].tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert not batch["pixel_values_videos"][1, 3:].any()


def test_frames_per_second_take_the_place_of_the_number():
    metadata = {"total_num_frames": 40, "fps": 10.0}
    batch = VideoPrismVideoProcessor(size=36)(video(40), video_metadata=metadata, fps=2, return_tensors="pt")
    assert batch["pixel_values_videos"].shape[1] == 8


@pytest.mark.parametrize("size", [36, [36, 54], {"height": 36, "width": 54}])
def test_sizes_are_saved_as_height_and_width(tmp_path, size):
    VideoPrismVideoProcessor(size=size, num_frames=8).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert saved["size"] == {"height": 36, "width": 36 if size == 36 else 54} and saved["num_frames"] == 8
    loaded = VideoPrismVideoProcessor.from_pretrained(tmp_path)
    assert (loaded.size["height"], loaded.num_frames, loaded.do_normalize) == (36, 8, False)


# -------------------------------------------------------------------------------------- other families' class names


@pytest.mark.parametrize("config_class", [VideoPrismConfig, VideoPrismVisionConfig])
@pytest.mark.parametrize("nested", [False, True])
def test_directories_that_name_another_class(tmp_path, config_class, nested):
    config_class().save_pretrained(tmp_path)
    if nested:
        (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": FOREIGN}))
    else:
        write_processor_json(tmp_path, FOREIGN)
    loaded = AutoVideoProcessor.from_pretrained(tmp_path, num_frames=8)
    assert type(loaded) is VideoPrismVideoProcessor and loaded.num_frames == 8
    pixels = loaded(video(9), return_tensors="pt")["pixel_values_videos"]
    expected = VideoPrismVideoProcessor(num_frames=8)(video(9), return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(pixels, expected)


def test_unused_arguments_come_back(tmp_path):
    VideoPrismVisionConfig().save_pretrained(tmp_path)
    write_processor_json(tmp_path, FOREIGN)
    loaded, unused = AutoVideoProcessor.from_pretrained(tmp_path, num_frames=8, foo=1, return_unused_kwargs=True)
    assert type(loaded) is VideoPrismVideoProcessor and unused["foo"] == 1


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("torchvision", [False, True], ids=["torchvision absent", "torchvision present"])
def test_the_other_family_keeps_its_class(tmp_path, torchvision):
    (tmp_path / "config.json").write_text('{"model_type": "llava_onevision"}')
    write_processor_json(tmp_path, FOREIGN)
    code = """
import sys
from transformers.models.auto import video_processing_auto as auto
try:
    outcome = type(AutoVideoProcessor.from_pretrained(sys.argv[1])).__name__
except ImportError as error:
    assert "Torchvision" in str(error), error
    outcome = "ImportError"
assert outcome == sys.argv[2], outcome
registered = [cls.__name__ for entry in auto.VIDEO_PROCESSOR_MAPPING._extra_content.values() for cls in entry.values()]
assert "LlavaOnevisionVideoProcessor" not in registered
"""
    outcome = "LlavaOnevisionVideoProcessor" if torchvision else "ImportError"
    succeed_afresh(code, tmp_path, outcome, torchvision=torchvision)


@pytest.mark.parametrize("config", [None, '{"model_type": "no such"}', "not JSON"])
def test_a_foreign_name_without_a_usable_configuration_is_left_to_transformers(tmp_path, config):
    write_processor_json(tmp_path, FOREIGN)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert adopted_class(tmp_path, {}) is None


# ----------------------------------------------------------------------------------------------------------- processor


def test_processor_joins_both(tmp_path):
    model = sentencepiece_model()
    batch = processor(tmp_path, model)(text=["A dog, runs!"], videos=video(9), return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (1, 4, 3, 36, 36)
    assert batch["input_ids"].tolist() == [reference_ids(model, "a dog runs.", 64)]
    assert batch["attention_mask"].sum() == (batch["input_ids"] != 0).sum()


def test_either_input_alone(tmp_path):
    both = processor(tmp_path)
    text = both(text="a dog runs", padding=False)
    assert set(text) == {"input_ids", "attention_mask"} and len(text["input_ids"]) < 10
    assert set(both(videos=video(9), return_tensors="pt")) == {"pixel_values_videos"}
    with pytest.raises(ValueError, match="at least one input"):
        both()


def test_arguments_reach_both(tmp_path):
    batch = processor(tmp_path)(
        text=["a dog runs in the park"],
        videos=[video(6), video(4)],
        max_length=5,
        do_sample_frames=False,
        do_pad=True,
        return_tensors="pt",
    )
    assert batch["input_ids"].shape == (1, 5) and batch["padding_mask_videos"].shape == (2, 6)


def test_saved_and_loaded(tmp_path):
    before = processor(tmp_path)
    before.save_pretrained(tmp_path / "saved")
    VideoPrismConfig().save_pretrained(tmp_path / "saved")
    inputs = {"text": ["A dog runs!", "café"], "videos": video(9), "return_tensors": "pt"}
    expected = before(**inputs)
    for loader in (VideoPrismProcessor, AutoProcessor):
        loaded = loader.from_pretrained(tmp_path / "saved")
        assert type(loaded) is VideoPrismProcessor
        assert (type(loaded.tokenizer), type(loaded.video_processor)) == (
            VideoPrismTokenizer,
            VideoPrismVideoProcessor,
        )
        found = loaded(**inputs)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_directory_of_transformers(tmp_path):
    """Nothing names our classes: the video processor is another family's, the tokenizer has transformers' settings."""
    VideoPrismConfig().save_pretrained(tmp_path)
    processor(tmp_path).tokenizer.save_pretrained(tmp_path)
    settings = {"processor_class": "VideoPrismProcessor", "video_processor": FOREIGN}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is VideoPrismProcessor and type(loaded.video_processor) is VideoPrismVideoProcessor


def test_directories_without_text_have_a_video_processor_alone(tmp_path):
    VideoPrismVisionConfig().save_pretrained(tmp_path)
    VideoPrismVideoProcessor().save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is VideoPrismVideoProcessor


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize("torchvision", [False, True], ids=["torchvision absent", "torchvision present"])
@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_in_a_fresh_process(tmp_path, order, torchvision):
    processor(tmp_path).save_pretrained(tmp_path / "saved")
    VideoPrismConfig().save_pretrained(tmp_path / "saved")
    VideoPrismTextConfig().save_pretrained(tmp_path / "text")
    processor(tmp_path).tokenizer.save_pretrained(tmp_path / "text")
    code = """
import sys
from transformers.models.videoprism.processing_videoprism import VideoPrismProcessor as Stock
loaded = AutoProcessor.from_pretrained(sys.argv[1] + "/saved")
assert type(loaded) is vidformers.VideoPrismProcessor is not Stock
assert type(loaded.video_processor) is vidformers.VideoPrismVideoProcessor
for folder in ("saved", "text"):
    assert type(AutoTokenizer.from_pretrained(sys.argv[1] + "/" + folder)) is vidformers.VideoPrismTokenizer
"""
    succeed_afresh(code, tmp_path, order=order, torchvision=torchvision)


def test_registering_again_changes_nothing():
    import vidformers

    before = AutoVideoProcessor.from_pretrained.__func__
    vidformers.register()
    assert AutoVideoProcessor.from_pretrained.__func__ is before
