#!/usr/bin/env python3
"""Damage video files at random and hold what is read of them against a plain decode.

Usage: python utils/checks/fuzz_video.py [--count 1500] [--seed 0]

Each file must end in one of three ways: *right*, what a plain decode from the start shows, whichever subset is asked
for; *error*, a `VideoDecodeError` that names the file; *fewer*, right up to where the file breaks off. Anything else
is printed with the seed that makes it again, and the exit status is 1.

A frame whose packet decodes to nothing counts as right where it is the picture that a player shows at its time, the
one before. Parts of damaged pictures show whatever lay in the decoder's buffers: pictures that differ between
plain decodes, which give the buffers back at once, at random or never, or decode several pictures at once, are counted
but not compared.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from vidformers.video import VideoDecodeError, decode_video
from vidformers.video.rgb import display_matrix, upright


NUM_FRAMES, HEIGHT, WIDTH = 40, 64, 96
FILES = {
    "b_frames.mp4": ("libx264", {"bf": "3"}, {}),
    "header_first.mp4": ("libx264", {"bf": "3"}, {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", {"bf": "2"}, {"movflags": "frag_keyframe+empty_moov"}),
    "open_gop.mkv": ("libx264", {"bf": "3", "x264-params": "open-gop=1:log-level=0"}, {}),
    "stream.ts": ("libx264", {"bf": "3"}, {}),
    "cra.mp4": ("libx265", {"x265-params": "bframes=3:open-gop=1:log-level=0"}, {}),
    "raw.h264": ("libx264", {"bf": "2"}, {}),
    "pictures.mov": ("mjpeg", {}, {}),
    "pictures.avi": ("mjpeg", {}, {}),
    "divx.avi": ("mpeg4", {"bf": "2"}, {}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}, {}),
    "mpeg2.mpg": ("mpeg2video", {}, {}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, {}),
    "drawn.gif": ("gif", {}, {}),
}


def numbered_picture(number: int) -> np.ndarray:
    """(height, width, 3) uint8: a moving gradient under eight blocks that spell the number in black and white."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([(x * 2 + number * 7) % 256, (y * 3 + number * 5) % 256, (x + y) % 256], -1).astype(np.uint8)
    for bit in range(8):
        picture[:16, 12 * bit : 12 * (bit + 1)] = 255 if number >> bit & 1 else 0
    return picture


def write_file(path: Path) -> bytes:
    """Encode the numbered pictures as the table says for the file's name."""
    codec, options, container_options = FILES[path.name]
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 10
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path.read_bytes()


# ------------------------------------------------------------------------------------------------------------ damage


def cut(data: bytearray, generator: np.random.Generator) -> bytearray:
    """The file's beginning."""
    return data[: int(generator.uniform(0.05, 1.0) * len(data))]


def zero(data: bytearray, generator: np.random.Generator) -> bytearray:
    """A stretch of zeros."""
    length = int(generator.integers(1, max(len(data) // 8, 2)))
    start = int(generator.integers(0, len(data) - length))
    data[start : start + length] = bytes(length)
    return data


def flip(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Some bytes that are others."""
    for position in generator.integers(0, len(data), int(generator.integers(1, 30))):
        data[position] = generator.integers(0, 256)
    return data


def remove(data: bytearray, generator: np.random.Generator) -> bytearray:
    """A stretch that is lacking."""
    length = int(generator.integers(1, max(len(data) // 10, 2)))
    start = int(generator.integers(0, len(data) - length))
    del data[start : start + length]
    return data


def repeat(data: bytearray, generator: np.random.Generator) -> bytearray:
    """The file twice, as joined recordings are."""
    return data + data


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (cut, zero, flip, remove, repeat)


# ------------------------------------------------------------------------------------------------------------- truth


def plain_decode(
    path: Path, keeps: Callable[[], bool] = bool, thread_type: str = "SLICE"
) -> tuple[list[np.ndarray], list[float | None]]:
    """What a player shows: every picture that comes out of the decoder, damage or not, and its time in seconds.

    Args:
        path: of the file.
        keeps: asked after every packet about every frame so far: whether its buffers stay away from the decoder.
        thread_type: "AUTO" decodes several pictures at once.
    """
    pictures, seconds, kept = [], [], []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = thread_type
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except IndexError:  # of a stream that begins here, which PyAV doesn't know
                packets = container.demux(stream)
                continue
            except (StopIteration, av.error.FFmpegError):
                packet = None
            try:
                frames = stream.codec_context.decode(packet) if packet is None or packet.size else []
            except av.error.FFmpegError:
                frames = []
            pictures += [frame.to_ndarray(format="rgb24") for frame in frames]
            seconds += [None if frame.pts is None else frame.pts * float(stream.time_base) for frame in frames]
            kept, frames = [frame for frame in kept + frames if keeps()], []
            if packet is None:
                matrix = matrix_of(path)
                return [upright(picture, matrix) for picture in pictures], seconds


def matrix_of(path: Path) -> tuple[int, ...] | None:
    """The display matrix of the first picture. A frame that was asked for it keeps its buffers for good."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                for frame in stream.codec_context.decode(packet) if packet.size else ():
                    return display_matrix(frame)
        except av.error.FFmpegError:
            pass
    return None


def defined_pictures(path: Path, expected: list[np.ndarray], rounds: int = 1) -> list[bool]:
    """Which pictures depend neither on when the decoder gets its buffers back nor on how many it decodes at once."""
    generator = np.random.default_rng(0)
    shares = (1.0, 0.9, 0.8, 0.7, 0.5, 0.5, 0.3) * rounds
    keepers = [lambda share=share: generator.random() < share for share in shares]
    others = [plain_decode(path, keeps)[0] for keeps in keepers]
    at_once, _ = plain_decode(path, thread_type="AUTO")
    others += [at_once] * (len(at_once) == len(expected))  # some are lost beside a damaged one
    return [all(np.array_equal(first, same) for same in rest) for first, *rest in zip(expected, *others, strict=True)]


def places_of(count: int, times: np.ndarray | None, seconds: list[float | None]) -> list[int] | str:
    """For each frame that was read, the number of the picture that a plain decode shows; or what cannot be.

    Args:
        count: how many frames were read.
        times: (count,) their times in seconds, where the file says.
        seconds: those of the plain decode's pictures.
    """
    by_number = list(range(count))
    if times is None or None in seconds:
        return by_number if count <= len(seconds) else f"{count} frames, a plain decode shows {len(seconds)}"
    order = np.argsort(seconds, kind="stable")  # a decoder that lost pictures may hand others on too late
    order = order[np.append(np.diff(np.array(seconds)[order]) > 0, True)]  # of two for one packet the last stands
    starts = np.array(seconds)[order]
    places = np.maximum(np.searchsorted(starts, times + 1e-6, side="right") - 1, 0).tolist()
    skipped = set(range(max(places))) - set(places)
    if skipped:
        return f"picture {order[min(skipped)]} of a plain decode is no frame"
    return order[places].tolist()


def judge(path: Path, generator: np.random.Generator) -> str:
    """How the file ended: right, error or fewer; anything else says what is wrong."""
    try:
        frames, metadata = decode_video(path)
    except VideoDecodeError as error:
        return "error" if path.name in str(error) else f"the error does not name the file: {error}"
    if metadata.total_num_frames != len(frames):
        return f"{len(frames)} frames of {metadata.total_num_frames}"
    expected, seconds = plain_decode(path)
    is_defined = defined_pictures(path, expected)
    places = places_of(len(frames), metadata.frame_seconds, seconds)
    if isinstance(places, str):
        return places

    def differs(index: int, frame: np.ndarray) -> bool:
        nonlocal is_defined
        place = places[index]
        if not is_defined[place] or np.array_equal(frame, expected[place]):
            return False
        is_defined = defined_pictures(path, expected, rounds=8)  # few decodes may all have met the same memory
        return is_defined[place]

    wrong = [index for index, frame in enumerate(frames) if differs(index, frame)]
    if wrong:
        return f"frames {wrong[:5]} of {len(frames)} differ from a plain decode of {len(expected)}"
    for _ in range(4):
        chosen = generator.integers(0, len(frames), int(generator.integers(1, 4))).tolist()
        try:
            alone, _ = decode_video(path, chosen)
        except (VideoDecodeError, IndexError) as error:
            return f"frames {chosen} alone: {error}"
        wrong = [index for index, frame in zip(chosen, alone, strict=True) if differs(index, frame)]
        if wrong:
            return f"frames {wrong} of {chosen} alone are not those of the whole video"
    return "fewer" if len(frames) < len(expected) else "right"


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """How many files ended in which way, and a line for each that ended in another."""
    intact = {name: write_file(folder / name) for name in FILES}
    outcomes, failures = Counter(), []
    for number in range(seed, seed + count):
        generator = np.random.default_rng(number)
        name = list(FILES)[number % len(FILES)]
        damage = DAMAGES[number // len(FILES) % len(DAMAGES)]
        path = folder / f"{number}_{damage.__name__}_{name}"
        path.write_bytes(damage(bytearray(intact[name]), generator))
        try:
            outcome = judge(path, generator)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if outcome not in ("right", "error", "fewer"):
            failures.append(f"--seed {number} --count 1 ({damage.__name__} {name}): {outcome}")
            outcome = "wrong"
        outcomes[outcome] += 1
        path.unlink()
    return outcomes, failures


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1500, help="number of files")
    parser.add_argument("--seed", type=int, default=0, help="number of the first one")
    options = parser.parse_args()
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = fuzz(options.count, options.seed, Path(folder))
    print(*failures, sep="\n", end="\n" if failures else "")
    print(", ".join(f"{outcomes[name]} {name}" for name in ("right", "fewer", "error", "wrong")))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
