"""The video processor of V-JEPA 2: beyond what all families' processors have, what becomes of short clips."""

import json
import unittest

import pytest
from transformers import pipeline

from tests.harness.processing import ProcessingMixin
from tests.video_files import write_video
from tests.vjepa2.spec import SPEC
from vidformers import VJEPA2VideoProcessor


class VJEPA2VideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC


def test_short_clips(tmp_path):
    """An error unless the processor or a call says "repeat"; stored where it isn't the default."""
    path = str(write_video(tmp_path / "short.mp4", num_frames=3))
    strict, patient = VJEPA2VideoProcessor(crop_size=32), VJEPA2VideoProcessor(crop_size=32, short_clips="repeat")
    for processor, arguments in ((strict, {}), (patient, {"short_clips": "error"})):
        with pytest.raises(ValueError, match="at least num_frames=8 frames, got 3"):
            processor(path, num_frames=8, **arguments)
    for processor, arguments in ((patient, {}), (strict, {"short_clips": "repeat"})):
        pixels = processor(path, num_frames=8, return_tensors="pt", **arguments)["pixel_values_videos"]
        assert pixels.shape == (1, 8, 3, 32, 32)
    patient.save_pretrained(tmp_path)
    assert VJEPA2VideoProcessor.from_pretrained(tmp_path).repeats_frames
    strict.save_pretrained(tmp_path / "strict")
    assert "short_clips" not in json.loads((tmp_path / "strict/video_preprocessor_config.json").read_text("utf-8"))
    with pytest.raises(ValueError, match="Expected short_clips to be error or repeat"):
        VJEPA2VideoProcessor(short_clips="pad")


def test_a_folder_with_a_short_clip_in_a_pipeline(tmp_path):
    model = next(model for model in SPEC.models if model.name == "VJEPA2ForVideoClassification")
    SPEC.build(model).save_pretrained(tmp_path)
    size = SPEC.size
    assert size.height == size.width
    settings = {"crop_size": size.height, "num_frames": size.frames, "short_clips": "repeat", "do_sample_frames": True}
    VJEPA2VideoProcessor(**settings).save_pretrained(tmp_path)
    videos = [str(write_video(tmp_path / f"{count}.mp4", num_frames=count)) for count in (1, 20)]
    classify = pipeline("video-classification", model=str(tmp_path))
    assert len(classify(videos, top_k=2)) == 2
