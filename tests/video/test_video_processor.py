"""The video processor base, and V-JEPA 2's: every kind of input, every switch, and the built-in's values."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.video_utils import VideoMetadata

from tests.video.test_video_transform import GOLDEN, frames
from tests.video_files import decode_all, picture, write_video
from vidformers.models.pe_core.video_processing_pe_core import PeCoreVideoProcessor
from vidformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor
from vidformers.video import VideoDecodeError, VideoProcessor
from vidformers.video.inputs import are_files


BUILT_IN_JSON = {  # what transformers 5.23 writes for crop_size=384
    "crop_size": {"height": 384, "width": 384},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "return_metadata": False,
    "size": {"shortest_edge": 438},
    "video_processor_type": "VJEPA2VideoProcessor",
}


def numpy_video(num_frames=4, height=20, width=28):
    return np.stack([picture(7 * index, height, width) for index in range(num_frames)])


def plain(videos, **kwargs):
    """Output of a processor that changes nothing, as (batch, frames, channels, height, width)."""
    return VideoProcessor()(videos, return_tensors="pt", **kwargs)["pixel_values_videos"]


def as_output(*videos):
    return torch.stack([torch.from_numpy(np.array(video)).permute(0, 3, 1, 2) for video in videos])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=20)


A, B = numpy_video(), numpy_video()[::-1]
PIL_A = [PIL.Image.fromarray(frame) for frame in A]
INPUTS = {
    "array": (A, [A]),
    "array with negative strides": (B, [B]),
    "channels first": (A.transpose(0, 3, 1, 2), [A]),
    "tensor": (torch.from_numpy(A), [A]),
    "tensor, channels first": (torch.from_numpy(A).permute(0, 3, 1, 2), [A]),
    "batch array": (np.stack([A, B]), [A, B]),
    "batch tensor": (torch.from_numpy(np.stack([A, B])), [A, B]),
    "list of arrays": ([A, B], [A, B]),
    "list of tensors": ([torch.from_numpy(A), torch.from_numpy(B.copy())], [A, B]),
    "one image": (PIL_A[0], [A[:1]]),
    "one image as array": (A[0], [A[:1]]),
    "list of images": (PIL_A, [A]),
    "tuple of images": (tuple(PIL_A), [A]),
    "list of frames": (list(A), [A]),
    "list of frame tensors": (list(torch.from_numpy(A)), [A]),
    "lists of images": ([PIL_A, PIL_A], [A, A]),
    "lists of frames": ([list(A), list(B)], [A, B]),
    "nested batches": ([[A, B], [A, A]], [A, B, A, A]),
    "mixed": ([PIL_A, torch.from_numpy(A), B], [A, A, B]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_kinds_of_arrays(name):
    videos, expected = INPUTS[name]
    assert torch.equal(plain(videos), as_output(*expected))


def test_kinds_of_files(clip, tmp_path):
    expected = as_output(np.stack(decode_all(clip)))
    for source in (clip, str(clip), clip.read_bytes(), [str(clip)], [[str(clip)]]):
        assert torch.equal(plain(source), expected)
    with open(clip, "rb") as file:
        assert torch.equal(plain(file), expected)
    assert plain([str(clip), [clip]]).shape[0] == 2
    with pytest.raises(VideoDecodeError, match="no such file"):
        plain("absent.mp4")
    paths = []
    for index, image in enumerate(PIL_A):
        paths.append(str(tmp_path / f"{index}.png"))
        image.save(paths[-1])
    assert torch.equal(plain([[paths, paths[::-1]]]), as_output(A, A[::-1]))


class FakeVideoDecoder:
    """What the processor uses of `torchcodec.decoders.VideoDecoder`, over frames (frames, channels, height, width)."""

    def __init__(self, video):
        self.video = video
        fields = {"average_fps": 5.0, "height": 20, "width": 28, "duration_seconds": 0.8}
        self.metadata = type("Metadata", (), fields)

    def __len__(self):
        return len(self.video)

    def get_frames_at(self, indices):
        return type("FrameBatch", (), {"data": self.video[indices]})


def test_torchcodec_decoder():
    decoder = FakeVideoDecoder(torch.from_numpy(A).permute(0, 3, 1, 2))
    assert torch.equal(plain(decoder), as_output(A))
    assert torch.equal(plain([decoder, decoder], num_frames=2), as_output(A[::2], A[::2]))


@pytest.mark.parametrize(
    ("videos", "error", "message"),
    [
        ([], ValueError, "got an empty list"),
        (3, TypeError, "list of such videos; got int"),
        ([None], TypeError, "got NoneType"),
        (A[0, 0], ValueError, r"batch of 5 or an image of 3, got shape \(28, 3\)"),
        (A[None, None], ValueError, "4 dimensions, a batch of 5"),
        (A[:0], ValueError, r"at least one frame and pixel, got shape \(0, 3, 20, 28\)"),
        ([A[0], A[0, :5]], ValueError, "one size"),
        (np.zeros((2, 9, 9, 5)), ValueError, "1, 3 or 4 channels"),
        (np.array([["a"]]), ValueError, "batch of 5"),
        (np.full((1, 2, 2, 3), "a"), ValueError, "video of numbers"),
        (PIL.Image.new("I;16", (4, 4)), ValueError, "8 bits a channel, got mode I;16"),
    ],
)
def test_what_is_no_video(videos, error, message):
    with pytest.raises(error, match=message):
        plain(videos)


def test_unknown_arguments():
    with pytest.raises(TypeError, match=r"unknown arguments \['do_flip'\]"):
        plain(A, do_flip=True)
    with pytest.raises(ValueError, match='"channels_first", as models take it'):
        plain(A, data_format="channels_last")


def test_color_conversion():
    grey = A[..., :1]
    assert torch.equal(plain(grey), as_output(grey.repeat(3, -1)))
    assert plain(grey, do_convert_rgb=False).shape[2] == 1
    assert torch.equal(plain([PIL.Image.fromarray(frame[..., 0]) for frame in A]), as_output(grey.repeat(3, -1)))
    palette = PIL_A[0].quantize(64)
    assert torch.equal(plain(palette), as_output(np.asarray(palette.convert("RGB"))[None]))
    palette.info["transparency"] = bytes(64)
    assert (plain(palette) == 255).all()
    alpha = np.concatenate([A, np.full_like(grey, 255)], axis=-1)
    assert torch.equal(plain(alpha), as_output(A))
    alpha[:, :10, :, 3] = 0
    alpha[:, 10:15, :, 3] = 128
    expected = np.where(np.arange(20)[:, None, None] < 10, 255, A).astype(float)
    expected[:, 10:15] = np.rint((127 * 255.0 + 128.0 * A[:, 10:15]) / 255)
    blended = plain(alpha)
    assert blended.dtype == torch.uint8
    assert torch.equal(blended, as_output(expected.astype(np.uint8)))
    torch.testing.assert_close(plain(alpha / 255.0), blended / 255.0, atol=0.5 / 255, rtol=0, check_dtype=False)
    with pytest.raises(ValueError, match="4 channels, got 3"):
        plain(alpha, do_convert_rgb=False, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def test_channel_axis():
    assert plain(np.zeros((2, 3, 8, 3), dtype=np.uint8)).shape == (1, 2, 3, 8, 3)
    last = plain(np.zeros((2, 3, 8, 3), dtype=np.uint8), input_data_format="channels_last")
    assert last.shape == (1, 2, 3, 3, 8)
    assert plain([np.zeros((2, 8, 9, 3)), np.zeros((2, 3, 8, 9))]).shape == (2, 2, 3, 8, 9)


def test_floats_are_neither_clipped_nor_wrapped():
    video = torch.from_numpy(A).float() * 3 - 200
    assert torch.equal(plain(video)[0], video.permute(0, 3, 1, 2))
    rescaled = plain(video, do_rescale=True)
    torch.testing.assert_close(rescaled[0], video.permute(0, 3, 1, 2) / 255)
    resized = plain(video, do_resize=True, size={"height": 10, "width": 14})
    assert resized.min() < -100 and resized.max() > 400


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64, ">i4", bool])
def test_dtypes(dtype):
    video = (A > 100).astype(dtype)
    assert torch.equal(plain(video).double(), as_output(A > 100).double())


def test_sampling(clip):
    processor = VideoProcessor()
    for video in (str(clip), np.stack(decode_all(clip)), torch.from_numpy(np.stack(decode_all(clip)))):
        output = processor(video, num_frames=4, return_tensors="pt", return_metadata=True)
        expected = as_output(np.stack(decode_all(clip))[[0, 5, 10, 15]])
        assert torch.equal(output["pixel_values_videos"], expected)
        assert output["video_metadata"][0].frames_indices == [0, 5, 10, 15]
        assert output["video_metadata"][0].total_num_frames == 20
        assert plain(video, num_frames=4, do_sample_frames=False).shape[1] == 20
    assert plain(str(clip), fps=5).shape[1] == 4  # 20 frames at 25 a second
    assert plain(A, num_frames=1).shape[1] == 1
    assert VideoProcessor(num_frames=2, do_sample_frames=True)(A)["pixel_values_videos"][0].shape[0] == 2
    assert VideoProcessor(num_frames=2)(A)["pixel_values_videos"][0].shape[0] == 4
    stored = VideoProcessor(num_frames=2, do_sample_frames=True)
    assert stored(str(clip), fps=5)["pixel_values_videos"][0].shape[0] == 4


def test_sampling_errors(clip):
    with pytest.raises(ValueError, match="at least num_frames=30 frames, got 20"):
        plain(str(clip), num_frames=30)
    with pytest.raises(ValueError, match="num_frames or fps, got both"):
        plain(str(clip), num_frames=3, fps=2)
    with pytest.raises(ValueError, match="needs the video's own rate"):
        plain(A, fps=2)
    with pytest.raises(ValueError, match="the video holds 4 frames .its metadata says 40"):
        plain(A, num_frames=3, video_metadata={"total_num_frames": 40, "fps": 10})


def test_metadata(clip):
    processor = VideoProcessor()
    metadata = processor([A, str(clip)], return_metadata=True)["video_metadata"]
    assert [entry.total_num_frames for entry in metadata] == [4, 20]
    assert [entry.height for entry in metadata] == [20, 64] and metadata[1].fps == 25
    given = {"total_num_frames": 4, "fps": 2.0}
    for argument in (given, [given], [[VideoMetadata(**given)]]):
        output = processor(A, fps=1, video_metadata=argument, return_metadata=True)
        assert output["video_metadata"][0].frames_indices == [0, 2]
    with pytest.raises(ValueError, match="each of the 2 videos, got 1"):
        processor([A, B], video_metadata=[given])
    assert "video_metadata" not in processor(A)


def test_unequal_lengths():
    videos = [A, A[:1], A[:3]]
    listed = VideoProcessor()(videos)["pixel_values_videos"]
    assert [len(video) for video in listed] == [4, 1, 3]
    with pytest.raises(ValueError, match=r"videos of \[4, 1, 3\] frames. Pass do_pad=True"):
        plain(videos)
    for return_tensors, kind in (("pt", torch.Tensor), ("np", np.ndarray)):
        output = VideoProcessor(do_pad=True)(videos, return_tensors=return_tensors)
        assert all(isinstance(value, kind) for value in output.values())
        mask = torch.as_tensor(output["padding_mask_videos"])
        assert mask.dtype == torch.bool and mask.sum(1).tolist() == [4, 1, 3]
        pixels = torch.as_tensor(output["pixel_values_videos"])
        assert torch.equal(pixels[2, :3], as_output(A[:3])[0]) and not pixels[~mask].any()
    assert "padding_mask_videos" not in VideoProcessor(do_pad=True)([A, B], return_tensors="pt")


def test_unequal_sizes():
    videos = [A, A[:, :12]]
    assert [video.shape[2] for video in VideoProcessor()(videos)["pixel_values_videos"]] == [20, 12]
    with pytest.raises(ValueError, match=r"unequal frame shapes .*\(3, 12, 28\), \(3, 20, 28\)"):
        plain(videos)
    assert plain(videos, do_resize=True, size={"height": 8, "width": 9}).shape == (2, 4, 3, 8, 9)
    assert plain(videos, do_center_crop=True, crop_size=16).shape == (2, 4, 3, 16, 16)


@pytest.mark.parametrize("num_videos", [1, 2])
def test_results_do_not_depend_on_the_batch_or_its_form(num_videos):
    processor = VJEPA2VideoProcessor(crop_size=16)
    alone = processor(A, return_tensors="pt")["pixel_values_videos"]
    for return_tensors in ("pt", "np", None):
        batch = processor([A] * num_videos, return_tensors=return_tensors)["pixel_values_videos"]
        for video in batch:
            assert torch.equal(torch.as_tensor(video), alone[0])
    assert torch.equal(processor([A, A[:2]])["pixel_values_videos"][0], alone[0])
    assert processor(A, device="cpu", return_tensors="pt")["pixel_values_videos"].is_contiguous()


def test_input_is_left_as_it_was():
    video, before = A.astype(np.float32), A.astype(np.float32)
    VJEPA2VideoProcessor(do_resize=False, do_center_crop=False)(video)
    assert np.array_equal(video, before)


def test_vjepa2_gives_the_values_of_the_built_in():
    output = VJEPA2VideoProcessor(crop_size=14)(frames(), return_tensors="np")["pixel_values_videos"]
    np.testing.assert_array_equal(output, GOLDEN["vjepa2_14"])


def test_vjepa2_against_the_built_in_where_torchvision_is_at_hand():
    try:
        import torchvision  # noqa: F401
        from transformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor as BuiltIn
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    for crop_size in (16, 33, {"height": 24, "width": 40}):
        ours, theirs = VJEPA2VideoProcessor(crop_size=crop_size), BuiltIn(crop_size=crop_size)
        assert {**theirs.to_dict(), "do_convert_rgb": True} == ours.to_dict()
        for switch in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "return_metadata"):
            for video in (A, torch.from_numpy(A).float() * 2 - 99, [A, B.copy()]):
                expected = theirs(video, return_tensors="pt", **{switch: False})["pixel_values_videos"]
                assert torch.equal(
                    ours(video, return_tensors="pt", **{switch: False})["pixel_values_videos"], expected
                )


def test_vjepa2_takes_a_single_image():
    output = VJEPA2VideoProcessor(crop_size=16)(PIL_A[0], return_tensors="pt")["pixel_values_videos"]
    assert output.shape == (1, 1, 3, 16, 16) and output.dtype == torch.float32


def test_vjepa2_reads_and_writes_the_built_ins_json(tmp_path):
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(BUILT_IN_JSON))
    processor = VJEPA2VideoProcessor.from_pretrained(tmp_path)
    assert json.loads(processor.to_json_string()) == {**BUILT_IN_JSON, "do_convert_rgb": True}
    processor.save_pretrained(tmp_path / "saved")
    for again in (VJEPA2VideoProcessor.from_pretrained(tmp_path / "saved"), pickle.loads(pickle.dumps(processor))):
        assert again.to_dict() == processor.to_dict()


def test_vjepa2_sizes(tmp_path):
    assert VJEPA2VideoProcessor().size.shortest_edge == 292
    for crop_size in (384, {"height": 384, "width": 384}):
        processor = VJEPA2VideoProcessor(crop_size=crop_size)
        assert processor.size.shortest_edge == 438 and dict(processor.crop_size) == {"height": 384, "width": 384}
    VJEPA2VideoProcessor().save_pretrained(tmp_path)
    assert VJEPA2VideoProcessor.from_pretrained(tmp_path, crop_size=384).size.shortest_edge == 438
    given = VJEPA2VideoProcessor(crop_size=256, size={"shortest_edge": 256})
    given.save_pretrained(tmp_path)
    assert VJEPA2VideoProcessor.from_pretrained(tmp_path).size.shortest_edge == 256
    for wrong in ({"width": 3}, "256"):
        with pytest.raises(ValueError, match="Expected crop_size in pixels"):
            VJEPA2VideoProcessor(crop_size=wrong)


def test_fetch_videos(clip):
    fetched, metadata = VideoProcessor().fetch_videos(str(clip))
    assert len(fetched) == metadata.total_num_frames == 20
    batches, _ = VideoProcessor().fetch_videos([str(clip), str(clip)], lambda metadata: [1])
    assert [video.shape for video in batches] == [(1, 64, 96, 3)] * 2


# ----------------------------------------------------------------------------------------------------------- by name


def test_frames_are_chosen_by_name(clip, tmp_path):
    expected = np.stack(decode_all(clip))  # 20 frames, 25 a second
    named = VideoProcessor(sampling="middle", num_frames=4, do_sample_frames=True)
    assert torch.equal(named(clip, return_tensors="pt")["pixel_values_videos"], as_output(expected[8:12]))
    by_time = plain(clip, sampling="fps_by_time", fps=50)  # each frame is shown at two ticks
    assert torch.equal(by_time, as_output(expected.repeat(2, axis=0)))
    ends = PeCoreVideoProcessor(do_resize=False, do_rescale=False, do_normalize=False)
    chosen = ends(clip, sampling="uniform", num_frames=2, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(chosen, as_output(expected[[0, 10]]))
    named.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "video_preprocessor_config.json").read_text())["sampling"] == "middle"
    assert VideoProcessor.from_pretrained(tmp_path).sampling == "middle"
    assert "sampling" not in VideoProcessor().to_dict()
    for call in (lambda: VideoProcessor(sampling="random"), lambda: plain(clip, sampling="random", num_frames=2)):
        with pytest.raises(ValueError, match="Expected sampling to be one of uniform, .*got 'random'"):
            call()
    with pytest.raises(ValueError, match='sampling="fps_by_time" needs fps'):
        plain(clip, sampling="fps_by_time", num_frames=2)


# ------------------------------------------------------------------------------------ what other packages wrap them in


class Column(Sequence):
    """Like a column of `datasets`: rows are made when they are asked for."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@dataclass
class FrameBatch:
    """Like torchcodec's frames with their times."""

    data: torch.Tensor
    pts_seconds: torch.Tensor


def test_wrapped_videos(clip):
    expected = as_output(np.stack(decode_all(clip))[:1])
    data = clip.read_bytes()
    rows = [{"path": str(clip), "bytes": None}, {"path": None, "bytes": data}, {"bytes": data}, {"path": str(clip)}]
    for row in rows:
        assert torch.equal(plain(row, num_frames=1), expected)
        assert are_files(row)
    assert plain(rows, num_frames=1).shape[0] == 4
    assert torch.equal(plain(Column([str(clip), rows[1]]), num_frames=1), expected.repeat(2, 1, 1, 1, 1))
    assert are_files(Column([str(clip)])) and not are_files(Column([A]))
    assert torch.equal(plain(Column([A, A])), as_output(A, A))
    batch = FrameBatch(torch.from_numpy(A).permute(0, 3, 1, 2), torch.arange(len(A)) / 25)
    assert torch.equal(plain(batch), as_output(A)) and torch.equal(plain([batch, batch]), as_output(A, A))
    with pytest.raises(TypeError, match="got dict"):
        plain({"video": str(clip)})
