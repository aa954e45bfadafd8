"""Decoded frames as upright RGB."""

from typing import Any

import numpy as np

from .metadata import VideoFileMetadata
from .source import VideoDecodeError


class RgbConverter:
    """Decoded frames to upright uint8 RGB arrays (height, width, 3) of one size."""

    def __init__(self, name: str, metadata: VideoFileMetadata, matrix: tuple[int, ...] | None):
        from av.video.reformatter import VideoReformatter

        self.name, self.shape, self.matrix = name, (metadata.height, metadata.width), matrix
        self.reformatter = VideoReformatter()  # keeps its scaler, which costs more to build than to run

    def __call__(self, frame: Any, index: int) -> np.ndarray:
        shape = (frame.width, frame.height) if swaps_axes(self.matrix) else (frame.height, frame.width)
        if shape != self.shape:
            cause = f"frame {index} is {shape[0]}x{shape[1]}, the first one {self.shape[0]}x{self.shape[1]}"
            raise VideoDecodeError(self.name, cause, "Encode it again at one frame size.")
        rgb = self.reformatter.reformat(frame, format="rgb24").to_ndarray()
        return upright(rgb, self.matrix)


def upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """A picture (height, width, 3) as a display matrix says to show it: turned by quarters and mirrored.

    Args:
        picture: as it was decoded.
        matrix: the nine numbers of ISO/IEC 14496-12, 6.2.2, by rows: (x, y) is shown at (ax + cy, bx + dy), with a and
            b the first two of them, c and d those of the second row. Other angles count as the nearest quarter.
    """
    if matrix is None:
        return picture
    a, b, _, c, d = matrix[:5]
    x, y = a, d
    if swaps_axes(matrix):
        picture, x, y = picture.transpose(1, 0, 2), c, b
    if x < 0:
        picture = picture[:, ::-1]
    return picture[::-1] if y < 0 else picture


def swaps_axes(matrix: tuple[int, ...] | None) -> bool:
    """Whether a display matrix lays a picture on its side."""
    return matrix is not None and abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The display matrix that comes with a frame, `None` for one that is shown as it is."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return tuple(np.frombuffer(bytes(data), dtype=np.int32).tolist())
    return None
