"""Tools that take hold of a model's modules: layers can be wrapped, replaced, moved and watched."""

import math
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments
from transformers.utils.generic import can_return_loss

from vidformers.models.pretrained import VideoPreTrainedModel

from .compare import assert_close
from .family_spec import FamilySpec, ModelSpec, VideoSize, all_states
from .family_test import FamilyTest, models, over
from .modeling import training_inputs
from .tolerances import EXACT, INT8, NOTICEABLE, REORDERED


# A weight of so many axes belongs to one of torch's own layers, not to a class derived from it.
LAYERS = {
    1: (nn.LayerNorm,),
    2: (nn.Linear, nn.Embedding),
    3: (nn.Conv1d,),
    4: (nn.Conv2d,),
    5: (nn.Conv3d,),
}


class Adapted(nn.Module):
    """A linear layer with a term of low rank beside it; like PEFT's, it shows the weight without that term."""

    rank = 2

    def __init__(self, base: nn.Linear, generator: torch.Generator):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(self.rank, base.in_features, generator=generator))
        self.up = nn.Parameter(0.02 * torch.randn(base.out_features, self.rank, generator=generator))

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


class Int8Linear(nn.Module):
    """A stand-in for a linear layer, with a weight of whole numbers and a factor for each row of it."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        scales = base.weight.detach().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.weight = nn.Parameter((base.weight.detach() / scales).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scales.to(x.dtype), self.bias)


def replace_modules(
    model: nn.Module, kind: type[nn.Module], change: Callable[[nn.Module], nn.Module]
) -> dict[str, nn.Module]:
    """Put what `change` makes of each module of a kind in its place.

    Returns:
        The new modules by the names of the old ones.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, kind)}
    new = {name: change(module) for name, module in found.items()}
    for name, module in new.items():
        model.set_submodule(name, module)
    assert new, f"there is no {kind.__name__}"
    return new


def adapt(model: PreTrainedModel) -> dict[str, Adapted]:
    """Give every linear layer a term of low rank."""
    generator = torch.Generator().manual_seed(0)
    return replace_modules(model, nn.Linear, lambda layer: Adapted(layer, generator))


def answers(model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What the methods of the contract return that the model has."""
    video, texts = inputs.get("pixel_values_videos", inputs.get("pixel_values")), inputs.get("input_ids")
    if video is not None and video.ndim == 4:
        video = video[:, None]
    given = dict.fromkeys(("get_feature_map", "embed_videos", "encode_frames"), video) | {"embed_texts": texts}
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, value in given.items():
            if value is not None and _has(model, name):
                found[name] = getattr(model, name)(value)
        if "encode_frames" in found:
            found["encode_clip"] = model.encode_clip(found["encode_frames"])
        if _has(model, "compare"):
            found["compare"] = model.compare(found["embed_videos"], found["embed_texts"])
    return found


def _has(model: PreTrainedModel, method: str) -> bool:
    """Whether a model's class answers; `embed_videos` of the base class does where there is a feature map."""
    names = {method, "get_feature_map"} if method == "embed_videos" else {method}
    return any(getattr(type(model), name) is not getattr(VideoPreTrainedModel, name) for name in names)


def models_with_a_loss(spec: FamilySpec) -> list[ModelSpec]:
    """The classes that a Trainer evaluates: those with labels, or with a loss without any by default."""
    return [
        model
        for model in spec.models
        if "labels" in model.training_inputs(spec.config(model), 1) or can_return_loss(model.model_class)
    ]


class CitizenMixin(FamilyTest):
    """Tests of a model class in the hands of tools, with one block of each kind and the default attention."""

    def _build(self, model: ModelSpec) -> PreTrainedModel:
        return self.spec.build(model, attention="sdpa", **model.shallow)

    @over(models)
    def test_adapters_can_be_merged(self, model: ModelSpec):
        """Linear layers with a term of low rank beside them, and the plain layers that compute the same."""
        built, inputs = self._build(model), self.spec.inputs(model)
        plain = all_states(built, inputs)
        adapters = adapt(built)
        expected = all_states(built, inputs)
        change = (expected[model.output] - plain[model.output]).abs().max()
        assert change > NOTICEABLE, "the adapters change nothing"
        for name, adapter in adapters.items():
            built.set_submodule(name, adapter.merged())
        actual = all_states(built, inputs)
        assert_close("adapters and merged", expected, actual, REORDERED, model.terms(built, expected))

    @over(models)
    def test_adapters_learn(self, model: ModelSpec):
        """Every adapter has a gradient, unless the layer that it belongs to takes no part."""
        built = self._build(model)
        for parameter in built.parameters():
            parameter.requires_grad_(False)
        adapters = adapt(built.train())
        model.loss(built(**training_inputs(self.spec, model))).backward()
        for name, adapter in adapters.items():
            for part in ("down", "up"):
                gradient = getattr(adapter, part).grad
                if f"{name}.weight" in model.idle:
                    assert gradient is None, f"{name} takes part in the loss"
                    continue
                assert gradient is not None, f"the adapter of {name} has no gradient: nobody calls it"
                assert gradient.isfinite().all(), f"the adapter of {name} has a gradient that is not finite"
                assert gradient.abs().max() > 0, f"the adapter of {name} has a gradient of zeros"

    @over(models)
    def test_linear_layers_can_be_replaced(self, model: ModelSpec):
        """By layers of another class, whose weights are whole numbers."""
        built, inputs = self._build(model), self.spec.inputs(model)
        expected = all_states(built, inputs)
        terms = model.terms(built, expected)
        replace_modules(built, nn.Linear, Int8Linear)
        actual = all_states(built, inputs)
        assert all(state.isfinite().all() for state in actual.values())
        assert_close("layers in int8", expected, actual, INT8, terms)

    @over(models)
    def test_parameters_can_be_elsewhere(self, model: ModelSpec):
        """accelerate keeps them and brings those of a module as it is called."""
        built, inputs = self._build(model), self.spec.inputs(model)
        expected, answered = all_states(built, inputs), answers(built, inputs)
        cpu_offload(built, offload_buffers=True)
        assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
        assert_close("offloaded", expected, all_states(built, inputs), EXACT)
        if answered:
            assert_close("methods, offloaded", answered, answers(built, inputs), EXACT)
        assert {parameter.device.type for parameter in built.parameters()} == {"meta"}

    @over(models)
    def test_parameters_have_an_axis(self, model: ModelSpec):
        """FSDP2 cuts parameters along their first one."""
        scalars = [name for name, parameter in self._build(model).named_parameters() if parameter.ndim == 0]
        assert not scalars

    @over(models)
    def test_hooks_see_every_call(self, model: ModelSpec):
        """Every module is called once with the whole batch, or as the spec says, however the model is called."""
        built, batch = self._build(model), 3
        plain = {name: all_states(built, inputs) for name, inputs in self._calls(model, built, batch)}
        seen = watch(built)
        wrong = []
        for call, inputs in self._calls(model, built, batch):
            for calls in seen.values():
                calls.clear()
            terms = model.terms(built, plain[call])
            assert_close(f"watched ({call})", plain[call], all_states(built, inputs), REORDERED, terms)
            for name, calls in seen.items():
                wanted = [rows and batch * rows for rows in _multiples(model, name, call, built, self.spec.size)]
                if calls != wanted:
                    wrong.append(f"{name or 'the model'} ({call}): {calls} rows in its calls, expected {wanted}")
        assert not wrong, "; ".join(wrong)
        stale = [entry.modules for entry in model.called if not any(fnmatch(name, entry.modules) for name in seen)]
        assert not stale, f"the spec's `called` speaks of modules that aren't there: {stale}"

    def _calls(self, model: ModelSpec, built: PreTrainedModel, batch: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ways to call the model, with their inputs."""
        for name, more in {"default": lambda *call: {}, **model.calls}.items():
            yield name, {**self.spec.inputs(model, batch), **more(built.config, batch, self.spec.size)}

    @over(models_with_a_loss)
    def test_a_trainer_evaluates(self, model: ModelSpec):
        """Of a classifier it gathers the logits alone; losses without labels are found, too."""
        built, batch = (
            self._build(model),
            {**self.spec.inputs(model, 3), **model.training_inputs(self.spec.config(model), 3)},
        )
        classifies = "labels" in batch
        clips = [{name: value[index] for name, value in batch.items()} for index in range(3)]
        seen = []

        def measure(found: EvalPrediction) -> dict[str, float]:
            seen.append(found)
            labels = found.label_ids[0] if isinstance(found.label_ids, tuple) else found.label_ids
            return {"accuracy": float((found.predictions.argmax(-1) == labels).mean())}

        settings = {"use_cpu": True, "report_to": [], "per_device_eval_batch_size": 2, "remove_unused_columns": False}
        arguments = TrainingArguments(str(self.temporary_folder()), **settings)
        trainer = Trainer(built, arguments, eval_dataset=clips, compute_metrics=measure if classifies else None)
        found = trainer.evaluate()
        assert math.isfinite(found["eval_loss"])
        if classifies:
            assert seen[0].predictions.shape == (3, built.config.num_labels)
            with torch.no_grad():
                logits = built(**{**batch, "labels": None}).logits
            expected = (logits.argmax(-1) == batch["labels"]).float().mean().item()
            assert found["eval_accuracy"] == pytest.approx(expected)

    @over(models)
    def test_layers_are_those_of_torch(self, model: ModelSpec):
        """By their exact class, by which tools choose what they replace."""
        built, own, wrong = self._build(model), set(), []
        for name, weight in weights(built):
            kind = type(built.get_submodule(name))
            if kind.__name__ in self.spec.own_layers:
                own.add(kind.__name__)
            elif kind not in LAYERS[weight.ndim]:
                wrong.append(f"{name} is a {kind.__name__} with a weight of shape {tuple(weight.shape)}")
        assert not wrong, "; ".join(wrong)

    def test_own_layers_are_used(self):
        built = [self._build(model) for model in self.spec.models]
        kinds = {type(module).__name__ for model in built for module in model.modules()}
        assert set(self.spec.own_layers) <= kinds, "the spec's `own_layers` speaks of classes that no model has"


def weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The modules that have a weight of their own, and the weight."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor):
            yield name, weight


def watch(model: nn.Module) -> dict[str, list[int | None]]:
    """Lists, one a module, that grow whenever it is called, by the rows that it gets. Containers are never called."""
    seen: dict[str, list[int | None]] = {}
    for name, module in model.named_modules():
        if type(module).forward is not nn.Module.forward:
            calls = seen[name] = []
            module.register_forward_hook(
                lambda module, args, kwargs, output, calls=calls: calls.append(_rows(args, kwargs)), with_kwargs=True
            )
    return seen


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Length of the first axis of the first tensor that a module gets, if it gets one."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return len(tensors[0]) if tensors else None


def _multiples(
    model: ModelSpec, name: str, call: str, built: PreTrainedModel, size: VideoSize
) -> Sequence[int | None]:
    """What the batch is multiplied by in each call of a module."""
    for entry in model.called:
        if fnmatch(name, entry.modules) and fnmatch(call, entry.call):
            return entry.rows(built.config, size)
    return [1]
