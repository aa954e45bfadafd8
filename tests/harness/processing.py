"""The video processor: real files of every sort and frames in memory become the right model input."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.video_files import decode_all, truncate, write_audio, write_empty_stream, write_video
from vidformers import VideoDecodeError

from .compare import assert_close, pick
from .family_test import FamilyTest, over
from .tolerances import EXACT, PIXELS


def variable_rate(path: Path) -> Path:
    """Twelve frames whose gaps grow."""
    pts = [index * (index + 1) // 2 for index in range(12)]
    return write_video(path, num_frames=12, pts=pts, time_base=Fraction(1, 60))


# What the file is called by, how it is written, and how many frames it has.
FILES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "one_frame": (lambda path: write_video(path, num_frames=1), 1),
    "short": (lambda path: write_video(path, num_frames=3), 3),
    "long": (lambda path: write_video(path, num_frames=150, height=48, width=48), 150),
    "variable_rate": (variable_rate, 12),
    "odd_size": (lambda path: write_video(path, num_frames=4, height=35, width=53, pix_fmt="yuv444p"), 4),
    "smaller_than_the_crop": (lambda path: write_video(path, num_frames=4, height=16, width=24), 4),
}
BAD_FILES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "empty": lambda path: _write(path, b""),
    "text": lambda path: _write(path, b"This is no video, it only has its name.\n" * 30),
    "truncated": lambda path: truncate(write_video(path), 0.3),
    "audio_only": write_audio,
    "no_frames": lambda path: write_empty_stream(path.with_suffix(".avi")),
}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class ProcessingMixin(FamilyTest):
    """Tests of a family's video processor at a tiny size."""

    @over(FILES)
    def test_file(self, kind: str):
        folder = self.temporary_folder()
        write, num_frames = FILES[kind]
        path = write(folder / f"{kind}.mp4")
        processor = self._processor()
        pixels = self._pixels(processor, str(path))
        assert pixels.shape == (1, num_frames, *self.spec.processor.frame_shape)
        assert pixels.dtype == torch.float32
        assert pixels.isfinite().all()
        frames = np.stack(decode_all(path))
        assert_close("file and decoded frames", *_named(self._pixels(processor, frames), pixels), EXACT)

    @over(BAD_FILES)
    def test_bad_file(self, kind: str):
        folder = self.temporary_folder()
        path = BAD_FILES[kind](folder / f"{kind}.mp4")
        with pytest.raises(VideoDecodeError, match=path.name):
            self._processor()(str(path), return_tensors="pt")

    @over(["long", "variable_rate"])
    def test_sampled_frames(self, kind: str):
        folder = self.temporary_folder()
        write, num_frames = FILES[kind]
        path = write(folder / f"{kind}.mp4")
        processor = self._processor()
        everything = self._pixels(processor, str(path))
        expected = everything[:, torch.from_numpy(self.spec.processor.indices(num_frames, 5))]
        sampled = self._pixels(processor, str(path), num_frames=5)
        assert_close("frames sampled while decoding", *_named(expected, sampled), EXACT)

    def test_forms_of_one_video(self):
        folder = self.temporary_folder()
        path = write_video(folder / "video.mp4", num_frames=4)
        frames = np.stack(decode_all(path))  # (T, H, W, C)
        processor = self._processor()
        expected = self._pixels(processor, frames)
        forms = {
            "path": path,
            "bytes": path.read_bytes(),
            "torch, channels first": torch.from_numpy(frames).permute(0, 3, 1, 2),
            "list of arrays": list(frames),
            "list of images": [Image.fromarray(frame) for frame in frames],
            "list of one video": [frames],
            "batch of one": frames[None],
        }
        for name, form in forms.items():
            assert_close(name, *_named(expected, self._pixels(processor, form)), EXACT)

    def test_values(self):
        """A video of one color becomes that color, normalized, whatever resizing does."""
        color = (200, 100, 20)
        video = np.broadcast_to(np.array(color, dtype=np.uint8), (4, 40, 60, 3))
        pixels = self._pixels(self._processor(), video)
        expected = torch.tensor(self.spec.processor.normalized(color)).view(1, 1, 3, 1, 1).expand_as(pixels)
        assert_close("a video of one color", *_named(expected, pixels), PIXELS)

    def test_batch(self):
        processor, generator = self._processor(), np.random.default_rng(0)
        videos = [generator.integers(0, 256, (4, *size, 3), dtype=np.uint8) for size in ((40, 60), (50, 33), (32, 32))]
        together = self._pixels(processor, videos)
        alone = torch.cat([self._pixels(processor, video) for video in videos])
        assert_close("alone and in a batch", *_named(alone, together), EXACT)

    def test_switches(self):
        video = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
        off = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
        pixels = self._pixels(self._processor(), video, **off)
        expected = torch.from_numpy(video).permute(0, 3, 1, 2)[None]
        assert_close("everything switched off", *_named(expected, pixels), EXACT)

    def test_round_trip(self):
        folder = self.temporary_folder()
        processor = self._processor()
        processor.save_pretrained(folder)
        loaded = self.spec.processor_class.from_pretrained(folder)
        assert loaded.to_dict() == processor.to_dict()
        video = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
        expected, actual = (self._pixels(each, video) for each in (processor, loaded))
        assert_close("saved and loaded", *_named(expected, actual), EXACT)

    def test_feeds_the_model(self):
        folder = self.temporary_folder()
        path = write_video(folder / "video.mp4", num_frames=30)
        model = self.spec.processor.feeds or self.spec.models[0]
        batch = self._processor()(str(path), num_frames=self.spec.size.frames, return_tensors="pt")
        with torch.no_grad():
            output = pick(self.spec.build(model)(**batch), model.output)
        assert output.shape == model.output_shape(self.spec.config(model), 1, self.spec.size)
        assert output.isfinite().all()

    def _processor(self):
        return self.spec.processor_class(**self.spec.processor.arguments)

    def _pixels(self, processor, video, **options) -> torch.Tensor:
        return processor(video, return_tensors="pt", **options)[self.spec.processor.output]


def _named(expected: torch.Tensor, actual: torch.Tensor) -> tuple[dict, dict]:
    return {"pixels": expected}, {"pixels": actual}
