"""Real video files for the tests, encoded on the fly: each helper writes one file and returns its path."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(index: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a drifting gradient, a block that moves, and a grey level that tells the index."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([(x * 2 + index * 3) % 256, (y * 2 + index * 5) % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    side = max(2, height // 4)
    left = (index * 3) % max(1, width - side)
    image[:side, left : left + side] = 255 - index % 200
    return image


def write_video(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    height: int = 64,
    width: int = 96,
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    gop: int = 10,
    b_frames: int = 0,
    options: dict | None = None,
    pts: list[int] | None = None,
    time_base: Fraction | None = None,
    container_options: dict | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Encode `num_frames` pictures; `pts`, in units of `time_base`, make the rate variable."""
    options = dict(options or {})
    if codec == "libx264":
        options.setdefault("preset", "veryfast")
        extra = options.pop("x264-params", "")
        options["x264-params"] = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0:{extra}"
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.gop_size = gop
        if codec == "mpeg4":
            stream.codec_context.max_b_frames = b_frames
        if time_base:
            stream.codec_context.time_base = time_base
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index, height, width), format="rgb24").reformat(format=pix_fmt)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base or 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_long_video(path: Path, minutes: int = 10, height: int = 1080, width: int = 1920, gop: int = 30) -> Path:
    """A long video at 30 frames a second: one encoded group of pictures, its packets written again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "40"})
        stream.height, stream.width, stream.pix_fmt, stream.time_base = height, width, "yuv420p", Fraction(1, 30)
        stream.codec_context.gop_size = gop
        image = picture(0, height, width)
        packets = []
        for index in range(gop):
            image[:16, :] = 8 * index
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            packets += stream.encode(frame)
        packets += stream.encode()
        group = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for index in range(minutes * 60 * 30):
            data, is_keyframe = group[index % gop]
            packet = av.Packet(data)
            packet.stream, packet.is_keyframe, packet.time_base = stream, is_keyframe, Fraction(1, 30)
            packet.pts = packet.dts = index
            container.mux(packet)
    return path


def write_audio(path: Path) -> Path:
    """Half a second of silence, no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_empty_stream(path: Path) -> Path:
    """A container that announces a video stream and holds none of its frames."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        container.start_encoding()
    return path


def truncate(path: Path, fraction: float) -> Path:
    """A copy of the file that ends early."""
    data = path.read_bytes()
    cut = path.with_name(f"cut_{path.name}")
    cut.write_bytes(data[: int(len(data) * fraction)])
    return cut


def set_rotation(path: Path, clockwise_degrees: int) -> Path:
    """Writes a rotation into the track header of an mp4, as phones do."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise_degrees]
    return set_matrix(path, (cos, sin, -sin, cos))


def set_matrix(path: Path, numbers: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into the track header of an mp4: a pixel (x, y) is shown at (ax + cy, bx + dy)."""
    a, b, c, d = (number << 16 for number in numbers)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def set_edit_start(path: Path, media_time: int) -> Path:
    """Makes an mp4's edit list start its video later, in the track's time units."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 4 + 8  # version and flags, number of entries
    data[entry + 4 : entry + 8] = struct.pack(">i", media_time)
    path.write_bytes(data)
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(position in the file, size) in bytes of every encoded picture."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, number: int, offset: int, data: bytes) -> Path:
    """A copy of the file in which bytes of one encoded picture are others; its packets must lie bare in it."""
    changed = bytearray(path.read_bytes())
    start = packet_places(path)[number][0] + offset
    changed[start : start + len(data)] = data
    damaged = path.with_name(f"damaged{number}_{path.name}")
    damaged.write_bytes(changed)
    return damaged


def zero_packet(path: Path, number: int) -> Path:
    """A copy of the file in which one encoded picture is zeros."""
    return overwrite(path, number, 0, bytes(packet_places(path)[number][1]))


def drop_transport_packets(path: Path, number: int, count: int | None = None) -> Path:
    """A copy of a transport stream without the last packets, or all, of an encoded picture; no count tells."""
    data, places = path.read_bytes(), packet_places(path)
    stop = places[number + 1][0]
    start = places[number][0] if count is None else stop - 188 * count
    lacking = path.with_name(f"lacks{number}_{path.name}")
    lacking.write_bytes(data[:start] + data[stop:])
    return lacking


def add_empty_pictures(path: Path, numbers: list[int], data: bytes = b"\0\0\1\xb6\x50\x4f") -> Path:
    """A copy of an MPEG-4 file, after some pictures packets that say "nothing changed" (not coded), as Xvid does."""
    target = path.with_name(f"empty_{path.name}")
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        count = 0
        for number, picture in enumerate(packet for packet in source.demux(video=0) if packet.size):
            for content in [bytes(picture)] + [data] * (number in numbers):
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), count, count
                packet.is_keyframe = picture.is_keyframe and content is not data
                container.mux(packet)
                count += 1
    return target


def announce_samples(path: Path, count: int) -> Path:
    """A copy of an mp4 whose table claims that many pictures of one size, which the file needn't hold."""
    data = bytearray(path.read_bytes())
    table = data.index(b"stsz") + 4
    data[table + 4 : table + 12] = struct.pack(">II", 100, count)  # one size for all, and their number
    times = data.index(b"stts") + 4
    data[times + 4 : times + 12] = struct.pack(">II", 1, count)
    crafted = path.with_name(f"announces_{path.name}")
    crafted.write_bytes(data)
    return crafted


def decode_all(source) -> list[np.ndarray]:
    """Every frame (height, width, 3) of a file by a plain decode from its start: what all reading is compared with."""
    with av.open(str(source)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
