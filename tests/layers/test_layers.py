"""The shared layers beside plain references, written out element by element."""

import math
import warnings
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.overrides import BaseTorchFunctionMode

from tests.harness.compare import assert_close
from tests.harness.tolerances import DTYPES, REORDERED
from vidformers.layers import cpu, rope
from vidformers.layers.attention import attention
from vidformers.layers.block import DropPath, Mlp, Records, drop_path_rates
from vidformers.layers.cpu import float32_products
from vidformers.layers.modules import is_plain, to_dtype_of
from vidformers.layers.norms import unit_length
from vidformers.layers.patchify import (
    Grid,
    cut_to_tubelets,
    embed_tubelets,
    embed_video,
    select_tokens,
    split_token_ids,
    tubelets_of,
)
from vidformers.layers.positions import resize_position_grid
from vidformers.layers.rope import apply_rotary, rotary_table


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------- patchify


def projection(kernel: tuple[int, int, int] = (2, 4, 4)) -> nn.Conv3d:
    torch.manual_seed(0)
    return nn.Conv3d(3, 7, kernel_size=kernel, stride=kernel)


def embed_one_by_one(layer: nn.Conv3d, video: torch.Tensor) -> torch.Tensor:
    """(B, N, D): for every tubelet in turn, the sum of weight times pixel."""
    tokens = []
    for time in range(0, video.shape[1], 2):
        for row in range(0, video.shape[3], 4):
            for column in range(0, video.shape[4], 4):
                tubelet = video[:, time : time + 2, :, row : row + 4, column : column + 4].transpose(1, 2)
                tokens.append((tubelet[:, None] * layer.weight[None]).sum((2, 3, 4, 5)) + layer.bias)
    return torch.stack(tokens, 1)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_embedded_videos(dtype, gradients):
    layer, video = projection(), seeded(2, 6, 3, 8, 12)
    expected = embed_one_by_one(layer, video)
    with torch.set_grad_enabled(gradients):
        actual = embed_video(layer.to(dtype), video)
    assert actual.dtype == dtype
    assert_close("tubelets", {"tokens": expected}, {"tokens": actual}, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_embedded_tubelets(dtype):
    layer, video, grid = projection(), seeded(2, 6, 3, 8, 12), Grid(3, 2, 3)
    token_ids = torch.tensor([[17, 0, 5], [3, 3, 9], [1, 2, 4], [16, 8, 11]])  # two selections of each video
    every = embed_one_by_one(layer, video)
    expected = torch.stack([every[index % 2, ids] for index, ids in enumerate(token_ids)])
    actual = embed_tubelets(layer.to(dtype), tubelets_of(video, grid, 2, 4, token_ids))
    assert actual.dtype == dtype
    assert_close("selected", {"tokens": expected}, {"tokens": actual}, DTYPES[dtype])


@pytest.mark.parametrize("selected", [False, True])
def test_projections_are_called_once_with_the_whole_batch(selected):
    layer, video, shapes = projection(), seeded(2, 6, 3, 8, 12), []
    layer.register_forward_hook(lambda _, inputs, output: shapes.append((len(inputs[0]), len(output))))
    if selected:
        embed_tubelets(layer, tubelets_of(video, Grid(3, 2, 3), 2, 4, torch.tensor([[17, 0, 5], [3, 3, 9]])))
    else:
        embed_video(layer, video)
    assert shapes == [(2, 2)]


def test_cut_keeps_what_divides():
    video = seeded(1, 4, 3, 16, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept, grid = cut_to_tubelets(video, 2, 8)
    assert kept is video
    assert grid == (2, 2, 3)
    assert grid.num_tokens == 12


def test_cut_names_what_goes():
    video = seeded(1, 5, 3, 17, 24)
    with pytest.warns(UserWarning, match="frames from 5 to 4, height from 17 to 16") as caught:
        kept, grid = cut_to_tubelets(video, 2, 8)
    assert len(caught) == 1
    assert "width from" not in str(caught[0].message)
    assert "multiple of 2 frames" in str(caught[0].message)
    assert torch.equal(kept, video[:, :4, :, :16])
    assert grid == (2, 2, 3)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 7, 16), (2, 3, 16, 7), (0, 3, 16, 16)])
def test_cut_leaves_at_least_one_tubelet(shape):
    frames, _, height, width = shape
    with pytest.raises(ValueError, match=rf"{frames} frame\(s\) of {height} × {width} pixels.*at least 2 frame"):
        cut_to_tubelets(torch.zeros(1, *shape), 2, 8)


def test_token_ids_count_width_then_height_then_time():
    grid = Grid(2, 3, 4)
    expected = [(t, h, w) for t in range(5) for h in range(3) for w in range(4)]  # three steps beyond the grid
    actual = torch.stack(split_token_ids(torch.arange(60), grid), -1).tolist()
    assert [tuple(place) for place in actual] == expected


def test_rectangular_patches():
    """Patches of 4 × 2 pixels: every token from its own pixels alone, height before width."""
    layer = projection((2, 4, 2))
    video, grid = seeded(2, 4, 3, 8, 6), Grid(2, 2, 3)
    assert cut_to_tubelets(video, 2, (4, 2))[1] == grid
    tokens = embed_tubelets(layer, tubelets_of(video, grid, 2, (4, 2)))
    expected = nn.functional.conv3d(video.transpose(1, 2), layer.weight, layer.bias, stride=(2, 4, 2))
    assert_close("tokens", {"t": expected.flatten(2).transpose(1, 2)}, {"t": tokens}, REORDERED)
    token_ids = torch.tensor([[11, 0], [4, 7]])
    chosen = tubelets_of(video, grid, 2, (4, 2), token_ids)
    assert torch.equal(chosen[1, 1], video[1, 2:4, :, 0:4, 2:4].transpose(0, 1))
    assert torch.equal(chosen, select_tokens(tubelets_of(video, grid, 2, (4, 2)), token_ids))
    with pytest.warns(UserWarning, match="height from 9 to 8, width from 7 to 6.*multiples of 4 × 2 pixels"):
        cut_to_tubelets(seeded(1, 2, 3, 9, 7), 2, (4, 2))


def test_select_tokens():
    tokens = seeded(2, 6, 3)
    token_ids = torch.tensor([[5, 0], [1, 1], [2, 3], [4, 0]])
    actual = select_tokens(tokens, token_ids)
    for index, ids in enumerate(token_ids.tolist()):
        for place, token in enumerate(ids):
            assert torch.equal(actual[index, place], tokens[index % 2, token])


# --------------------------------------------------------------------------------------------------- positions


def test_resized_tables_with_and_without_smoothing():
    """Halved in both directions: the mean of the four middle ones of four, or of every place's own neighbors."""
    table = seeded(1, 16, 2)
    image = table.unflatten(1, (4, 4))
    plain = resize_position_grid(table, (4, 4), (2, 2), antialias=False)
    expected = torch.stack(
        [image[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean((1, 2)) for r in (0, 1) for c in (0, 1)]
    )
    assert_close("not smoothed", {"t": expected.transpose(0, 1)}, {"t": plain}, REORDERED)
    smooth = resize_position_grid(table, (4, 4), (2, 2))
    weights = torch.tensor([[3.0, 3, 1, 0], [0, 1, 3, 3]]) / 7
    expected = torch.einsum("ir,jc,brcd->bijd", weights, weights, image).flatten(1, 2)
    assert_close("smoothed", {"t": expected}, {"t": smooth}, REORDERED)
    assert resize_position_grid(table, (4, 4), (4, 4), antialias=False) is table


# -------------------------------------------------------------------------------------------------------- rope


def rotate_by_hand(x: torch.Tensor, positions: list[list[int]], pairing: str) -> torch.Tensor:
    """Turn (1, N, heads, head_dim) channel by channel in double precision; `positions` has a list for each axis."""
    head_dim, turned = x.shape[-1], x.double().clone()
    pairs = (head_dim // len(positions)) // 2
    for axis, places in enumerate(positions):
        first = 2 * pairs * axis
        for token, place in enumerate(places):
            for channel in range(2 * pairs):
                index = channel % pairs if pairing == "tiled" else channel // 2
                angle = place * 10000.0 ** (-index / pairs)
                own = x[0, token, :, first + channel].double()
                other = x[0, token, :, first + (channel ^ 1)].double()
                sign = -1 if channel % 2 == 0 else 1
                turned[0, token, :, first + channel] = own * math.cos(angle) + sign * other * math.sin(angle)
    return turned


PLACES = [[0, 1, 2, 7], [3, 0, 5, 1], [2, 2, 9, 4]]


@pytest.mark.parametrize("pairing", ["tiled", "interleaved"])
@pytest.mark.parametrize("head_dim", [18, 20, 26, 64])
@pytest.mark.parametrize("axes", [2, 3])
def test_rotation(axes, head_dim, pairing):
    x, places = seeded(1, 4, 2, head_dim), PLACES[:axes]
    table = rotary_table(tuple(torch.tensor([p]) for p in places), head_dim, pairing=pairing, dtype=torch.float32)
    expected = rotate_by_hand(x, places, pairing)
    assert_close("turned", {"x": expected}, {"x": apply_rotary(x, table)}, REORDERED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_wide_tables_turn_in_their_own_dtype(dtype):
    x, positions = seeded(1, 4, 2, 8).to(dtype), (torch.tensor([[0, 3, 100, 999]]),)
    table = rotary_table(positions, 8, pairing="interleaved", dtype=torch.float32)
    turned = apply_rotary(x, table)
    assert turned.dtype == dtype
    assert torch.equal(turned, apply_rotary(x.float(), table).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_complex_numbers_turn_as_real_ones_do(dtype):
    """Without gradients: rows of a wider tensor at an odd place, a table for each sequence, channels left over."""
    wide = seeded(2, 4, 101).to(dtype)
    x = wide[..., 1:79].unflatten(-1, (3, 26))
    places = tuple(torch.tensor([row, row[::-1]]) for row in PLACES)
    table = rotary_table(places, 26, pairing="interleaved", dtype=torch.float32)
    before = wide.clone()
    with mock.patch.object(rope, "_turn", side_effect=AssertionError("computed by real numbers")):
        turned = apply_rotary(x, table)
    assert torch.equal(wide, before)
    expected = apply_rotary(x.clone().requires_grad_(), table)
    assert expected.requires_grad and turned.dtype == expected.dtype == dtype
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    torch.testing.assert_close(turned, expected.detach(), rtol=tolerance, atol=tolerance / 8)


def test_channels_left_over_stay():
    x = seeded(1, 4, 2, 26)  # three slices of 8, two channels over
    table = rotary_table(tuple(torch.tensor([p]) for p in PLACES), 26, pairing="tiled", dtype=torch.float32)
    turned = apply_rotary(x, table)
    assert torch.equal(turned[..., 24:], x[..., 24:])
    assert (turned[..., :24] != x[..., :24]).any(-1)[0, 1:].all()


def test_interleaved_scores_depend_on_distances_alone():
    def scores(shift: int) -> torch.Tensor:
        positions = tuple(torch.tensor([p]) + shift for p in PLACES)
        table = rotary_table(positions, 24, pairing="interleaved", dtype=torch.float32)
        query, key = (apply_rotary(seeded(1, 4, 1, 24, seed=seed), table)[0, :, 0] for seed in (1, 2))
        return query @ key.T

    torch.testing.assert_close(scores(0), scores(11), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_angles_are_computed_in_float32(dtype):
    """In bfloat16 the positions 1000 and 1001 would be one."""
    positions = tuple(torch.tensor([[1000, 1001, 0]]) for _ in range(3))
    exact = rotary_table(positions, 24, pairing="tiled", dtype=torch.float32)
    rounded = rotary_table(positions, 24, pairing="tiled", dtype=dtype)
    assert torch.equal(rounded.own, exact.own.to(dtype))
    assert torch.equal(rounded.neighbor, exact.neighbor.to(dtype))
    assert not torch.equal(rounded.own[:, 0], rounded.own[:, 1])


# --------------------------------------------------------------------------------------------------- attention


class Layer(nn.Module):
    """What a backend reads of an attention layer."""

    is_causal = False

    def __init__(self, implementation: str):
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=implementation)


def attend_by_hand(query, key, value, scaling):
    """(B, Nq, heads·head_dim) and the probabilities, in double precision."""
    scores = torch.einsum("bhqd,bhkd->bhqk", query.double(), key.double()) * scaling
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    attended = torch.einsum("bhqk,bhkd->bqhd", weights, value.double())
    return attended.flatten(2), weights


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("num_queries", [1, 5])
def test_attention(implementation, num_queries):
    query, key, value = seeded(2, 3, num_queries, 8), seeded(2, 3, 6, 8, seed=1), seeded(2, 3, 6, 8, seed=2)
    expected, weights = attend_by_hand(query, key, value, 0.7)
    attended, nothing = attention(Layer(implementation), query, key, value, scaling=0.7)
    assert nothing is None
    assert_close(implementation, {"attended": expected}, {"attended": attended}, REORDERED)
    attended, probabilities = attention(Layer(implementation), query, key, value, scaling=0.7, output_attentions=True)
    expected = {"attended": expected, "weights": weights}
    assert_close("with weights", expected, {"attended": attended, "weights": probabilities}, REORDERED)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_dropout_is_for_training(implementation):
    tensors = [seeded(1, 2, 40, 8, seed=seed) for seed in range(3)]

    def run(training: bool, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        layer = Layer(implementation).train(training)
        return attention(layer, *tensors, scaling=0.3, dropout=0.5)[0]

    assert torch.equal(run(False, 0), run(False, 1))
    assert torch.equal(run(True, 0), run(True, 0))
    assert not torch.equal(run(True, 0), run(True, 1))
    plain, dropped = run(False, 0), torch.stack([run(True, seed) for seed in range(300)])
    torch.testing.assert_close(dropped.mean(0), plain, rtol=0, atol=0.25)


# ------------------------------------------------------------------------------------------------ block pieces


def test_drop_path_drops_whole_samples():
    torch.manual_seed(0)
    branch = torch.ones(4000, 3, 2)
    dropped = DropPath(0.25).train()(branch)
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (per_sample[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("layer", [DropPath(0.9).eval(), DropPath(0.0).train()])
def test_drop_path_at_rest(layer):
    branch = seeded(3, 2)
    assert layer(branch) is branch


def test_drop_path_rates_rise_linearly():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]


def mlp(activation: str) -> Mlp:
    layer = Mlp(4, 6, activation)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = seeded(*parameter.shape, seed=seed)
    return layer


def test_mlp():
    layer, x = mlp("gelu"), seeded(2, 4)
    hidden = x @ layer.fc1.weight.T + layer.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = hidden @ layer.fc2.weight.T + layer.fc2.bias
    assert_close("mlp", {"x": expected}, {"x": layer(x)}, REORDERED)


BLOCKS = {1: [3], 16: [24, 24], 17: [26, 25], 39: [30, 29, 29, 29]}
"""By the length of three sequences, the tokens of each block, of at most 32."""


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu", "silu"])
@pytest.mark.parametrize(("tokens", "blocks"), BLOCKS.items())
@pytest.mark.parametrize("context", [nullcontext, BaseTorchFunctionMode], ids=["alone", "watched"])
def test_mlp_in_blocks_of_tokens(monkeypatch, activation, tokens, blocks, context):
    monkeypatch.setattr(cpu, "BYTES_AT_ONCE", 32 * 4 * 4)
    layer, x, seen, linear = mlp(activation), seeded(3, tokens, 4), [], nn.functional.linear
    expected, unchanged = layer(x), x.clone()

    def seen_linear(rows: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        seen.append((len(rows), "out" in options))
        return linear(rows, *rest, **options)

    monkeypatch.setattr(nn.functional, "linear", seen_linear)
    with torch.no_grad(), context():
        actual = layer(x)
    assert seen == [(size, context is nullcontext) for size in blocks for _ in (layer.fc1, layer.fc2)]
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(x, unchanged)


def test_mlp_calls_its_layers_once_where_somebody_watches(monkeypatch):
    monkeypatch.setattr(cpu, "BYTES_AT_ONCE", 1)
    layer, x, seen = mlp("gelu"), seeded(3, 64, 4), []
    expected = layer(x)
    layer.fc1.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.no_grad():
        actual = layer(x)
    assert [tuple(output.shape) for output in seen] == [(3, 64, 6)]
    assert torch.equal(seen[0], nn.functional.linear(x, layer.fc1.weight, layer.fc1.bias)), "overwritten"
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_mlp_calls_layers_of_other_kinds():
    layer, x = Mlp(4, 6, "gelu"), seeded(3, 64, 4)
    quantized = torch.ao.quantization.quantize_dynamic(layer, {nn.Linear})
    assert type(quantized.fc1) is not nn.Linear
    torch.testing.assert_close(quantized(x), layer(x), atol=0.05, rtol=0.0)
    with torch.autocast("cpu"):
        called = layer.fc2(layer.activation(layer.fc1(x)))
        assert called.dtype == torch.bfloat16
        torch.testing.assert_close(layer(x), called, atol=0.0, rtol=0.0)


class Wrapped(nn.Module):
    """As adapters wrap a layer."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def replace_parameter(layer: Mlp, make) -> None:
    layer.fc1.weight = nn.Parameter(make(layer.fc1.weight), requires_grad=False)


TOUCHED = {
    "wrapped": lambda layer: setattr(layer, "fc1", Wrapped(layer.fc1)),
    "hook": lambda layer: layer.fc2.register_forward_hook(lambda *_: None),
    "hook before": lambda layer: layer.fc2.register_forward_pre_hook(lambda *_: None),
    "forward replaced": lambda layer: setattr(layer.fc1, "forward", layer.fc1.forward),
    "parametrized": lambda layer: nn.utils.parametrizations.weight_norm(layer.fc1),
    "offloaded": lambda layer: replace_parameter(layer, lambda weight: weight.to("meta")),
    "integers": lambda layer: replace_parameter(layer, lambda weight: weight.to(torch.int8)),
}


@pytest.mark.parametrize("touch", TOUCHED.values(), ids=TOUCHED)
def test_touched_modules_are_not_plain(touch):
    layer = mlp("gelu")
    with torch.no_grad():
        assert is_plain(layer)
        touch(layer)
        assert not is_plain(layer)


def test_nothing_is_plain_with_gradients_or_global_hooks():
    layer = mlp("gelu")
    assert not is_plain(layer)
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    with torch.no_grad():
        assert not is_plain(layer)
        hook.remove()
        assert is_plain(layer)


def test_dtype_of_a_module():
    x, layer = seeded(2, 4), nn.Linear(4, 4).bfloat16()
    assert to_dtype_of(layer, x).dtype == torch.bfloat16
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    assert to_dtype_of(layer, x).dtype == torch.bfloat16, "that of the bias"
    layer.bias = None
    assert to_dtype_of(layer, x) is x


def test_records():
    states = [seeded(1, seed=seed) for seed in range(3)]
    for hidden, weights in ((True, True), (True, False), (False, True), (False, False)):
        records = Records(states[0], hidden, weights)
        for state in states[1:]:
            records.add(state, -state)
        assert records.hidden_states == (tuple(states) if hidden else None)
        assert (records.attentions is not None) == weights
        assert not weights or all(map(torch.equal, records.attentions, [-state for state in states[1:]]))


# ---------------------------------------------------------------------------------------------- half precision


class LowRank(nn.Module):
    """A linear layer with a low-rank addition."""

    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(64, 64), nn.Linear(64, 2, bias=False), nn.Linear(2, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


PRODUCTS = {
    "linear": nn.Linear(64, 64),
    "low rank": LowRank(),
    "conv1d": nn.Conv1d(64, 8, 3),
    "conv3d": nn.Sequential(nn.Unflatten(1, (4, 2, 2, 4)), nn.Conv3d(4, 8, 2)),
    "matmul": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_half_precision_in_float32(name, monkeypatch):
    """As rounded products of the same numbers in float32; and that is what runs, not only what comes out."""
    monkeypatch.setattr(cpu, "FALLBACK_DTYPES", (torch.bfloat16,))
    product = PRODUCTS[name].bfloat16() if isinstance(PRODUCTS[name], nn.Module) else PRODUCTS[name]
    x = seeded(2, 64, 64).bfloat16()[..., : 1 if name == "conv3d" else 64]
    x = x[..., 0] if name == "conv3d" else x
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if any(word in str(function) for word in ("mm", "convolution")):
                seen.extend(each.dtype for each in args if isinstance(each, torch.Tensor))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch(), float32_products(x.dtype, x.device):
        result = product(x)
    assert result.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}


def test_products_of_mixed_dtypes_stay_errors(monkeypatch):
    monkeypatch.setattr(cpu, "FALLBACK_DTYPES", (torch.bfloat16,))
    with float32_products(torch.bfloat16, torch.device("cpu")), pytest.raises(RuntimeError, match="dtype"):
        nn.Linear(4, 4).bfloat16()(seeded(2, 4))


def test_float32_products_know_where_they_are_needed(monkeypatch):
    """On other devices, for other dtypes and in traced programs they do nothing."""
    monkeypatch.setattr(cpu, "FALLBACK_DTYPES", (torch.bfloat16,))

    def is_active(dtype: torch.dtype, device: str = "cpu") -> bool:
        return isinstance(float32_products(dtype, torch.device(device)), torch.overrides.TorchFunctionMode)

    assert is_active(torch.bfloat16)
    assert not is_active(torch.float32) and not is_active(torch.bfloat16, "meta")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not is_active(torch.bfloat16)


# ----------------------------------------------------------------------------------------------- pooling and norms


def test_unit_length():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(unit_length(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert unit_length(x.bfloat16()).dtype == torch.bfloat16
