"""Files that other readers get wrong: each frame is the one that a plain decode shows, and what is lacking is said."""

import io
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from tests import video_files
from tests.video_files import decode_all, write_video
from vidformers.video import VideoDecodeError, VideoReader, decode_video, probe_video, uniform_indices
from vidformers.video.decoder import demuxed


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr("vidformers.video.reader.logger.warning", messages.append)
    return messages


def assert_frames(path, expected) -> None:
    """The whole, and every frame alone, are the expected ones."""
    frames, metadata = decode_video(path)
    assert metadata.total_num_frames == len(frames) == len(expected)
    for index, picture in enumerate(expected):
        assert np.array_equal(frames[index], picture), index
        assert np.array_equal(decode_video(path, [index])[0][0], picture), index


@pytest.mark.parametrize("numbers", [[5, 20, 33], [39]])
def test_packets_without_a_picture_are_no_frames(numbers, tmp_path, warnings):
    path = video_files.add_empty_pictures(write_video(tmp_path / "xvid.avi", codec="mpeg4"), numbers)
    expected = decode_all(path)
    assert len(video_files.packet_places(path)) == 40 + len(numbers)
    assert_frames(path, expected)
    assert uniform_indices(probe_video(path), 2, endpoint=True).tolist() == [0, len(expected) - 1]
    assert not warnings and (len(expected) == 40 or numbers == [39])  # FFmpeg shows the last picture again


def test_a_damaged_picture_inside_moves_no_other(tmp_path, warnings):
    path = write_video(tmp_path / "pictures.mov", codec="mjpeg", pix_fmt="yuvj420p")
    expected = decode_all(path)
    damaged = video_files.zero_packet(path, 10)
    assert_frames(damaged, expected[:10] + expected[9:10] + expected[11:])
    assert "damaged10_pictures.mov': 1 damaged packet, the first at frame 10 (0.40 s)" in warnings[0]
    warnings.clear()
    VideoReader(damaged).read([20])
    assert len(warnings) == 1


def test_a_damaged_last_picture_ends_the_video(tmp_path, warnings):
    path = write_video(tmp_path / "pictures.mov", codec="mjpeg", pix_fmt="yuvj420p")
    assert_frames(video_files.zero_packet(path, 39), decode_all(path)[:39])
    assert "breaks off after frame 38 (1.52 s)" in warnings[0]


def shown_by_time(path, times) -> list[np.ndarray]:
    """For each time the newest picture that a plain decode gives, in whichever order they come out of it."""
    with av.open(str(path)) as container:
        stream, pictures = container.streams.video[0], {}
        for packet in container.demux(stream):
            try:
                for frame in stream.codec_context.decode(packet if packet.size else None):
                    pictures[frame.pts * float(stream.time_base)] = frame.to_ndarray(format="rgb24")
            except av.error.FFmpegError:
                pass
    return [pictures[max(time for time in pictures if time <= wanted + 1e-6)] for wanted in times]


OPEN_GOP_HEVC = {"x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=0"}
LOSSES = {
    "key_picture.mp4": ({"b_frames": 3}, 10, 0, bytes(20)),  # those that refer to it are lost too, others come late
    "place_in_order.mp4": ({"codec": "libx265", "options": OPEN_GOP_HEVC}, 17, 7, b"\xd0"),
    "kind_of_picture.mp4": ({"codec": "mpeg4", "b_frames": 2}, 17, 4, b"\x56"),  # the decoder loses it without a word
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_decoder_that_loses_pictures_moves_no_other(name, tmp_path, warnings):
    settings, number, offset, data = LOSSES[name]
    path = write_video(tmp_path / name, **settings)
    times = probe_video(path).frame_seconds
    damaged = video_files.overwrite(path, number, offset, data)
    frames, metadata = decode_video(damaged)
    assert metadata.timestamps == times.tolist() and len(warnings) == 1 and damaged.name in warnings[0]
    assert_frames(damaged, shown_by_time(damaged, times))


@pytest.mark.parametrize("name", ["closed.mp4", "open_gop.mkv"])
def test_damage_that_only_the_decoder_sees_reads_the_same_from_everywhere(name, tmp_path, warnings):
    options = {"qp": "10"} | ({"x264-params": "open-gop=1"} if name == "open_gop.mkv" else {})
    path = write_video(tmp_path / name, b_frames=2, options=options)
    size = video_files.packet_places(path)[15][1]
    damaged = video_files.overwrite(path, 15, size // 2, bytes(range(40)))
    whole, _ = VideoReader(damaged).read()
    for index in range(9, 23):
        assert np.array_equal(decode_video(damaged, [index])[0][0], whole[index]), index
    warnings.clear()
    decode_video(damaged, [15])
    assert [damaged.name in message and "damaged" in message for message in warnings] == [True]


def test_a_picture_at_the_end_that_claims_more_than_is_left(tmp_path):
    """The length of its last unit leads beyond its end: the file breaks off, whatever is asked for."""
    path = write_video(tmp_path / "clip.mp4", b_frames=0)
    damaged = video_files.overwrite(path, 39, 2, b"\x7f")
    assert probe_video(damaged).total_num_frames == len(decode_video(damaged)[0]) == 39


@pytest.mark.parametrize("lacking", [None, 1])
def test_a_transport_stream_that_lost_packets(lacking, tmp_path, warnings):
    """Whole pictures or ends of them are lacking, as after bad reception."""
    path = write_video(tmp_path / "stream.ts", b_frames=2, options={"qp": "10"})
    damaged = video_files.drop_transport_packets(path, 14, lacking)
    whole, metadata = decode_video(damaged)
    for index in (*range(10, 22), 39 - (lacking is None)):
        assert np.array_equal(decode_video(damaged, [index])[0][0], whole[index]), index
    warnings.clear()
    assert probe_video(damaged).total_num_frames == len(whole)
    assert len(warnings) == 1


def test_joined_transport_streams_lose_no_frame(tmp_path):
    path = write_video(tmp_path / "part.ts", b_frames=3)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(path.read_bytes() * 2)
    expected = decode_all(joined)
    assert len(expected) == 80
    assert_frames(joined, expected)


def test_a_stream_that_begins_later_is_passed_by():
    """PyAV raises an IndexError for a packet of a stream that it does not know; what follows is read."""

    class Container:
        left = [1, 2, None, 3, None, None, 4]

        def demux(self, stream):
            while self.left:
                packet = self.left.pop(0)
                if packet is None:
                    raise IndexError("list index out of range")
                yield packet

    assert list(demuxed(Container(), None)) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4"])
def test_a_cut_end_drops_by_time(name, tmp_path, warnings):
    """A picture that is shown later may still be whole: the frame before the gap is the last one."""
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(tmp_path / name, b_frames=3, container_options=options)
    expected = decode_all(path)
    places, data = video_files.packet_places(path), path.read_bytes()
    # The picture of packet 31 is shown after those of packets 32 to 34.
    for number, share in itertools.product((33, 34, 35), (0, 0.5)):  # 0: exactly between two packets
        start, size = places[number]
        path.write_bytes(data[: start + int(share * size)])
        frames, metadata = decode_video(path)
        assert 30 <= len(frames) < number or number == 35
        for index, frame in enumerate(frames):
            assert np.array_equal(frame, expected[index]), (number, index)
        np.testing.assert_allclose(np.diff(metadata.timestamps), 0.04, atol=1e-3)
        assert f"breaks off after frame {len(frames) - 1} (" in warnings[-1]


def test_a_transport_stream_cut_between_packets_is_read_as_it_is(tmp_path, warnings):
    """Nothing in it tells that pictures are lacking: the frames are those that a player shows."""
    path = write_video(tmp_path / "cut.ts", b_frames=3)
    start = video_files.packet_places(path)[33][0]
    path.write_bytes(path.read_bytes()[: start - start % 188])
    expected = decode_all(path)
    assert len(expected) == 33 and not warnings
    assert_frames(path, expected)


MATRICES = [(sign_x, 0, 0, sign_y) for sign_x, sign_y in itertools.product((1, -1), repeat=2)] + [
    (0, sign_x, sign_y, 0) for sign_x, sign_y in itertools.product((1, -1), repeat=2)
]


@pytest.mark.parametrize("numbers", MATRICES, ids=str)
def test_display_matrices_turn_and_mirror(numbers, tmp_path):
    path = write_video(tmp_path / "phone.mp4", num_frames=3)
    expected = np.stack(decode_all(path))
    a, b, c, d = numbers
    video_files.set_matrix(path, numbers)
    frames, metadata = decode_video(path)
    height, width = expected.shape[1:3] if a else expected.shape[2:0:-1]
    assert frames.shape == (3, height, width, 3) and (metadata.height, metadata.width) == (height, width)
    y, x = np.mgrid[: expected.shape[1], : expected.shape[2]]
    shown_x, shown_y = a * x + c * y, b * x + d * y  # ISO/IEC 14496-12, 6.2.2
    moved = np.empty_like(frames)
    moved[:, shown_y - shown_y.min(), shown_x - shown_x.min()] = expected
    assert np.array_equal(frames, moved)


def test_metadata_in_another_encoding(tmp_path):
    path = write_video(tmp_path / "latin.mkv", num_frames=5, metadata={"title": "ABCDEFGH"})
    data = path.read_bytes()
    assert b"ABCDEFGH" in data
    path.write_bytes(data.replace(b"ABCDEFGH", "Müllertü".encode("latin-1")))
    assert len(decode_video(path)[0]) == 5


def test_a_wrong_time_does_not_number_the_frames(tmp_path):
    """One time of a WebM file is flipped: the decoder's order stands, whichever frame is asked for."""
    path = write_video(tmp_path / "vp9.webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"})
    data, expected = bytearray(path.read_bytes()), decode_all(path)
    with av.open(str(path)) as container:
        picture = bytes(next(itertools.islice(container.demux(video=0), 19, None)))
    data[data.index(picture) - 3] ^= 0x20  # the high byte of the block's time
    path.write_bytes(data)
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert times != sorted(times)
    assert_frames(path, expected)


def test_a_picture_without_its_own_tables_takes_those_before(tmp_path):
    """A decoder keeps the tables of a JPEG picture for the next one: such a picture alone must not lose them."""
    path = write_video(tmp_path / "pictures.mov", codec="mjpeg", pix_fmt="yuvj420p")
    data, places = bytearray(path.read_bytes()), video_files.packet_places(path)
    table, lacking = (data.index(b"\xff\xdb", places[number][0]) + 4 for number in (9, 10))
    data[table + 1 : table + 65] = bytes(min(255, 3 * value) for value in data[table + 1 : table + 65])
    data[lacking] = 2  # the picture refers to table 0
    path.write_bytes(data)
    assert_frames(path, decode_all(path))


def test_a_header_that_differs_holds_for_what_follows(tmp_path):
    """The name of an MPEG-4 encoder says how to decode, and the first one stands: no seek may pass by it."""
    path = write_video(tmp_path / "simple.avi", codec="mpeg4")
    data, places = bytearray(path.read_bytes()), video_files.packet_places(path)
    assert len(VideoReader(path).index.keyframe_positions) > 1
    for header in (data.index(b"Lavc", start) for start, _ in places[:2]):
        changed = data.copy()
        changed[header : header + 4] = b"DivX"
        path.write_bytes(changed)
        assert VideoReader(path).index is None
        assert_frames(path, decode_all(path))


@pytest.mark.parametrize("kind", ["picture", "entry", "offset"])
def test_an_index_that_leads_elsewhere_is_not_followed(kind, tmp_path):
    """AVI counts pictures by its index: where it is damaged, a seek comes to another one with the same number."""
    path = write_video(tmp_path / "pictures.avi", codec="mjpeg", pix_fmt="yuvj420p")
    data, (start, _) = bytearray(path.read_bytes()), video_files.packet_places(path)[20]
    entry = data.index(b"idx1") + 8 + 16 * 20
    if kind == "picture":
        data[start - 8 : start - 4] = b"0xdc"
    elif kind == "entry":
        data[entry : entry + 4] = b"zzzz"
    else:
        data[entry + 8] ^= 0x40
    path.write_bytes(data)
    assert_frames(path, decode_all(path))


# ------------------------------------------------------- one pass, workers


def test_read_many_decodes_a_frame_once(tmp_path):
    reader = VideoReader(write_video(tmp_path / "clip.mp4", b_frames=2))
    whole, _ = reader.read()
    before = reader.num_decoded_packets
    windows = [range(start, start + 16) for start in range(0, 25, 4)]
    results = list(reader.read_many([*windows, [3, 39, 3], []]))
    assert reader.num_decoded_packets - before == 40
    for window, (frames, metadata) in zip([*windows, [3, 39, 3], []], results, strict=True):
        assert metadata.frames_indices == list(window)
        assert np.array_equal(frames, whole[list(window)])


def test_a_file_without_picture_data_is_an_error(tmp_path):
    path = write_video(tmp_path / "pictures.mov", codec="mjpeg", pix_fmt="yuvj420p", num_frames=3)
    data = bytearray(path.read_bytes())
    for start, size in video_files.packet_places(path):
        data[start : start + size] = bytes(size)
    with pytest.raises(VideoDecodeError, match="no frame that can be decoded"):
        decode_video(io.BytesIO(data))


# ------------------------------------------------------------------------------------------------------------- by time


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_times_are_those_of_the_file(name, tmp_path):
    milliseconds = np.cumsum(np.random.default_rng(0).integers(10, 90, 40)) + 500
    path = write_video(tmp_path / name, b_frames=2, pts=milliseconds.tolist(), time_base=Fraction(1, 1000))
    with av.open(str(path)) as container:
        seconds = [frame.pts * float(frame.time_base) for frame in container.decode(video=0)]
    frames, metadata = decode_video(path)
    np.testing.assert_allclose(metadata.timestamps, seconds, atol=1e-9)
    np.testing.assert_allclose(np.diff(seconds) * 1000, np.diff(milliseconds), atol=1.1)
    assert decode_video(path, [30, 2])[1].timestamps == [metadata.timestamps[30], metadata.timestamps[2]]
    wanted = [seconds[7] + 0.004, seconds[30], seconds[3]]
    some, chosen = decode_video(path, seconds=wanted)
    assert chosen.frames_indices == [7, 30, 3] and np.array_equal(some, frames[[7, 30, 3]])
    assert decode_video(path, seconds=slice(seconds[5], seconds[9]))[1].frames_indices == [5, 6, 7, 8]
    assert decode_video(path, lambda video: np.flatnonzero(video.frame_seconds > seconds[37]))[0].shape[0] == 2
    with pytest.raises(IndexError, match="shows frames from"):
        decode_video(path, seconds=[seconds[-1] + 1])
    with pytest.raises(ValueError, match="`sample` or `seconds`, got both"):
        decode_video(path, [1], seconds=[1.0])
