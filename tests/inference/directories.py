"""Directories of tiny models, as `from_pretrained` takes them."""

from pathlib import Path
from typing import Any

import vidformers
from tests.specs import SPECS
from tests.video_files import write_video


def directory_of(name: str, folder: Path, **processor: Any) -> tuple[Any, Any]:
    """The tiny model of a class in the shared tests and its family's video processor, also saved in `folder`."""
    spec, model = next((s, m) for s in SPECS for m in s.models if m.name == name)
    built = spec.build(model)
    size = {"height": spec.size.height, "width": spec.size.width}
    made = getattr(vidformers, spec.family.video_processor_class)(
        size=size, do_resize=True, do_center_crop=False, **processor
    )
    built.save_pretrained(folder)
    made.save_pretrained(folder)
    return built.eval(), made


def collection(folder: Path, num_videos: int, num_frames: int) -> None:
    """A model, numbered videos, and `broken.mp4`, which is none, in the folders `model` and `videos` of a folder."""
    directory_of("VJEPA2Model", folder / "model")
    (folder / "videos").mkdir()
    for number in range(num_videos):
        write_video(folder / f"videos/{number}.mp4", num_frames=num_frames)
    (folder / "videos/broken.mp4").write_bytes(b"no video")
