"""Videos to tokens: tubelet embedding, and the grid that the tokens lie on.

Shapes: B videos, T frames, C channels, H × W pixels; a tubelet covers t frames of p × p pixels.
"""

import warnings
from typing import NamedTuple

import torch
from torch import nn

from .modules import is_plain, to_dtype_of


class Grid(NamedTuple):
    """Number of tokens along time, height and width, in the order in which tokens are laid out."""

    t: int
    h: int
    w: int

    @property
    def num_tokens(self) -> int:
        return self.t * self.h * self.w


PatchSize = int | tuple[int, int]
"""Height and width of a patch in pixels; one number for squares."""


def patch_sides(patch_size: PatchSize) -> tuple[int, int]:
    """Height and width of a patch."""
    return (patch_size, patch_size) if isinstance(patch_size, int) else patch_size


def cut_to_tubelets(video: torch.Tensor, tubelet_size: int, patch_size: PatchSize) -> tuple[torch.Tensor, Grid]:
    """Cut the frames and pixels at the end that fill no whole tubelet, as a strided convolution would.

    Args:
        video: (B, T, C, H, W).
        tubelet_size: frames in a tubelet.
        patch_size: pixels along the sides of a patch.

    Returns:
        The video, (B, T', C, H', W') with T', H' and W' divisible, and its grid. What is cut is named in one warning.

    Raises:
        ValueError: no whole tubelet is left.
    """
    num_frames, _, height, width = video.shape[1:]
    rows, columns = patch_sides(patch_size)
    grid = Grid(num_frames // tubelet_size, height // rows, width // columns)
    kept = video[:, : grid.t * tubelet_size, :, : grid.h * rows, : grid.w * columns]
    if torch.compiler.is_compiling():
        return kept, grid

    if min(grid) < 1:
        raise ValueError(
            f"No whole tubelet fits into {num_frames} frame(s) of {height} × {width} pixels: the model needs at least "
            f"{tubelet_size} frame(s) of {rows} × {columns}. Sample more frames or resize the video."
        )
    cuts = [
        f"{axis} from {size} to {count * step}"
        for axis, size, count, step in (
            ("frames", num_frames, grid.t, tubelet_size),
            ("height", height, grid.h, rows),
            ("width", width, grid.w, columns),
        )
        if size != count * step
    ]
    if not cuts:
        return video, grid
    warnings.warn(
        f"The video does not divide into tubelets of {tubelet_size} frame(s) and {rows} × {columns} pixels; "
        f"its end was cut, as the original model does: {', '.join(cuts)}. Sample a multiple of {tubelet_size} frames "
        f"and resize to multiples of {rows} × {columns} pixels to keep everything.",
        stacklevel=2,
    )
    return kept, grid


def tubelets_of(
    video: torch.Tensor, grid: Grid, tubelet_size: int, patch_size: PatchSize, token_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """The pixels of tubelets, all or those asked for.

    Args:
        video: (B, T, C, H, W), divisible into tubelets.
        grid: the video's token grid.
        tubelet_size: frames in a tubelet.
        patch_size: pixels along the sides of a patch.
        token_ids: (M·B, K) integers on `grid`: M selections of K tokens from every video, selection by selection.

    Returns:
        (B, grid.num_tokens, C, t, p, p), or (M·B, K, C, t, p, p) with `token_ids`.
    """
    rows, columns = patch_sides(patch_size)
    tubelets = video.reshape(video.shape[0], grid.t, tubelet_size, video.shape[2], grid.h, rows, grid.w, columns)
    tubelets = tubelets.permute(0, 1, 4, 6, 3, 2, 5, 7)  # (B, grid t, grid h, grid w, C, t, p, p)
    if token_ids is None:
        return tubelets.flatten(1, 3)
    time, row, column = split_token_ids(token_ids, grid)
    videos = _sequence_numbers(token_ids, video.shape[0])
    return tubelets[videos, time, row, column]


def embed_video(projection: nn.Conv3d, video: torch.Tensor) -> torch.Tensor:
    """Embed all tubelets of videos by a convolution whose stride is its kernel.

    Args:
        projection: from C to D channels, with tubelets as kernel and stride.
        video: (B, T, C, H, W), divisible by the kernel, in any floating dtype.

    Returns:
        (B, N, D), in the dtype of the projection.
    """
    video = to_dtype_of(projection, video)
    if (video.is_cuda or video.element_size() < 4) and is_plain(projection):
        return _multiply(projection, video)
    return projection(video.transpose(1, 2)).flatten(2).transpose(1, 2).contiguous()


def _multiply(projection: nn.Conv3d, video: torch.Tensor) -> torch.Tensor:
    """What the convolution computes, as a product of matrices: in half precision six to twenty times as fast.

    In float32 on a CPU it would spare less than 1 % of a model's time.
    """
    num_frames, _, height, width = video.shape[1:]
    depth, *sides = projection.kernel_size
    grid = Grid(num_frames // depth, height // sides[0], width // sides[1])
    tubelets = tubelets_of(video, grid, depth, (sides[0], sides[1])).flatten(2)  # (B, N, C·t·p·p)
    return nn.functional.linear(tubelets, projection.weight.flatten(1), projection.bias)


def embed_tubelets(projection: nn.Conv3d, tubelets: torch.Tensor) -> torch.Tensor:
    """Embed tubelets that [`tubelets_of`] cut out, by the same convolution: side by side, as patches of one row.

    Args:
        projection: from C to D channels, with tubelets as kernel and stride.
        tubelets: (B, K, C, t, p, p), in any floating dtype.

    Returns:
        (B, K, D), in the dtype of the projection.
    """
    row = to_dtype_of(projection, tubelets).permute(0, 2, 3, 4, 1, 5).flatten(4)  # (B, C, t, p, K·p)
    return projection(row)[:, :, 0, 0].transpose(1, 2).contiguous()


def split_token_ids(token_ids: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Time, row and column of tokens that are numbered along width, then height, then time.

    Args:
        token_ids: integers of any shape.
        grid: the grid that the numbers count; times beyond `grid.t` are allowed.

    Returns:
        Three integer tensors of the shape of `token_ids`.
    """
    tokens_per_step = grid.h * grid.w
    within_step = token_ids % tokens_per_step
    return token_ids // tokens_per_step, within_step // grid.w, within_step % grid.w


def on_grid(tokens: torch.Tensor, video: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Tokens of whole videos at the places of their patches.

    Args:
        tokens: (B, t·h·w, D).
        video: (..., H, W), what they were made of.
        patch_size: pixels of a patch's sides.

    Returns:
        (B, t, h, w, D).
    """
    height, width = (size // patch_size for size in video.shape[-2:])
    return tokens.unflatten(1, (-1, height, width))


def ascending_order(numbers: torch.Tensor) -> torch.Tensor:
    """The places that sort every row, equal numbers as they stand.

    Exporters know no stable sort, and with numbers that are all different, none is needed.

    Args:
        numbers: (B, N) integers or booleans.

    Returns:
        (B, N) int64.
    """
    places = torch.arange(numbers.shape[1], device=numbers.device)
    return (numbers.long() * numbers.shape[1] + places).argsort(dim=1)


def select_tokens(tokens: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Pick M selections of K tokens from every sequence.

    Args:
        tokens: (B, N, D).
        token_ids: (M·B, K) integers, selection by selection.

    Returns:
        (M·B, K, D).
    """
    return tokens[_sequence_numbers(token_ids, tokens.shape[0]), token_ids]


def _sequence_numbers(token_ids: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The sequence that each row of (M·B, K) selections belongs to, (M·B, 1)."""
    numbers = torch.arange(batch_size, device=token_ids.device)
    return numbers.repeat(token_ids.shape[0] // batch_size)[:, None]
