"""PE Video's video processor and processor: frames, values, masks, and the snippet of transformers' documentation."""

import json
import unittest

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, AutoTokenizer, PeAudioFeatureExtractor, PeAudioVideoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from tests.harness.processing import ProcessingMixin
from tests.pe_video.spec import MODEL, SPEC, TEXT
from tests.text_files import save_modernbert_tokenizer
from tests.video_files import write_video
from vidformers import PeVideoModel, PeVideoProcessor, PeVideoVideoProcessor
from vidformers.commands.classify import Classifier
from vidformers.video.transform import resize


class PeVideoVideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC


SMALL = {"size": {"height": 16, "width": 16}}


def video(num_frames: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def tokenizer(tmp_path):
    save_modernbert_tokenizer(tmp_path / "tokenizer")
    return AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


# --------------------------------------------------------------------------------------------------- video processor


def test_values():
    frames = video(3)
    pixels = PeVideoVideoProcessor()(frames, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 3, 3, 336, 336)
    assert pixels.dtype == torch.float32
    squashed = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), (336, 336), resample=2)
    torch.testing.assert_close(pixels[0], (squashed / 255 - 0.5) / 0.5, atol=1e-6, rtol=0)


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 40, 301])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 16])
def test_frames_reach_from_the_first_to_the_last(total, num_frames):
    """`int(i * (total - 1) / (num_frames - 1))`, `_sample_frames` of the original, which takes no single frame."""
    frames = np.arange(total, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    off = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    batch = PeVideoVideoProcessor()(frames, num_frames=num_frames, return_tensors="pt", **off)
    expected = [int(index * (total - 1) / max(num_frames - 1, 1)) for index in range(num_frames)]
    assert batch["pixel_values_videos"][0, :, 0, 0, 0].tolist() == [index % 256 for index in expected]
    assert batch["padding_mask_videos"].tolist() == [[True] * num_frames]


def test_frames_of_a_file(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=30)
    processor = PeVideoVideoProcessor(**SMALL)
    everything = processor(path, return_tensors="pt")["pixel_values_videos"]
    assert everything.shape[1] == 30
    chosen = processor(path, num_frames=16, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(chosen, everything[:, [int(index * 29 / 15) for index in range(16)]])
    assert processor(path, fps=5, return_tensors="pt")["pixel_values_videos"].shape[1] < 30
    with pytest.raises(ValueError, match="num_frames or fps, got both"):
        processor(path, fps=5, num_frames=3, return_tensors="pt")


def test_stored_number_of_frames(tmp_path):
    """As the checkpoints for 16 frames have it."""
    PeVideoVideoProcessor(num_frames=16, do_sample_frames=True, **SMALL).save_pretrained(tmp_path)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(processor) is PeVideoVideoProcessor
    assert processor(video(40), return_tensors="pt")["pixel_values_videos"].shape == (1, 16, 3, 16, 16)
    assert processor(video(40), num_frames=4, return_tensors="pt")["pixel_values_videos"].shape[1] == 4
    whole = processor(video(40), do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    assert whole.shape[1] == 40


def test_padding_comes_with_tensors_alone():
    processor, videos = PeVideoVideoProcessor(**SMALL), [video(5), video(3), video(1)]
    batch = processor(videos, return_tensors="pt")
    pixels, mask = batch["pixel_values_videos"], batch["padding_mask_videos"]
    assert pixels.shape == (3, 5, 3, 16, 16)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]
    assert not pixels[~mask].any()
    as_list = processor(videos)
    assert set(as_list) == {"pixel_values_videos"}
    for row, clip in enumerate(as_list["pixel_values_videos"]):
        assert torch.equal(pixels[row][mask[row]], clip)


def test_equal_lengths_have_a_mask_too():
    batch = PeVideoVideoProcessor(**SMALL)([video(3), video(3)], return_tensors="np")
    assert type(batch["padding_mask_videos"]) is np.ndarray
    assert batch["padding_mask_videos"].all()
    assert batch["padding_mask_videos"].shape == (2, 3)


def test_padding_can_be_switched_off():
    processor = PeVideoVideoProcessor(**SMALL)
    assert set(processor([video(3), video(3)], do_pad=False, return_tensors="pt")) == {"pixel_values_videos"}
    with pytest.raises(ValueError, match=r"Cannot stack videos of \[3, 2\] frames"):
        processor([video(3), video(2)], do_pad=False, return_tensors="pt")


def test_published_settings(tmp_path):
    """What transformers' converter stores; its class is the same name."""
    settings = {
        "video_processor_type": "PeVideoVideoProcessor",
        "size": {"height": 336, "width": 336},
        "resample": 2,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
    }
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(settings))
    loaded, expected = AutoVideoProcessor.from_pretrained(tmp_path), PeVideoVideoProcessor()
    assert type(loaded) is PeVideoVideoProcessor
    batches = (each(video(2), return_tensors="pt") for each in (loaded, expected))
    assert torch.equal(*(batch["pixel_values_videos"] for batch in batches))


# --------------------------------------------------------------------------------------------------------- processor


def test_processor(tokenizer, tmp_path):
    processor = PeVideoProcessor(PeVideoVideoProcessor(**SMALL), tokenizer)
    processor.save_pretrained(tmp_path)
    SPEC.config(MODEL).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is PeVideoProcessor
    assert type(loaded.video_processor) is PeVideoVideoProcessor

    texts = ["a dog runs", "the cat plays the drums"]
    batch = loaded(text=texts, videos=[video(5), video(3)], return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values_videos", "padding_mask_videos"}
    assert batch["input_ids"].shape == (2, 7)
    assert batch["attention_mask"].sum(1).tolist() == [5, 7]
    assert batch["pixel_values_videos"].shape == (2, 5, 3, 16, 16)
    assert torch.equal(batch["input_ids"], tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])
    assert loaded(text="a dog " * 600, return_tensors="pt")["input_ids"].shape == (1, 512)
    assert loaded(text="a dog " * 9, max_length=5, return_tensors="pt")["input_ids"].shape == (1, 5)
    assert loaded(videos=video(4), num_frames=2, return_tensors="pt")["pixel_values_videos"].shape[1] == 2


@pytest.mark.parametrize("model_class", [PeVideoModel, AutoModel])
def test_snippet_of_transformers_documentation(model_class, tokenizer, tmp_path):
    """Its calls on a directory; there the class is imported from transformers, whose own needs timm."""
    PeVideoProcessor(PeVideoVideoProcessor(**SMALL), tokenizer).save_pretrained(tmp_path)
    SPEC.build(MODEL, text_config={**TEXT, "vocab_size": len(tokenizer)}).save_pretrained(tmp_path)

    processor = AutoProcessor.from_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path)
    labels = ["a dog runs", "the cat waves today!", "my friend falls down"]
    video_inputs = processor.video_processor(video(40), num_frames=16, return_tensors="pt").to(model.device)
    text_inputs = processor.tokenizer(labels, padding=True, return_tensors="pt").to(model.device)
    inputs = {**video_inputs, **text_inputs}
    with torch.no_grad():
        outputs = model(**inputs)
    probabilities = outputs.logits_video_text.sigmoid()
    assert type(model) is PeVideoModel
    assert probabilities.shape == (1, 3)
    assert len({round(value, 4) for value in probabilities[0].tolist()}) == 3
    assert inputs["pixel_values_videos"].shape == (1, 16, 3, 16, 16)


def test_videos_are_classified(tokenizer, tmp_path):
    """`vidformers classify` takes as many frames as the processor names, and softens the logits over the labels."""
    processor = PeVideoProcessor(PeVideoVideoProcessor(num_frames=4, do_sample_frames=True, **SMALL), tokenizer)
    processor.save_pretrained(tmp_path)
    model = SPEC.build(MODEL, text_config={**TEXT, "vocab_size": len(tokenizer)})
    model.save_pretrained(tmp_path)
    path, labels = write_video(tmp_path / "video.mp4", num_frames=30), ["a dog runs", "my friend falls down"]
    with torch.no_grad():
        logits = model(**processor(videos=str(path), text=labels, return_tensors="pt")).logits_video_text[0]
    assert Classifier(tmp_path).classify(path, labels) == pytest.approx(
        dict(zip(labels, logits.softmax(-1).tolist(), strict=True)), abs=1e-5
    )


def test_processors_of_audio_video_directories(tokenizer, tmp_path):
    """AutoProcessor gives transformers' processor with our video processor, and ours takes what it needs of it."""
    video_processor = PeVideoVideoProcessor(**SMALL)
    PeAudioVideoProcessor(PeAudioFeatureExtractor(), video_processor, tokenizer).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pe_audio_video"}))
    theirs, ours = AutoProcessor.from_pretrained(tmp_path), PeVideoProcessor.from_pretrained(tmp_path)
    assert type(theirs) is PeAudioVideoProcessor
    for processor in (theirs, ours):
        assert type(processor.video_processor) is PeVideoVideoProcessor
        assert processor.video_processor.size == video_processor.size
        assert processor.tokenizer("a dog")["input_ids"] == tokenizer("a dog")["input_ids"]
