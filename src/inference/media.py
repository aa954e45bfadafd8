"""What clips with labels are made of, videos or images. They are read when used."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vidformers.video import VideoDecodeError, probe_video
from vidformers.video.inputs import unwrapped

from .clips import VIDEO_SUFFIXES, files_below


IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
_SAVE_AGAIN = "Check that it is a complete picture, or save it again with 8 bits a channel, as PNG or JPEG."


@dataclass(frozen=True)
class Clip:
    """A video and the number of its class.

    Attributes:
        name: what messages call it.
        label: the number of its class.
        source: its file, or a row of a data set.
    """

    name: str
    label: int
    source: Any

    def open(self) -> Any:
        """What [`~vidformers.decode_video`] takes."""
        return self.source() if callable(self.source) else self.source

    def check(self) -> None:
        """Open the video and decode its first frame.

        Raises:
            VideoDecodeError: it cannot be read.
        """
        probe_video(self.open())


@dataclass(frozen=True)
class ImageClip(Clip):
    """An image and the number of its class."""

    def check(self) -> None:
        """Open the image. Its pixels are not read.

        Raises:
            VideoDecodeError: it is none.
        """
        with self._opened():
            pass

    def read(self) -> np.ndarray:
        """The image, upright.

        Returns:
            uint8 (H, W, 3).

        Raises:
            VideoDecodeError: it cannot be read, or has not 8 bits a channel.
        """
        with self._opened() as image:
            mode, pixels = image.mode, np.array(ImageOps.exif_transpose(image).convert("RGB"))
        if mode[0] in "FI":
            raise VideoDecodeError(self.name, f"it has the mode {mode}, not one of 8 bits a channel", _SAVE_AGAIN)
        return pixels

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            source = self.open()
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                yield image
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoDecodeError(self.name, f"it is no image that can be read ({error})", _SAVE_AGAIN) from error


@dataclass(frozen=True)
class Row:
    """A video or image in a row of a data set, fetched when it is called."""

    rows: Any
    index: int
    column: str

    def __call__(self) -> Any:
        """A path or bytes."""
        return unwrapped(self.rows[self.index][self.column])


@dataclass(frozen=True)
class Medium:
    """How clips of a kind are found.

    Attributes:
        kind: their class.
        called: their files, in messages.
        suffixes: what folders are searched for.
        feature: type of the column of a data set of `datasets` that holds them.
        columns: names of such a column, where none has the type.
    """

    kind: type[Clip]
    called: str
    suffixes: frozenset[str]
    feature: str
    columns: tuple[str, ...]

    def clips_below(self, folder: Path, label: int = 0) -> list[Clip]:
        """The files in a folder and its subfolders, sorted, as clips of a class."""
        return [self.kind(str(file), label, file) for file in files_below(folder, self.suffixes)]


VIDEOS = Medium(Clip, "video files", VIDEO_SUFFIXES, "Video", ("video", "path", "file"))
IMAGES = Medium(ImageClip, "images", IMAGE_SUFFIXES, "Image", ("image", "path", "file"))
