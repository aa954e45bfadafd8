"""Resizing and normalising, against values that torchvision 0.28 and transformers 5.23 produced."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio

from tests.video_files import picture
from vidformers.video import transform


# Written by torchvision.transforms.v2.functional.resize and transformers' VJEPA2VideoProcessor(crop_size=14) on
# the pictures that `frames` makes.
GOLDEN = np.load(Path(__file__).parents[1] / "assets" / "torchvision_golden.npz", allow_pickle=False)
NAMES = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def frames(num_frames=2, height=30, width=44):
    video = np.stack([picture(7 * index, height, width) for index in range(num_frames)])
    return torch.from_numpy(video).permute(0, 3, 1, 2)


@pytest.mark.parametrize("resample", [0, 2, 3])
@pytest.mark.parametrize("size", [(11, 16), (37, 50)])
def test_resize_of_uint8_is_torchvisions_to_the_bit(resample, size):
    expected = torch.from_numpy(GOLDEN[f"{NAMES[resample]}_{size[0]}x{size[1]}"])
    for video in (frames(), frames().contiguous()):
        assert torch.equal(transform.resize(video, size, resample), expected)
    batch = frames()[None].expand(3, -1, -1, -1, -1)
    assert torch.equal(transform.resize(batch, size, resample)[2], expected)


def test_resize_where_torchvision_is_at_hand():
    try:
        from torchvision.transforms.v2 import functional as reference
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    kinds = reference.InterpolationMode
    modes = {1: kinds.LANCZOS, 2: kinds.BILINEAR, 3: kinds.BICUBIC}
    for resample, mode in modes.items():
        for video in (frames(), frames().float() / 100 - 1):
            expected = reference.resize(video, [19, 23], interpolation=mode, antialias=True)
            assert torch.equal(transform.resize(video, (19, 23), resample), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int16, torch.int64])
def test_resize_keeps_the_dtype_and_clips_nothing(dtype):
    video = frames().to(dtype) * 4 - 300
    resized = transform.resize(video, (60, 88), 3)
    assert resized.dtype == dtype
    assert resized.min() < -250 and resized.max() > 600
    exact = transform.resize(video.double(), (60, 88), 3)
    assert (resized.double() - exact).abs().max() <= (0.5 if dtype == torch.float16 else 0.501)


def test_resize_leaves_frames_of_the_right_size():
    video = frames()
    assert transform.resize(video, (30, 44)) is video


@pytest.mark.parametrize("size", [(20, 30), (100, 90), (41, 33)])
def test_lanczos_is_that_of_pillow(size):
    """Within two levels: torch rounds after each of the two axes, with weights of 16 bits, as torchvision does."""
    frame = picture(3, 40, 60)
    expected = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS)).astype(int)
    found = transform.resize(torch.from_numpy(frame).permute(2, 0, 1)[None], size, 1)[0].permute(1, 2, 0)
    assert np.abs(found.numpy() - expected).max() <= 2


def test_bicubic_stands_in_for_lanczos(monkeypatch, caplog):
    """Where torch has no such filter."""
    monkeypatch.setattr(transform, "_has_lanczos", lambda: False)
    video = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    with caplog.at_level("WARNING", logger="transformers"):
        assert torch.equal(transform.resize(video, (8, 8), 1), transform.resize(video, (8, 8), 3))
    assert "bicubic one takes its place" in caplog.text


def test_resize_errors():
    with pytest.raises(ValueError, match="resample to be 0 .*got 4"):
        transform.resize(frames(), (4, 4), 4)
    with pytest.raises(ValueError, match="Cannot resize 30x44 frames to 0x5"):
        transform.resize(frames(), (0, 5))


def test_resize_size_is_that_of_transformers():
    generator = random.Random(0)
    for _ in range(3000):
        height, width, edge, limit = (generator.randint(1, 900) for _ in range(4))
        limit = limit + 10
        expected = get_size_with_aspect_ratio((height, width), edge, limit)
        assert transform.resize_size(height, width, {"shortest_edge": edge, "longest_edge": limit}) == expected
        image = np.broadcast_to(np.zeros(1, dtype=np.uint8), (3, height, width))
        expected = get_resize_output_image_size(image, edge, False, None, "channels_first")
        assert transform.resize_size(height, width, {"shortest_edge": edge, "longest_edge": None}) == expected
    assert transform.resize_size(480, 640, {"height": 9, "width": 7}) == (9, 7)
    assert transform.resize_size(480, 640, {"max_height": 100, "max_width": 100}) == (75, 100)
    for wrong in ({}, {"height": 5}, {"longest_edge": 5}, {"height": 5, "shortest_edge": 5}):
        with pytest.raises(ValueError, match="Expected size with"):
            transform.resize_size(480, 640, wrong)


def test_center_crop():
    video = torch.arange(6 * 9).view(1, 1, 6, 9)
    assert torch.equal(transform.center_crop(video, (3, 4)), video[..., 1:4, 2:6])
    padded = transform.center_crop(video, (9, 4))
    assert torch.equal(padded[..., 1:7, :], video[..., 2:6])
    assert padded[..., 0, :].sum() == 0 and padded[..., 7:, :].sum() == 0
    both = transform.center_crop(video, (7, 12))
    assert both.shape[-2:] == (7, 12) and torch.equal(both[..., :6, 1:10], video)


def test_rescale_and_normalize():
    video = frames()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    normalized = transform.rescale_and_normalize(video, 1 / 255, [0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    torch.testing.assert_close(normalized, (video / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert normalized.dtype == torch.float32
    assert torch.equal(transform.rescale_and_normalize(video, 2.0), video * 2.0)
    assert transform.rescale_and_normalize(video) is video
    torch.testing.assert_close(transform.rescale_and_normalize(video, None, 3.0, 2.0), (video - 3.0) / 2.0)
    negative = transform.rescale_and_normalize(video.float() - 400, 1 / 255, 0.5, 0.5)
    torch.testing.assert_close(negative, ((video.float() - 400) / 255 - 0.5) / 0.5, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="one mean or one for each of the frames' 3 channels, got 2"):
        transform.rescale_and_normalize(video, 1.0, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="without zeros"):
        transform.rescale_and_normalize(video, 1.0, 0.5, [1.0, 0.0, 1.0])


def test_pad_videos():
    videos = [torch.ones(n, 3, 2, 2) for n in (3, 1, 2)]
    batch, mask = transform.pad_videos(videos)
    assert batch.shape == (3, 3, 3, 2, 2) and mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert torch.equal(batch[..., 0, 0, 0] == 1, mask)


@pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (5, 5)])
def test_three_crops(height, width):
    frames = torch.arange(2 * 3 * height * width).view(2, 3, height, width)
    views = transform.three_crops(frames)
    side = min(height, width)
    assert views.shape == (3, 2, 3, side, side)
    for view, start in zip(views, (0, int((max(height, width) - side) / 2), max(height, width) - side)):
        wide = frames if width >= height else frames.mT
        assert torch.equal(view if width >= height else view.mT, wide[..., start : start + side])
