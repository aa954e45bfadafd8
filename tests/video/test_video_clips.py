"""Frames, views and augmentations of V-JEPA 2's trainings: the original's numbers, and what holds for all."""

import random

import numpy as np
import pytest
import torch

from tests.goldens_of_training import case, cases
from vidformers.video import (
    VideoFileMetadata,
    VJEPA2EvaluationViews,
    VJEPA2PretrainingAugmentation,
    VJEPA2ProbeAugmentation,
    anticipation_indices,
    clip_indices,
)


@pytest.mark.parametrize("name", cases("c1_indices"))
def test_frames_of_the_original(name):
    given = case(name)
    for number, row in enumerate(given.rows):
        if "result" in row:  # a filter of the data set
            continue
        steps = {"frame_step": row.get("frame_step"), "fps": row.get("target_fps"), "duration": row.get("duration")}
        arguments = {
            "num_clips": row["num_clips"],
            "video_fps": row["fps"],
            "allow_overlap": row["overlap"],
            "random": row.get("random", True),
            "seed": row["np_seed"],
        }
        if "error" in row:
            with pytest.raises(ValueError, match="`fps`"):
                clip_indices(row["length"], row["frames"], **steps, **arguments)
            continue
        actual = clip_indices(row["length"], row["frames"], **steps, **arguments)
        assert actual.dtype == np.int64
        assert actual.tolist() == given.outputs[f"r{number}"].tolist(), row


@pytest.mark.parametrize("name", cases("c1_indices"))
def test_frames_before_actions_of_the_original(name):
    given = case(name)
    for number, row in enumerate(given.ek_rows):
        generator = random.Random(row["python_seed"])
        for place, (start, stop) in enumerate(zip(row["start"], row["stop"], strict=True)):
            frames, seconds = anticipation_indices(
                row["length"],
                row["frames"],
                row["target_fps"],
                start=start,
                stop=stop,
                anticipation_time=row["anticipation_time"],
                anticipation_point=row["anticipation_point"],
                video_fps=row["fps"],
                seed=generator,
            )
            assert frames.tolist() == given.outputs[f"ek{number}"][place].tolist()
            assert seconds == pytest.approx(given.outputs[f"ek{number}_anticipation_time"][place].item())


@pytest.mark.parametrize("total", [1, 2, 7, 16, 63, 64, 65, 129, 500])
@pytest.mark.parametrize("num_clips", [1, 2, 5])
@pytest.mark.parametrize("overlap", [False, True])
def test_clips_lie_in_the_video(total, num_clips, overlap):
    frames = clip_indices(total, 16, num_clips, frame_step=4, allow_overlap=overlap)
    assert frames.shape == (num_clips, 16)
    assert frames.min() >= 0 and frames.max() < total
    assert (np.diff(frames) >= 0).all()


def test_seeds_of_clips():
    assert (
        clip_indices(900, 4, 3, frame_step=2, seed=3).tolist()
        == clip_indices(900, 4, 3, frame_step=2, seed=3).tolist()
    )
    torch.manual_seed(0)
    first = clip_indices(900, 4, 3, frame_step=2)
    torch.manual_seed(0)
    assert (clip_indices(900, 4, 3, frame_step=2) == first).all()


@pytest.mark.parametrize("steps", [{}, {"frame_step": 2, "fps": 3}, {"fps": 3}, {"frame_step": 0}])
def test_steps_that_cannot_be(steps):
    with pytest.raises(ValueError, match="frame_step|fps"):
        clip_indices(100, 16, **steps)


def test_actions_at_the_ends():
    frames, seconds = anticipation_indices(50, 8, 5, start=0, stop=3, video_fps=30.0)
    assert seconds == 1.0 and (frames == 0).all()
    frames, _ = anticipation_indices(50, 8, 5, start=0, stop=300, anticipation_time=(0.0, 0.0), video_fps=30.0)
    assert frames.max() == 49
    with pytest.raises(ValueError, match="`fps`"):
        anticipation_indices(50, 8, 31, start=0, stop=3, video_fps=30.0)


@pytest.mark.parametrize("name", cases("c2_views"))
def test_views_of_the_original(name):
    given = case(name)
    for number, row in enumerate(given.rows):
        views = VJEPA2EvaluationViews(row["crop_size"], row["num_views"])(given.inputs[f"v{number}"].numpy())
        assert len(views) == row["views"]
        for index, view in enumerate(views):
            expected = given.outputs[f"v{number}_view{index}"].transpose(0, 1)
            torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(24, 24), (9, 200), (200, 9), (25, 24)])
@pytest.mark.parametrize("views", [1, 2, 4])
def test_shapes_of_views(size, views):
    frames = torch.randint(256, (2, *size, 3), dtype=torch.uint8)
    assert VJEPA2EvaluationViews(24, views)(frames).shape == (views, 2, 3, 24, 24)


@pytest.mark.parametrize("name", cases("c3_augment"))
def test_augmentations_of_the_original(name):
    given = case(name)
    for number, row in enumerate(given.rows):
        options = {key: value for key, value in row.items() if key not in ("T", "H", "W", "kind", "seed", "crop_size")}
        if options.get("auto_augment"):  # by Pillow, and differently by each of its versions
            continue
        kind = VJEPA2PretrainingAugmentation if row["kind"] == "pretrain" else VJEPA2ProbeAugmentation
        augment = kind(row["crop_size"], **options)
        random.seed(row["seed"])
        np.random.seed(row["seed"])
        torch.manual_seed(row["seed"])
        actual = augment(given.inputs[f"a{number}"])
        torch.testing.assert_close(actual, given.outputs[f"a{number}"].transpose(0, 1), rtol=0, atol=1e-5)
        following = [random.random(), np.random.uniform(), torch.rand(1).item()]
        assert following == pytest.approx(given.outputs[f"a{number}_next"].tolist())


def test_every_change_of_rand_augment():
    from vidformers.video.rand_augment import CHANGES, rand_augment

    frames = torch.randint(256, (2, 20, 30, 3), dtype=torch.uint8)
    for seed in range(4 * len(CHANGES)):
        random.seed(seed)
        changed = rand_augment(frames.clone(), translate=9)
        assert changed.shape == frames.shape and changed.dtype == torch.uint8
    same = frames[:1].expand(3, -1, -1, -1)
    random.seed(1)
    first, *others = rand_augment(same, translate=9)
    assert all(torch.equal(first, other) for other in others)
    assert VJEPA2ProbeAugmentation(16)(frames).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("kind", [VJEPA2EvaluationViews, VJEPA2PretrainingAugmentation, VJEPA2ProbeAugmentation])
@pytest.mark.parametrize("frames", [torch.zeros(2, 8, 8, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_frames_that_are_none(kind, frames):
    with pytest.raises(ValueError, match="uint8 frames"):
        kind(8)(frames)


def test_ranges_that_are_none():
    with pytest.raises(ValueError, match="scale"):
        VJEPA2PretrainingAugmentation(8, (1.0, 0.5))
    with pytest.raises(ValueError, match="`reprob`"):
        VJEPA2ProbeAugmentation(8, reprob=2.0)


def test_metadata_has_the_rate():
    metadata = VideoFileMetadata(total_num_frames=300, fps=30.0, height=2, width=2, duration=10.0)
    assert (clip_indices(metadata, 8, fps=4, seed=1) == clip_indices(300, 8, fps=4, video_fps=30.0, seed=1)).all()
