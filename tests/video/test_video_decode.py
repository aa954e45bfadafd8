"""Decoding: whatever is asked for, and however the file is made, frames are those of a plain decode from the start."""

import http.server
import io
import pickle
import sys
import threading
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests import video_files
from tests.harness.fresh import succeed_afresh
from tests.video_files import decode_all, packet_places, write_video
from vidformers.video import VideoDecodeError, VideoReader, decode_video, fps_indices, probe_video, uniform_indices


MILLISECONDS = Fraction(1, 1000)
UNEVEN_MS = np.cumsum(np.random.default_rng(0).integers(10, 90, 40)).tolist()
X265 = {"x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=0"}
VPX = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
FILES = {
    "b_frames.mp4": {"b_frames": 3},
    "open_gop.mp4": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "open_gop.mkv": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "open_gop.ts": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "interlaced.mp4": {"b_frames": 2, "options": {"x264-params": "interlaced=1"}},
    "decoding_order.avi": {"b_frames": 3},
    "untimed.h264": {"b_frames": 3},
    "cra.mp4": {"codec": "libx265", "options": X265},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 15, "options": VPX},
    "hidden_frames.webm": {"codec": "libvpx", "gop": 15, "options": VPX},
    "av1.webm": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "pictures.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "drawn.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "variable_rate.mp4": {"b_frames": 2, "pts": UNEVEN_MS, "time_base": MILLISECONDS},
    "variable_rate.mkv": {"b_frames": 2, "pts": UNEVEN_MS, "time_base": MILLISECONDS},
    "negative_times.mp4": {"b_frames": 3, "pts": list(range(-7, 33)), "time_base": Fraction(1, 25)},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "odd_size.mp4": {"height": 37, "width": 51, "pix_fmt": "yuv444p"},
    "odd_size.webm": {"codec": "libvpx-vp9", "height": 37, "width": 51, "options": {"deadline": "realtime"}},
    "one_frame.mp4": {"num_frames": 1},
    "picture.png": {"codec": "png", "num_frames": 1, "pix_fmt": "rgb24"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def file(folder):
    """Writes a file of `FILES` on first use."""

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, **FILES[name])

    return get


@pytest.fixture(scope="module")
def clip(file) -> Path:
    return file("b_frames.mp4")


def assert_same(frames, expected):
    assert len(frames) == len(expected)
    wrong = [index for index, (a, b) in enumerate(zip(frames, expected)) if not np.array_equal(a, b)]
    assert not wrong, f"frames {wrong} differ"


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_a_linear_decode(name, file):
    expected = decode_all(file(name))
    assert probe_video(file(name)).total_num_frames == len(expected)
    frames, metadata = decode_video(file(name))
    assert frames.dtype == np.uint8 and frames.shape == (len(expected), *expected[0].shape)
    assert_same(frames, expected)
    assert metadata.total_num_frames == len(expected)
    assert metadata.frames_indices == list(range(len(expected)))
    assert (metadata.height, metadata.width) == expected[0].shape[:2]
    assert metadata.video_backend == "pyav"
    generator = np.random.default_rng(0)
    for _ in range(12):
        indices = generator.integers(0, len(expected), generator.integers(1, 5))
        frames, metadata = decode_video(file(name), indices)
        assert_same(frames, [expected[index] for index in indices])
        assert metadata.frames_indices == indices.tolist()
        assert metadata.total_num_frames == len(expected)


def test_single_frames_of_a_file_without_presentation_times(file):
    path = file("decoding_order.avi")
    for index, expected in enumerate(decode_all(path)[:12]):
        assert np.array_equal(decode_video(path, [index])[0][0], expected)


@pytest.mark.parametrize(
    "name",
    ["b_frames.mp4", "open_gop.mp4", "open_gop.mkv", "open_gop.ts", "cra.mp4", "vp9.webm", "av1.webm", "mpeg4.mp4"],
)
def test_a_late_frame_is_reached_by_seeking(name, file):
    reader = VideoReader(file(name))
    before = reader.num_decoded_packets
    reader.read([reader.metadata.total_num_frames - 5])
    assert reader.num_decoded_packets - before <= 20


def test_a_ten_minute_video_is_not_decoded_whole(folder):
    path = video_files.write_long_video(folder / "long.mp4")
    reader = VideoReader(path)
    assert reader.metadata.total_num_frames == 18_000 and reader.metadata.duration == 600
    assert reader.num_decoded_packets <= 8  # for the size and rotation
    frames, metadata = reader.read(partial(uniform_indices, num_frames=16))
    # 15 of the 16 frames lie in the middle of their group of 30, or at its start: 8 x 16 + 8 packets hold them all.
    assert reader.num_decoded_packets <= 150
    assert frames.shape == (16, 1080, 1920, 3)
    level = frames[:, :16].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(level, [8 * (index % 30) for index in metadata.frames_indices], atol=3)


def test_metadata_of_variable_rates(file):
    steps = np.diff(UNEVEN_MS)
    metadata = probe_video(file("variable_rate.mp4"))
    shown_ms = UNEVEN_MS[-1] - UNEVEN_MS[0]
    assert shown_ms < metadata.duration * 1000 <= shown_ms + steps.max()
    assert metadata.fps == pytest.approx(40 / metadata.duration)
    assert metadata.frames_indices is None


@pytest.mark.parametrize(
    ("rate", "suffix"), [(25, "mp4"), (Fraction(30000, 1001), "mp4"), (Fraction(30000, 1001), "mkv")]
)
def test_metadata_of_constant_rates(rate, suffix, tmp_path):
    metadata = probe_video(write_video(tmp_path / f"clip.{suffix}", num_frames=60, rate=rate))
    assert metadata.fps == pytest.approx(float(rate), rel=1e-9)
    assert metadata.duration == pytest.approx(60 / rate, abs=2e-3)


@pytest.mark.parametrize(("clockwise", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_is_applied(clockwise, turns, tmp_path):
    path = video_files.set_rotation(write_video(tmp_path / "phone.mp4"), clockwise)
    expected = [np.rot90(frame, turns) for frame in decode_all(path)]
    metadata = probe_video(path)
    assert (metadata.height, metadata.width) == expected[0].shape[:2]
    assert_same(decode_video(path)[0], expected)
    assert_same(decode_video(path, [25])[0], expected[25:26])


def test_edit_list_cuts_the_start(clip, tmp_path):
    path = tmp_path / "edited.mp4"
    path.write_bytes(clip.read_bytes())
    video_files.set_edit_start(path, media_time=15 * 512 + 1024)  # 15 frames, after the delay of the B-frames
    expected = decode_all(clip)[15:]
    assert_same(decode_video(path)[0], expected)
    assert_same(decode_video(path, [3, 20])[0], [expected[3], expected[20]])


def test_ways_to_choose_frames(clip):
    expected = decode_all(clip)
    for sample in (
        [31, 2, 2],
        np.array([31, 2, 2]),
        (31, 2, 2),
        lambda metadata: [metadata.total_num_frames - 9, 2, 2],
    ):
        frames, metadata = decode_video(clip, sample)
        assert_same(frames, [expected[31], expected[2], expected[2]])
        assert metadata.frames_indices == [31, 2, 2]
    frames, metadata = decode_video(clip, [])
    assert frames.shape == (0, 64, 96, 3) and metadata.frames_indices == []
    for outside in ([40], [-1], lambda metadata: [0, metadata.total_num_frames]):
        with pytest.raises(IndexError, match="has 40 frames: expected indices from 0 to 39, got"):
            decode_video(clip, outside)
    for wrong in ([0.5], [[1, 2]], 3):
        with pytest.raises(ValueError, match="flat sequence of integers"):
            decode_video(clip, wrong)


class Pipe(io.RawIOBase):
    """A binary stream that cannot seek."""

    def __init__(self, data):
        self._buffer = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, target):
        return self._buffer.readinto(target)


def test_a_function_that_cannot_choose(clip):
    """Jobs over many videos leave such a one out as they do an unreadable one."""

    def choose(metadata):
        return fps_indices(metadata, fps=60)

    with pytest.raises(VideoDecodeError, match=r"b_frames\.mp4'?: its frames cannot be chosen \(.*60"):
        decode_video(clip, choose)


def test_sources(clip, tmp_path):
    expected = decode_all(clip)[30]
    data = clip.read_bytes()
    read_before = io.BytesIO(data)
    read_before.read(100)
    odd_name = tmp_path / "a:b 100%d.mp4"
    odd_name.write_bytes(data)
    with open(clip, "rb") as opened:
        for source in (clip, str(clip), data, bytearray(data), read_before, opened, Pipe(data), odd_name):
            assert np.array_equal(decode_video(source, [30])[0][0], expected), source
        assert not opened.closed
    with open(clip, encoding="latin1") as text, pytest.raises((TypeError, VideoDecodeError)):
        decode_video(text)
    with pytest.raises(TypeError, match="path, URL, bytes or binary file object to decode, got int"):
        decode_video(3)


def test_urls(clip, folder):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        frames, _ = decode_video(f"{address}/{clip.name}", [30])
        assert np.array_equal(frames[0], decode_all(clip)[30])
        with pytest.raises(VideoDecodeError, match="/absent.mp4: the download failed .*404"):
            decode_video(f"{address}/absent.mp4")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(VideoDecodeError, match="the download failed"):
        decode_video(f"{address}/{clip.name}")


def write_bad_file(kind: str, folder: Path, clip: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "text":
        path.write_text("not a video\n" * 50)
    elif kind == "text_by_name":
        path = folder / "notes.txt"
        path.write_text("not a video\n" * 50)
    elif kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "cut_off_header":
        path = video_files.truncate(clip, 0.5).rename(path)
    elif kind == "audio":
        video_files.write_audio(path)
    elif kind == "no_frames":
        video_files.write_empty_stream(path)
    return path


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("missing", "there is no such file"),
        ("empty", "the file is empty"),
        ("directory", "it is a directory"),
        ("text", "FFmpeg finds no complete video in it"),
        ("text_by_name", "it is a text file"),
        ("cut_off_header", "FFmpeg finds no complete video in it"),
        ("audio", r"it holds no video stream \(found: audio\)"),
        ("no_frames", "its video stream is empty"),
    ],
)
def test_bad_files_are_named_with_their_cause(kind, cause, tmp_path, clip):
    path = write_bad_file(kind, tmp_path, clip)
    for call in (decode_video, probe_video):
        with pytest.raises(VideoDecodeError, match=cause) as caught:
            call(path)
        assert isinstance(caught.value, ValueError) and path.name in str(caught.value)
    if path.is_file():
        with pytest.raises(VideoDecodeError, match="empty" if kind == "empty" else "bytes>|BytesIO"):
            decode_video(path.read_bytes())


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(VideoDecodeError("clip.mp4", "it is empty")))
    assert str(error).startswith("Cannot decode clip.mp4: it is empty. Check")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("header_first.mp4", {"b_frames": 3, "container_options": {"movflags": "faststart"}}),
        ("fragments.mp4", {"b_frames": 3, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("open_gop.mkv", None),
        ("vp9.webm", None),
        ("pictures.avi", None),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2}),
    ],
)
def test_a_file_that_ends_early_gives_whole_frames_only(name, options, file, folder):
    path = file(name) if options is None else write_video(folder / name, **options)
    expected = decode_all(path)
    decoded = 0
    for fraction in np.linspace(0.3, 0.99, 12):
        try:
            frames, metadata = decode_video(video_files.truncate(path, fraction))
        except VideoDecodeError:
            continue
        assert metadata.total_num_frames == len(frames) <= len(expected)
        position = -1
        for frame in frames:  # each is a later frame of the original: none repeats, none is patched up
            position = next(
                (i for i in range(position + 1, len(expected)) if np.array_equal(expected[i], frame)), None
            )
            assert position is not None
        decoded += 0 < len(frames) < len(expected)
    assert decoded >= 4


def middles_of_pictures(path: Path) -> list[float]:
    """Fractions of a file that end in the middle of its four largest pictures, but the first: three key pictures."""
    largest = sorted(packet_places(path)[1:], key=lambda place: place[1])[-4:]
    return [(position + size // 2) / path.stat().st_size for position, size in largest]


@pytest.mark.parametrize("name", ["untimed.h264", "open_gop.ts"])
def test_a_last_picture_cut_in_the_middle_is_dropped(name, file):
    path = file(name)
    expected, fractions = decode_all(path), middles_of_pictures(path)
    assert len(fractions) == 4
    for fraction in fractions:
        frames, _ = decode_video(video_files.truncate(path, fraction))
        assert 0 < len(frames) < len(expected)
        assert all(any(np.array_equal(frame, other) for other in expected) for frame in frames), fraction


def test_a_change_of_frame_size_is_an_error(folder):
    small = write_video(folder / "small.h264", num_frames=10)
    large = write_video(folder / "large.h264", num_frames=10, height=128, width=128)
    with pytest.raises(VideoDecodeError, match="frame 10 is 128x128, the first one 64x96"):
        decode_video(small.read_bytes() + large.read_bytes())


def test_damage_inside_a_file_is_reported(folder, monkeypatch):
    path = write_video(folder / "intact.mp4", num_frames=30, gop=30)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 200] = bytes(200)
    messages = []
    monkeypatch.setattr("vidformers.video.reader.logger.warning", messages.append)
    frames, metadata = decode_video(bytes(data))
    assert len(frames) == metadata.total_num_frames <= 30
    assert any("damaged packet" in message for message in messages)


def test_backends(clip, monkeypatch):
    with pytest.raises(ValueError, match='"pyav" or "torchcodec", got \'decord\''):
        decode_video(clip, backend="decord")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ImportError, match='needs the package torchcodec.*use backend="pyav"'):
        decode_video(clip, backend="torchcodec")


@pytest.mark.parametrize("name", ["b_frames.mp4", "variable_rate.mp4", "vp9.webm", "drawn.gif", "odd_size.mp4"])
def test_torchcodec_gives_the_same(name, file):
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec cannot be loaded: {str(error).splitlines()[0]}")
    for source in (file(name), file(name).read_bytes()):
        frames, metadata = decode_video(source, [7, 3, 3], backend="torchcodec")
        expected, expected_metadata = decode_video(source, [7, 3, 3])
        assert np.array_equal(frames, expected)
        for key in ("total_num_frames", "fps", "height", "width", "duration", "frames_indices"):
            assert metadata[key] == pytest.approx(expected_metadata[key], rel=0.01), key


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_importing_loads_no_decoder():
    succeed_afresh("import sys, vidformers.video, vidformers.video.processor\nassert 'av' not in sys.modules")
