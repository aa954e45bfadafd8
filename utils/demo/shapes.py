"""Clips of one moving shape and sentences about them: what the demo model learns from and is shown.

A scene is a color, a shape and a motion; everything else about a clip is random: where the shape is, its size, tilt
and speed, the shade of its color, and the background.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np


COLORS = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.75, 0.2),
    "blue": (0.2, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.15),
    "purple": (0.65, 0.2, 0.8),
    "white": (0.95, 0.95, 0.95),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Direction in x, in y (downwards) and in the logarithm of the size.
MOTIONS = {
    "moves left": (-1, 0, 0),
    "moves right": (1, 0, 0),
    "moves up": (0, -1, 0),
    "moves down": (0, 1, 0),
    "grows": (0, 0, 1),
    "shrinks": (0, 0, -1),
}
PARTICIPLES = {
    motion: motion.replace("moves", "moving").replace("grows", "growing").replace("shrinks", "shrinking")
    for motion in MOTIONS
}

TEMPLATES = (
    "a {color} {shape} {motion}",
    "a {color} {shape} {participle}",
    "a {color} {shape} that {motion}",
    "the {shape} {motion} and is {color}",
    "a video of a {participle} {shape}, {color}",
)
# What is said of one attribute alone.
PARTIAL_TEMPLATES = {
    "color": ("{color}", "a {color} shape", "something {color}", "it is {color}"),
    "shape": ("{shape}", "a {shape}", "the shape is a {shape}", "a video of a {shape}"),
    "motion": ("it {motion}", "something {participle}", "{participle}", "a shape that {motion}"),
}


@dataclass(frozen=True)
class Scene:
    """What a clip shows."""

    color: str
    shape: str
    motion: str

    def caption(self, template: str = TEMPLATES[0]) -> str:
        """The template with this scene's words."""
        return template.format(
            color=self.color, shape=self.shape, motion=self.motion, participle=PARTICIPLES[self.motion]
        )


SCENES = tuple(Scene(*words) for words in product(COLORS, SHAPES, MOTIONS))
_ORDER = [list(words) for words in (COLORS, SHAPES, MOTIONS)]
# One motion of each color and shape together is kept from training: 24 of the 144 scenes.
HELD_OUT = tuple(
    scene
    for scene in SCENES
    if sum(_ORDER[axis].index(word) for axis, word in enumerate((scene.color, scene.shape, scene.motion))) % 6 == 0
)
TRAINING = tuple(scene for scene in SCENES if scene not in HELD_OUT)


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far points (u, v) lie outside a shape of about unit radius; negative inside."""
    if shape == "circle":
        return np.sqrt(u**2 + v**2) - 0.95
    u, up = abs(u), v
    v = abs(v)
    if shape == "square":
        return np.maximum(u, v) - 0.85
    if shape == "triangle":
        return np.maximum(up, 0.866 * u - 0.5 * up) - 0.6
    if shape == "cross":
        return np.maximum(np.maximum(u, v) - 1, np.minimum(u, v) - 0.33)
    raise ValueError(f"Expected a shape among {', '.join(SHAPES)}, got {shape!r}.")


def cover(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray | float, tilt: float) -> np.ndarray:
    """How much of a pixel the shape covers, (…, 1) from 0 to 1.

    Args:
        shape: one of `SHAPES`.
        x, y: (…), the pixel's place from the shape's center, in units of its radius.
        radius: in pixels.
        tilt: in radians.
    """
    u, v = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    return (0.5 - distance(shape, u, v) * radius).clip(0, 1)[..., None]


def render(scene: Scene, rng: np.random.Generator, num_frames: int, side: int) -> np.ndarray:
    """Draw a clip: (num_frames, side, side, 3) uint8. `rng` decides all that the scene does not tell."""
    towards_x, towards_y, growth = MOTIONS[scene.motion]
    times = (np.arange(num_frames, dtype=np.float32) / num_frames - 0.45)[:, None, None]  # (T, 1, 1)
    travel, radius = rng.uniform(0.4, 0.6), rng.uniform(0.19, 0.27)
    left, top = 0.5 + rng.uniform(-0.08, 0.08, 2)
    sizes = radius * np.exp(growth * rng.uniform(0.8, 1.4) * times)
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) / side
    x = (x - left - towards_x * travel * times) / sizes
    y = (y - top - towards_y * travel * times) / sizes
    coverage = cover(scene.shape, x, y, sizes * side, rng.uniform(-0.15, 0.15))  # (T, side, side, 1)

    color = np.clip(np.array(COLORS[scene.color]) + rng.uniform(-0.07, 0.07, 3), 0, 1).astype(np.float32)
    ends = rng.uniform(0, 0.35, (2, 1, 1, 3)).astype(np.float32)
    ramp = np.linspace(0, 1, side, dtype=np.float32)
    ramp = ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
    background = ends[0] + (ends[1] - ends[0]) * ramp  # (side, side, 3) once broadcast
    noise = rng.normal(0, 0.02, (1, side, side, 1)).astype(np.float32)
    image = background + coverage * (color - background) + noise
    return (255 * image.clip(0, 1)).round().astype(np.uint8)


def write_clip(path: Path, frames: np.ndarray, frames_per_second: int = 24) -> Path:
    """Encode frames (T, height, width, 3) as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frames_per_second, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, frames_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
