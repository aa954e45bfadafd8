"""What published code uses of torchcodec, for machines where torchcodec or FFmpeg is not installed."""

import sys
from types import ModuleType, SimpleNamespace

import torch

import vidformers


class StandInDecoder:
    """`torchcodec.decoders.VideoDecoder`, as far as pages and model cards go."""

    def __init__(self, source):
        self.source = source

    def get_frames_at(self, indices):
        frames, _ = vidformers.decode_video(self.source, indices)
        return SimpleNamespace(data=torch.from_numpy(frames).permute(0, 3, 1, 2))


def provide_torchcodec(monkeypatch) -> None:
    """Let `from torchcodec.decoders import VideoDecoder` work in a test."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        stand_in = ModuleType("torchcodec.decoders")
        stand_in.VideoDecoder = StandInDecoder
        monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", stand_in)
