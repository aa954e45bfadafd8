"""Positions: they come from the input's own grid, at any size, and they matter."""

import warnings
from unittest import SkipTest

import torch

from .compare import assert_close, pick
from .family_spec import ModelSpec, OffSize, VideoSize, all_states, to_dtype
from .family_test import FamilyTest, models, off_sizes, over
from .tolerances import DTYPES, EXACT, NOTICEABLE, REORDERED


AXES = {"time": 1, "height": -2, "width": -1}


class PositionsMixin(FamilyTest):
    """Tests of inputs of other sizes and of the order of tokens."""

    @over(off_sizes)
    def test_off_size(self, model: ModelSpec, off_size: OffSize):
        built, config = self.shared(model), self.spec.config(model)
        inputs = self.spec.inputs(model, size=off_size.size)
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

    @over(models, AXES)
    def test_order_matters(self, model: ModelSpec, axis: str):
        """Tokens that trade places along one axis change what the tokens hold together."""
        if axis in model.orderless:
            raise SkipTest(model.orderless[axis])
        built, inputs = self.shared(model), self.spec.inputs(model)
        with torch.no_grad():
            output = pick(built(**inputs), model.output)
            moved = pick(built(**_swap_halves(inputs, axis, self.spec.size)), model.output)
        pooled, pooled_moved = (value.flatten(1, -2).mean(1) if value.ndim > 2 else value for value in (output, moved))
        assert (pooled - pooled_moved).abs().max() > NOTICEABLE, f"the model doesn't see the order along {axis}"

    def test_configured_size_is_not_read(self):
        if not self.spec.unused_sizes:
            raise SkipTest("positions of this family depend on the configured size")
        model = self.spec.models[0]
        built, other = self.spec.build(model), self.spec.build(model, **self.spec.unused_sizes)
        other.load_state_dict(built.state_dict())
        frames, height, width = self.spec.size
        for size in (self.spec.size, VideoSize(frames * 2, height, width // 2)):
            inputs = self.spec.inputs(model, size=size)
            with torch.no_grad():
                expected, actual = ({"output": pick(each(**inputs), model.output)} for each in (built, other))
            assert_close(f"two configured sizes, input {size}", expected, actual, REORDERED)

    @over([torch.float16, torch.bfloat16])
    def test_many_frames_in_16_bits(self, dtype: torch.dtype):
        """Positions beyond 256 are still told apart: bfloat16 itself has no odd numbers there."""
        model, size = self.spec.models[0], self.spec.many_frames
        built, inputs = self.spec.build(model, attention="sdpa"), self.spec.inputs(model, batch=1, size=size)
        with torch.no_grad():
            expected = {"output": pick(built(**inputs), model.output)}
            built.to(dtype)
            actual = {"output": pick(built(**to_dtype(inputs, dtype)), model.output)}
        assert_close(f"{size} in {dtype}", expected, actual, DTYPES[dtype])


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
