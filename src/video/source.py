"""What a caller names as a video, opened: that file alone is read, and within limits."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from transformers.utils import logging


logger = logging.get_logger(__name__)

# Demuxers of FFmpeg whose files hold their pictures themselves. All others are refused before a byte of them is
# interpreted: playlists, lists of files, image sequences, session descriptions and devices make FFmpeg open what
# nobody named, and it draws text as pictures.
_FORMATS = (
    "3g2 3gp amv apng asf asf_o av1 avi avs2 avs3 bink bmp_pipe cavsvideo dhav dirac dnxhd dv evc flic flv gif "
    "gif_pipe gxf h261 h263 h264 hevc ivf jpeg_pipe jpegxl_anim jpegxl_pipe live_flv m4a m4v matroska mj2 "
    "mjpeg mjpeg_2000 mov mp4 mpeg mpegts mpegvideo mxf nsv nut nuv obu ogg png_pipe rm roq smjpeg smk swf "
    "tiff_pipe ty vc1 vc1test vivo vvc webm webp webp_pipe wtv yuv4mpegpipe"
).split()
# Characters by which FFmpeg takes a file's name for the pattern of an image sequence.
_PATTERN_CHARACTERS = frozenset("%*?[{")
_CHECK_FILE = "Check that the file is complete (`ffprobe FILE` shows what it holds), or encode it again with ffmpeg."


class VideoDecodeError(ValueError):
    """A video that cannot be read; the message names the file, the cause and a remedy."""

    def __init__(self, name: str, cause: str, remedy: str = _CHECK_FILE):
        super().__init__(f"Cannot decode {name}: {cause}. {remedy}")
        self.name, self.cause, self.remedy = name, cause, remedy

    def __reduce__(self):
        return type(self), (self.name, self.cause, self.remedy)


@dataclass(frozen=True)
class VideoLimits:
    """Bounds that no honest video meets, so that a crafted one cannot fill memory or run for hours.

    Attributes:
        pixels: of a frame, height times width. The default holds 15360 × 8640.
        packets: encoded pictures in a file. The default holds 37 hours at 30 frames a second.
        download_bytes: of a file behind a URL.
        download_seconds: time in all that fetching it may take.
    """

    pixels: int = 2**27
    packets: int = 4_000_000
    download_bytes: int = 2**34
    download_seconds: float = 1800.0


class VideoSource:
    """A video that can be opened again and again.

    A path is opened anew each time, so that a source made of one can be pickled and sent to workers. A file object
    stays the caller's: it has one position, which no two processes can share.

    Args:
        source: as for [`~vidformers.decode_video`].
        limits: what is too large.

    Raises:
        VideoDecodeError: no such file, a folder, a device, an empty file, or a failed download.
        TypeError: something that is no source.
    """

    def __init__(self, source: Any, limits: VideoLimits | None = None):
        self.limits = limits or VideoLimits()
        self.name, self.target = self._resolve(source)
        self._shares_position = hasattr(self.target, "seek") and not isinstance(self.target, io.BytesIO)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        if self._shares_position:
            raise TypeError(
                f"{self.name} is an open file, which no other process can read. Pass its path, or its bytes "
                "(`file.read()`), to send the video to workers."
            )
        return self.__dict__

    def _resolve(self, source: Any) -> tuple[str, Any]:
        """The name for messages, and a path or a seekable file object."""
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            return source, io.BytesIO(_download(source, self.limits))
        if isinstance(source, (str, os.PathLike)):
            return _checked_path(os.fspath(source))
        if isinstance(source, (bytes, bytearray, memoryview)):
            data, name = source, f"<{len(source)} bytes>"
        elif hasattr(source, "read"):
            name = repr(getattr(source, "name", source))
            if hasattr(source, "seekable") and source.seekable() and source.seek(0, os.SEEK_END):
                return name, source
            data = source.read()
        else:
            raise TypeError(
                f"Expected a path, URL, bytes or binary file object to decode, got {type(source).__name__}."
            )
        if isinstance(data, str):
            raise TypeError(f"Expected {name} to be opened in binary mode ('rb'), but it reads text.")
        if not len(data):
            raise VideoDecodeError(name, "it is empty")
        return name, io.BytesIO(data)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The file as a container of PyAV, closed at the end.

        Raises:
            VideoDecodeError: FFmpeg finds no video in it, it is of a format that names other files, or an open file
                object is used in a process other than the one that made this source.
        """
        if self._shares_position and os.getpid() != self._process:
            raise VideoDecodeError(
                self.name,
                "it is an open file of another process, whose position both would move",
                "Pass its path, or its bytes, so that every worker opens the video for itself.",
            )
        with ExitStack() as stack:
            target = self.target
            name = getattr(target, "name", "") if hasattr(target, "seek") else target
            if _PATTERN_CHARACTERS & set(os.path.basename(str(name))):
                target = _Nameless(target if hasattr(target, "seek") else stack.enter_context(open(target, "rb")))
            if hasattr(target, "seek"):
                target.seek(0)
            yield stack.enter_context(self._container(target))

    def _container(self, target: Any) -> Any:
        import av

        protocol = "none" if hasattr(target, "read") else "file"
        options = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": protocol}
        try:
            return av.open(target, options=options, metadata_errors="replace")
        except av.error.ArgumentError as error:
            what = "it is a text file" if _is_text(target) else "it is of a format that names other files or devices"
            cause = f"{what}, not a video; playlists and lists of files are not followed"
            raise VideoDecodeError(self.name, cause, "Pass the file that holds the pictures.") from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoDecodeError(self.name, f"FFmpeg finds no complete video in it ({reason})") from error


class _Nameless:
    """A file whose name FFmpeg doesn't see, which it would take for the pattern of an image sequence."""

    def __init__(self, file: Any):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _checked_path(path: str) -> tuple[str, str]:
    name = repr(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        remedy = "Check the path, and that it is not a model name."
        cause = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise VideoDecodeError(name, cause, remedy) from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoDecodeError(name, "it is a directory", "Pass the path of one video file.")
    if not stat.S_ISREG(status.st_mode):
        raise VideoDecodeError(name, "it is a pipe or a device, which cannot be read twice", "Copy it into a file.")
    if status.st_size == 0:
        raise VideoDecodeError(name, "the file is empty")
    return name, os.path.abspath(path)  # FFmpeg would take a relative path such as a:b.mp4 for a URL


def _is_text(target: Any) -> bool:
    """Whether what FFmpeg refused begins like text."""
    if hasattr(target, "read"):
        target.seek(0)
        head = target.read(512)
    else:
        with open(target, "rb") as file:
            head = file.read(512)
    return b"\0" not in head


def _download(url: str, limits: VideoLimits) -> bytes:
    """The bytes behind a URL, within the limits; a redirect to another host is logged."""
    import time

    from huggingface_hub.utils import httpx

    remedy, deadline = "Check the address and the network.", time.monotonic() + limits.download_seconds
    data = bytearray()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=60) as response:
            response.raise_for_status()
            if response.url.host != urlsplit(url).hostname:
                logger.warning(f"{url}: was redirected to another host, {response.url.host}.")
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > limits.download_bytes:
                    cause = f"the download is larger than {limits.download_bytes:,} bytes"
                    raise VideoDecodeError(url, cause, "Raise `VideoLimits.download_bytes` if that is right.")
                if time.monotonic() > deadline:
                    cause = f"the download takes longer than {limits.download_seconds:g} seconds"
                    raise VideoDecodeError(url, cause, "Fetch the file first, or raise `download_seconds`.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise VideoDecodeError(url, f"the download failed ({error})", remedy) from error
    return bytes(data)


def video_stream(source: VideoSource, container: Any, thread_type: str, *, strict: bool = True) -> Any:
    """The first video stream that is not a cover picture, ready to decode.

    Args:
        source: what the container was opened from.
        container: of PyAV.
        thread_type: "AUTO", or "SLICE" where every packet's frames must be known at once.
        strict: whether damage is an error of the decoder, which would otherwise patch pictures up.

    Raises:
        VideoDecodeError: there is no such stream, no decoder for it, or its pictures are larger than the limit.
    """
    from av.stream import Disposition

    limits = source.limits
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise VideoDecodeError(source.name, "this build of FFmpeg has no decoder for its video codec")
        if stream.frames > limits.packets:
            raise too_many_packets(source, stream.frames)
        if stream.width * stream.height > limits.pixels:
            cause = f"its frames are {stream.width} × {stream.height}, more than {limits.pixels:,} pixels"
            raise VideoDecodeError(source.name, cause, "Raise `VideoLimits.pixels` if that is right.")
        stream.thread_type = thread_type
        # A later picture may claim to be larger. The decoder counts margins too.
        options = {"max_pixels": str(2 * limits.pixels + 2**20)}
        stream.codec_context.options = options | ({"err_detect": "+explode"} if strict else {})
        return stream
    found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
    raise VideoDecodeError(source.name, f"it holds no video stream (found: {found})", "Pass a file with pictures.")


def too_many_packets(source: VideoSource, count: int) -> VideoDecodeError:
    """The error for a file with more packets than the limit."""
    cause = f"it has {count:,} packets or more, the limit is {source.limits.packets:,}"
    return VideoDecodeError(source.name, cause, "Cut it into parts, or raise `VideoLimits.packets`.")
