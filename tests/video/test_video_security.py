"""Only what the caller named is read, within limits; readers go to workers."""

import http.server
import io
import multiprocessing
import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests import video_files
from tests.harness.fresh import succeed_afresh
from tests.video_files import decode_all, write_video
from vidformers.video import VideoDecodeError, VideoLimits, VideoReader, decode_video, probe_video


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the folder, notes what is asked for, and has a slow and a redirected address."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/elsewhere.mp4":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/clip.mp4")
            self.end_headers()
        elif self.path == "/slow.mp4":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                self.wfile.write(bytes(1000))
                self.wfile.flush()
                time.sleep(0.05)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    return write_video(folder / "clip.mp4", num_frames=10)


@pytest.fixture(scope="module")
def server(folder, clip):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder)))
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("suffix", ["m3u8", "mp4", "ts"])
def test_playlists_are_not_followed(suffix, folder, server, clip, tmp_path):
    write_video(folder / "part.ts", num_frames=10)
    for part in (f"http://127.0.0.1:{server.server_port}/part.ts", str(folder / "part.ts")):
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n"
        check_refused(tmp_path / f"list.{suffix}", text)
    assert not any("part.ts" in path for path in server.asked)


def test_no_format_can_open_more(folder, server, clip, tmp_path, monkeypatch):
    """Were a demuxer that follows playlists let in, FFmpeg would still open nothing but the file itself."""
    monkeypatch.setattr("vidformers.video.source._FORMATS", ["hls", "mpegts"])
    write_video(folder / "part.ts", num_frames=10)
    playlist = tmp_path / "list.m3u8"
    for part in (f"http://127.0.0.1:{server.server_port}/part.ts", str(folder / "part.ts")):
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n")
        with open(playlist, "rb") as opened, pytest.raises(VideoDecodeError):
            decode_video(opened)
    assert not any("part.ts" in path for path in server.asked)


@pytest.mark.parametrize("suffix", ["ffconcat", "mp4", "txt"])
def test_lists_of_files_are_not_followed(suffix, clip, tmp_path):
    check_refused(tmp_path / f"list.{suffix}", f"ffconcat version 1.0\nfile '{clip}'\n")


def test_session_descriptions_are_not_followed(tmp_path):
    text = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    start = time.monotonic()
    check_refused(tmp_path / "session.sdp", text + "a=rtpmap:96 H264/90000\n")
    assert time.monotonic() - start < 5


def check_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with open(path, "rb") as opened:
        for source in (path, str(path), text.encode(), io.BytesIO(text.encode()), opened):
            with pytest.raises(VideoDecodeError):
                decode_video(source)


def test_image_sequences_are_files(tmp_path):
    for number in (1, 2, 3):
        write_video(tmp_path / f"p{number}.png", codec="png", num_frames=1, pix_fmt="rgb24")
    with pytest.raises(VideoDecodeError, match="no such file"):
        decode_video(tmp_path / "p%d.png")
    (tmp_path / "p%d.png").write_bytes((tmp_path / "p2.png").read_bytes())
    assert len(decode_video(tmp_path / "p%d.png")[0]) == 1


def test_a_relative_path_is_no_address(clip, tmp_path, monkeypatch):
    (tmp_path / "file:clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert probe_video("file:clip.mp4").total_num_frames == 10


def test_protocols_of_ffmpeg_are_no_addresses(clip):
    for address in (f"file:{clip}", f"concat:{clip}|{clip}", "rtsp://127.0.0.1/x", "ftp://127.0.0.1/x.mp4", "data:,x"):
        with pytest.raises(VideoDecodeError, match="no such file"):
            decode_video(address)


# -------------------------------------------------------------------------------------------------------------- limits


def test_large_pictures(clip):
    assert probe_video(clip, VideoLimits(pixels=64 * 96)).total_num_frames == 10
    with pytest.raises(VideoDecodeError, match="clip.mp4.* frames are 96 × 64, more than 6,143 pixels"):
        decode_video(clip, limits=VideoLimits(pixels=64 * 96 - 1))


def test_many_packets(clip, tmp_path):
    limits = VideoLimits(packets=9)
    with pytest.raises(VideoDecodeError, match="clip.mp4.*has 10 packets or more, the limit is 9"):
        decode_video(clip, limits=limits)
    untold = write_video(tmp_path / "untold.ts", num_frames=30)  # no header tells how many there are
    with pytest.raises(VideoDecodeError, match="untold.ts.*has 10 packets or more, the limit is 9"):
        decode_video(untold, limits=limits)


def test_a_crafted_header_ends_at_once(clip, tmp_path):
    crafted = tmp_path / clip.name
    crafted.write_bytes(clip.read_bytes())
    crafted = video_files.announce_samples(crafted, 5_000_000)
    start = time.monotonic()
    with pytest.raises(VideoDecodeError, match="announces_clip.mp4.*5,000,000 packets or more"):
        decode_video(crafted)
    assert time.monotonic() - start < 5


def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/zero"):
        with pytest.raises(VideoDecodeError, match="pipe or a device"):
            decode_video(path)


def test_downloads(server, clip, monkeypatch):
    messages = []
    monkeypatch.setattr("vidformers.video.source.logger.warning", messages.append)
    address = f"http://127.0.0.1:{server.server_port}"
    assert np.array_equal(decode_video(f"{address}/clip.mp4", [3])[0][0], decode_all(clip)[3]) and not messages
    with pytest.raises(VideoDecodeError, match="larger than 1,000 bytes"):
        decode_video(f"{address}/clip.mp4", limits=VideoLimits(download_bytes=1000))
    with pytest.raises(VideoDecodeError, match="longer than 0.2 seconds"):
        decode_video(f"{address}/slow.mp4", limits=VideoLimits(download_seconds=0.2))
    assert len(decode_video(f"{address}/elsewhere.mp4")[0]) == 10
    assert messages == [f"{address}/elsewhere.mp4: was redirected to another host, localhost."]


# ------------------------------------------------------------------------------------------------------------- workers


def read_frame(reader: VideoReader, index: int) -> np.ndarray:
    return reader.read([index])[0][0]


def read_frame_or_error(index: int) -> np.ndarray | str:
    try:
        return SHARED.read([index])[0][0]
    except VideoDecodeError as error:
        return str(error)


def test_a_reader_can_be_pickled(clip):
    reader, expected = VideoReader(clip), decode_all(clip)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.metadata.frame_seconds.tolist() == reader.metadata.frame_seconds.tolist()
    assert copy.num_decoded_packets == reader.num_decoded_packets  # it was not indexed again
    for each in (copy, pickle.loads(pickle.dumps(VideoReader(clip.read_bytes())))):
        assert np.array_equal(read_frame(each, 7), expected[7])


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_a_reader_goes_to_spawned_workers(clip, tmp_path):
    """A worker gets what is pickled, and nothing else of this process."""
    (tmp_path / "reader").write_bytes(pickle.dumps(VideoReader(clip)))
    code = """
import pickle, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
np.save(folder / "frame.npy", pickle.loads((folder / "reader").read_bytes()).read([7])[0][0])
"""
    succeed_afresh(code, tmp_path)
    assert np.array_equal(np.load(tmp_path / "frame.npy"), decode_all(clip)[7])


def test_an_open_file_stays_in_its_process(clip):
    global SHARED
    with open(clip, "rb") as opened:
        SHARED = VideoReader(opened)
        with pytest.raises(TypeError, match="open file, which no other process can read. Pass its path"):
            pickle.dumps(SHARED)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert "open file of another process" in pool.apply(read_frame_or_error, (7,))
        assert np.array_equal(read_frame(SHARED, 7), decode_all(clip)[7])
