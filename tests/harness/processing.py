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
from .family_spec import FamilySpec
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


class ProcessingMixin:
    """Tests of a family's video processor at a tiny size."""

    @pytest.mark.parametrize("kind", FILES)
    def test_file(self, spec: FamilySpec, kind: str, tmp_path):
        write, num_frames = FILES[kind]
        path = write(tmp_path / f"{kind}.mp4")
        processor = self._processor(spec)
        pixels = self._pixels(spec, processor, str(path))
        assert pixels.shape == (1, num_frames, *spec.processor.frame_shape)
        assert pixels.dtype == torch.float32
        assert pixels.isfinite().all()
        frames = np.stack(decode_all(path))
        assert_close("file and decoded frames", *self._named(self._pixels(spec, processor, frames), pixels), EXACT)

    @pytest.mark.parametrize("kind", BAD_FILES)
    def test_bad_file(self, spec: FamilySpec, kind: str, tmp_path):
        path = BAD_FILES[kind](tmp_path / f"{kind}.mp4")
        with pytest.raises(VideoDecodeError, match=path.name):
            self._processor(spec)(str(path), return_tensors="pt")

    @pytest.mark.parametrize("kind", ["long", "variable_rate"])
    def test_sampled_frames(self, spec: FamilySpec, kind: str, tmp_path):
        write, num_frames = FILES[kind]
        path = write(tmp_path / f"{kind}.mp4")
        processor = self._processor(spec)
        everything = self._pixels(spec, processor, str(path))
        expected = everything[:, torch.from_numpy(spec.processor.indices(num_frames, 5))]
        sampled = self._pixels(spec, processor, str(path), num_frames=5)
        assert_close("frames sampled while decoding", *self._named(expected, sampled), EXACT)

    def test_forms_of_one_video(self, spec: FamilySpec, tmp_path):
        path = write_video(tmp_path / "video.mp4", num_frames=4)
        frames = np.stack(decode_all(path))  # (T, H, W, C)
        processor = self._processor(spec)
        expected = self._pixels(spec, processor, frames)
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
            assert_close(name, *self._named(expected, self._pixels(spec, processor, form)), EXACT)

    def test_values(self, spec: FamilySpec):
        """A video of one colour becomes that colour, normalised, whatever resizing does."""
        color = (200, 100, 20)
        video = np.broadcast_to(np.array(color, dtype=np.uint8), (4, 40, 60, 3))
        pixels = self._pixels(spec, self._processor(spec), video)
        expected = torch.tensor(spec.processor.normalised(color)).view(1, 1, 3, 1, 1).expand_as(pixels)
        assert_close("a video of one colour", *self._named(expected, pixels), PIXELS)

    def test_batch(self, spec: FamilySpec):
        processor, generator = self._processor(spec), np.random.default_rng(0)
        videos = [generator.integers(0, 256, (4, *size, 3), dtype=np.uint8) for size in ((40, 60), (50, 33), (32, 32))]
        together = self._pixels(spec, processor, videos)
        alone = torch.cat([self._pixels(spec, processor, video) for video in videos])
        assert_close("alone and in a batch", *self._named(alone, together), EXACT)

    def test_switches(self, spec: FamilySpec):
        video = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
        off = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
        pixels = self._pixels(spec, self._processor(spec), video, **off)
        expected = torch.from_numpy(video).permute(0, 3, 1, 2)[None]
        assert_close("everything switched off", *self._named(expected, pixels), EXACT)

    def test_round_trip(self, spec: FamilySpec, tmp_path):
        processor = self._processor(spec)
        processor.save_pretrained(tmp_path)
        loaded = spec.processor_class.from_pretrained(tmp_path)
        assert loaded.to_dict() == processor.to_dict()
        video = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
        expected, actual = (self._pixels(spec, each, video) for each in (processor, loaded))
        assert_close("saved and loaded", *self._named(expected, actual), EXACT)

    def test_feeds_the_model(self, spec: FamilySpec, tmp_path):
        path = write_video(tmp_path / "video.mp4", num_frames=30)
        model = spec.models[0]
        batch = self._processor(spec)(str(path), num_frames=spec.size.frames, return_tensors="pt")
        with torch.no_grad():
            output = pick(spec.build(model)(**batch), model.output)
        assert output.shape == model.output_shape(spec.config(model), 1, spec.size)
        assert output.isfinite().all()

    @staticmethod
    def _processor(spec: FamilySpec):
        return spec.processor_class(**spec.processor.arguments)

    @staticmethod
    def _pixels(spec: FamilySpec, processor, video, **options) -> torch.Tensor:
        return processor(video, return_tensors="pt", **options)[spec.processor.output]

    @staticmethod
    def _named(expected: torch.Tensor, actual: torch.Tensor) -> tuple[dict, dict]:
        return {"pixels": expected}, {"pixels": actual}
