"""Positions: they come from the input's own grid, at any size, and they matter."""

import warnings

import pytest
import torch

from .compare import assert_close, pick
from .family_spec import FamilySpec, ModelSpec, OffSize, VideoSize, all_states, to_dtype
from .tolerances import DTYPES, EXACT, NOTICEABLE, REORDERED


AXES = {"time": 1, "height": -2, "width": -1}


class PositionsMixin:
    """Tests of inputs of other sizes and of the order of tokens."""

    def test_off_size(self, spec: FamilySpec, model: ModelSpec, off_size: OffSize):
        built, config = spec.build(model), spec.config(model)
        inputs = spec.inputs(model, size=off_size.size)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            states = all_states(built, inputs)
        assert len(caught) == (1 if off_size.kept else 0), [str(warning.message) for warning in caught]
        used = off_size.kept or off_size.size
        assert states[model.output].shape == model.output_shape(config, 2, used)
        assert all(state.isfinite().all() for state in states.values())
        if off_size.kept:
            kept = {name: _cut(value, off_size.size, used) for name, value in inputs.items()}
            assert_close("cut by the model and before it", all_states(built, kept), states, EXACT)

    @pytest.mark.parametrize("axis", AXES)
    def test_order_matters(self, spec: FamilySpec, model: ModelSpec, axis: str):
        """Tokens that trade places along one axis change what the tokens hold together."""
        if axis in model.orderless:
            pytest.skip(model.orderless[axis])
        built, inputs = spec.build(model), spec.inputs(model)
        with torch.no_grad():
            output = pick(built(**inputs), model.output)
            moved = pick(built(**_swap_halves(inputs, axis, spec.size)), model.output)
        pooled, pooled_moved = (value.flatten(1, -2).mean(1) if value.ndim > 2 else value for value in (output, moved))
        assert (pooled - pooled_moved).abs().max() > NOTICEABLE, f"the model doesn't see the order along {axis}"

    def test_configured_size_is_not_read(self, spec: FamilySpec):
        if not spec.unused_sizes:
            pytest.skip("positions of this family depend on the configured size")
        model = spec.models[0]
        built, other = spec.build(model), spec.build(model, **spec.unused_sizes)
        other.load_state_dict(built.state_dict())
        for size in (spec.size, VideoSize(spec.size.frames * 2, spec.size.height, spec.size.width // 2)):
            inputs = spec.inputs(model, size=size)
            with torch.no_grad():
                expected, actual = ({"output": pick(each(**inputs), model.output)} for each in (built, other))
            assert_close(f"two configured sizes, input {size}", expected, actual, REORDERED)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_many_frames_in_16_bits(self, spec: FamilySpec, dtype):
        """Positions beyond 256 are still told apart: bfloat16 itself has no odd numbers there."""
        model = spec.models[0]
        built, inputs = spec.build(model, attention="sdpa"), spec.inputs(model, batch=1, size=spec.many_frames)
        with torch.no_grad():
            expected = {"output": pick(built(**inputs), model.output)}
            built.to(dtype)
            actual = {"output": pick(built(**to_dtype(inputs, dtype)), model.output)}
        assert_close(f"{spec.many_frames} in {dtype}", expected, actual, DTYPES[dtype])


def _cut(value, size: VideoSize, kept: VideoSize):
    """The kept part of videos (B, T, C, H, W) or images (B, C, H, W), other inputs as they are."""
    if not isinstance(value, torch.Tensor) or tuple(value.shape[-2:]) != size[1:]:
        return value
    value = value[..., : kept.height, : kept.width]
    return value[:, : kept.frames] if value.ndim == 5 else value


def _swap_halves(inputs: dict, axis: str, size: VideoSize) -> dict:
    """Videos (B, T, C, H, W) or images (B, C, H, W) with their halves along an axis exchanged."""
    length = {"time": size.frames, "height": size.height, "width": size.width}[axis]
    return {
        name: value.roll(length // 2, AXES[axis]) if isinstance(value, torch.Tensor) and value.ndim >= 4 else value
        for name, value in inputs.items()
    }
