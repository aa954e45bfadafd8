"""Models: storage, interchange with transformers, recorded states, training, compilation, export, number formats."""

import copy
import json
import math
import re
from collections.abc import Callable, Mapping
from inspect import signature
from operator import attrgetter
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

import vidformers
from vidformers.models.pretrained import VideoPreTrainedModel

from .compare import assert_close, pick, stages
from .family_spec import Export, FamilySpec, ModelSpec, Stock, all_states, to_dtype
from .family_test import (
    FamilyTest,
    first_model,
    models,
    models_of_transformers,
    over,
    presets,
)
from .tolerances import DTYPES, EXACT, GRADIENTS, NOTICEABLE, REORDERED


MACHINE_CODE_ELSEWHERE = "one family shows what takes the compiler a minute, the one whose spec says `machine_code`"
HALF_PRECISION = (torch.float16, torch.bfloat16)


def gradients(model: PreTrainedModel, spec: ModelSpec, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Gradients of one training step by parameter that isn't idle, `None` for one that took no part."""
    model.zero_grad()
    spec.loss(model(**inputs)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if name not in spec.idle}


def training_inputs(spec: FamilySpec, model: ModelSpec, batch: int = 2) -> dict[str, Any]:
    """Inputs of a training step."""
    return {**spec.inputs(model, batch), **model.training_inputs(spec.config(model), batch)}


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Switch gradient checkpointing on, under either of the names that it has had in transformers 5."""
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def count_block_runs(model: PreTrainedModel) -> list[str]:
    """A list that grows whenever the first leaf of a block runs; hooks of blocks themselves miss their repetition."""
    runs: list[str] = []
    for name, block in model.named_modules():
        if isinstance(block, GradientCheckpointingLayer):
            leaf = next(module for module in block.modules() if not list(module.children()))
            leaf.register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    return runs


class StorageMixin(FamilyTest):
    """Saving, loading, and directories of transformers."""

    @over(models)
    def test_save_and_load(self, model: ModelSpec):
        folder = self.temporary_folder()
        built = self.shared(model)
        inputs = self.spec.inputs(model)
        built.save_pretrained(folder)
        loaded, info = model.model_class.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")

        assert not any(info.values()), info
        assert set(load_file(folder / "model.safetensors")) == set(built.state_dict())
        assert not loaded.training
        assert_close("saved and loaded", self.states(model), all_states(loaded, inputs), EXACT)

    @over(models_of_transformers)
    def test_names_on_disk_are_those_of_transformers(self, model: ModelSpec):
        folder = self.temporary_folder()
        stock = model.stock
        built = self.spec.build(model, **stock.config)
        built.save_pretrained(folder)
        config_class, model_class = stock.classes()
        with torch.device("meta"):
            theirs = model_class(config_class.from_pretrained(folder))
        ours = load_file(folder / "model.safetensors")
        assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == stock.stored_shapes(theirs)

    @over(models_of_transformers)
    def test_transformers_loads_ours(self, model: ModelSpec):
        folder = self.temporary_folder()
        stock = model.stock
        built = self.spec.build(model, **stock.config)
        built.save_pretrained(folder)
        theirs, info = stock.classes()[1].from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager"
        )
        missing = [name for name in info["missing_keys"] if not stock.has_alone(name)]
        assert not missing
        assert not info["unexpected_keys"]
        self._same_outputs(model, theirs, built)

    @over(models_of_transformers)
    def test_loads_what_transformers_saves(self, model: ModelSpec):
        folder = self.temporary_folder()
        stock = model.stock
        config_class, model_class = stock.classes()
        torch.manual_seed(0)
        theirs = model_class(config_class(**self.spec.config(model, **stock.config).to_dict())).eval()
        theirs.set_attn_implementation("eager")
        theirs.save_pretrained(folder)
        ours, info = model.model_class.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager", **stock.config
        )
        assert not any(info.values()), info
        self._same_outputs(model, theirs, ours)

    @over(models)
    def test_directories_of_other_models_are_refused(self, model: ModelSpec):
        """By both model types: a warning and a model of random weights serve nobody."""
        folder = self.temporary_folder()
        built = self.spec.build(model)
        built.save_pretrained(folder)
        own, settings = built.config.model_type, json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, "model_type": "timesformer"}))
        with pytest.raises(ValueError, match=f"'timesformer'.*'{own}'"):
            model.model_class.from_pretrained(folder)

    @over(models)
    def test_missing_weights_are_an_error(self, model: ModelSpec):
        """That names them, where they are more than half of what isn't a head; else a warning does."""
        folder = self.temporary_folder()
        built = self.spec.build(model)
        built.save_pretrained(folder)
        stored = load_file(folder / "model.safetensors")
        body = [name for name in stored if name.startswith(f"{built.base_model_prefix}.")] or list(stored)
        largest = sorted(body, key=lambda name: -stored[name].numel())
        for lacking, is_error in ((largest[:1], False), (body, True)):
            kept = {name: tensor for name, tensor in stored.items() if name not in lacking}
            kept = kept or {"other.weight": torch.zeros(1)}
            save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
            if is_error:
                named = "|".join(re.escape(name) for name in sorted(body)[:3])
                with pytest.raises(ValueError, match=f"lacks the weights .*{len(body)} of {len(body)}.*({named})"):
                    model.model_class.from_pretrained(folder)
            else:
                _, info = model.model_class.from_pretrained(folder, output_loading_info=True)
                assert set(info["missing_keys"]) == set(lacking)

    @over(models)
    def test_heads_may_be_new(self, model: ModelSpec):
        """A model with a head loads from its base model's directory, and the base model from the head's."""
        built = self.spec.build(model)
        base = built.base_model
        if base is built:
            raise SkipTest(f"{model.name} is a base model")
        folder = self.temporary_folder()
        built.save_pretrained(folder / "whole")
        base.save_pretrained(folder / "base")
        loaded, info = model.model_class.from_pretrained(folder / "base", output_loading_info=True, **model.config)
        prefix = f"{built.base_model_prefix}."
        assert info["missing_keys"] and not any(name.startswith(prefix) for name in info["missing_keys"])
        assert_close("base of it", base.state_dict(), loaded.base_model.state_dict(), EXACT)
        alone = type(base).from_pretrained(folder / "whole")
        shared = {name: tensor for name, tensor in base.state_dict().items() if name in alone.state_dict()}
        assert_close("base alone", shared, alone.state_dict(), EXACT)

    def _same_outputs(self, model: ModelSpec, theirs: PreTrainedModel, ours: PreTrainedModel) -> None:
        """Compare at the configured size, the only one at which transformers is right in every family."""
        inputs = self.spec.inputs(model)
        expected, actual = all_states(theirs, inputs), all_states(ours, inputs)
        assert model.output in expected
        for name in model.stock.reshaped:
            assert expected[name].shape != actual[name].shape
            expected[name] = expected[name].view_as(actual[name])
        assert_close("transformers and ours", expected, actual, REORDERED)


class OutputMixin(FamilyTest):
    """What a call returns."""

    @over(models)
    def test_shapes(self, model: ModelSpec):
        built, config = self.shared(model), self.spec.config(model)
        with torch.no_grad():
            output = pick(built(**self.spec.inputs(model, batch=3)), model.output)
        assert output.shape == model.output_shape(config, 3, self.spec.size)
        assert output.isfinite().all()

    @over(models)
    def test_hidden_states_and_attentions(self, model: ModelSpec):
        built, config = self.shared(model), self.spec.config(model)
        assert model.towers
        with torch.no_grad():
            output = built(**self.spec.inputs(model), output_hidden_states=True, output_attentions=True)
            without = built(**self.spec.inputs(model))
        for tower in model.towers:
            hidden_states, attentions = (tower.record(output, kind) for kind in ("hidden_states", "attentions"))
            own = attrgetter(tower.config)(config) if tower.config else config
            layers, width, heads = (getattr(own, field) for field in (tower.layers, tower.width, tower.heads))
            tokens, rows = tower.tokens(own, self.spec.size), 2 * tower.rows(own, self.spec.size)
            assert [tuple(state.shape) for state in hidden_states] == [(rows, tokens, width)] * (layers + 1)
            assert [tuple(each.shape) for each in attentions] == [(rows, heads, tokens, tokens)] * layers
            for each in attentions:
                torch.testing.assert_close(each.sum(-1), torch.ones(each.shape[:-1]))
            for before, after in zip(hidden_states, hidden_states[1:], strict=False):
                assert (before - after).abs().max() > NOTICEABLE
            assert tower.record(without, "hidden_states") is None
            assert tower.record(without, "attentions") is None

    @over(models)
    def test_records_can_be_configured(self, model: ModelSpec):
        built = self.spec.build(model, output_hidden_states=True)
        with torch.no_grad():
            output = built(**self.spec.inputs(model))
            quiet = built(**self.spec.inputs(model), output_hidden_states=False)
        for tower in model.towers:
            assert tower.record(output, "hidden_states") is not None
            assert tower.record(quiet, "hidden_states") is None

    @over(models)
    def test_tuples(self, model: ModelSpec):
        built, inputs = self.shared(model), self.spec.inputs(model)
        with torch.no_grad():
            output, as_tuple = built(**inputs), built(**inputs, return_dict=False)
        assert type(as_tuple) is tuple
        named, unnamed = list(stages(tuple(output.to_tuple())).values()), list(stages(as_tuple).values())
        assert len(named) == len(stages(output))
        assert all(torch.equal(a, b) for a, b in zip(named, unnamed, strict=True))

    @over(models)
    def test_tuples_of_features(self, model: ModelSpec):
        built, inputs = self.shared(model), self.spec.inputs(model)
        videos = inputs.get("pixel_values_videos")
        inputs |= {} if videos is None else {"pixel_values": videos[:, 0]}
        for kind in ("text", "image", "video"):
            method = getattr(built, f"get_{kind}_features", None)
            given = {name: inputs[name] for name in signature(method).parameters if name in inputs} if method else {}
            if given:
                with torch.no_grad(), patch.object(built.config, "return_dict", False):
                    as_tuple, output = method(**given), method(**given, return_dict=True)
                assert type(as_tuple) is tuple and output.pooler_output is not None, kind
                assert_close(kind, stages(tuple(output.to_tuple())), stages(as_tuple), EXACT)

    @over(models)
    def test_batch_is_invariant(self, model: ModelSpec):
        built, inputs = self.shared(model), self.spec.inputs(model, batch=3)
        together = all_states(built, inputs)
        for index in range(3):
            alone = all_states(built, {name: value[index : index + 1] for name, value in inputs.items()})
            part = {name: tensor.chunk(3)[index] for name, tensor in together.items() if tensor.ndim}
            assert_close(f"video {index} alone and in a batch", part, alone, REORDERED)

    @over(models)
    def test_inputs_are_left_alone(self, model: ModelSpec):
        built, inputs = self.shared(model), self.spec.inputs(model)
        before = copy.deepcopy(inputs)
        all_states(built, inputs)
        assert_close("inputs before and after a call", stages(before), stages(inputs), EXACT)


class ClassifierMixin(FamilyTest):
    """Classifiers for other classes than a model was made for."""

    @over(models)
    def test_classifier_can_be_reset(self, model: ModelSpec):
        built, inputs, folder = (
            self.spec.build(model, **model.shallow),
            self.spec.inputs(model),
            self.temporary_folder(),
        )
        if model.model_class.reset_classifier is VideoPreTrainedModel.reset_classifier:
            assert not [name for name, _ in built.named_modules() if name.endswith("classifier")]
            with pytest.raises(NotImplementedError, match="has no classifier"):
                built.reset_classifier(3)
            return
        before = {name: weight.clone() for name, weight in built.state_dict().items()}
        built.reset_classifier(3, ["run", "jump", "sit"])
        new = [name for name, weight in built.state_dict().items() if not torch.equal(weight, before[name])]
        assert new and all("classifier" in name for name in new)
        assert built.config.id2label == {0: "run", 1: "jump", 2: "sit"}
        assert built.config.label2id == {"run": 0, "jump": 1, "sit": 2}
        output = all_states(built, inputs)
        assert output["logits"].shape[-1] == 3
        built.save_pretrained(folder)
        loaded = model.model_class.from_pretrained(folder, attn_implementation="eager")
        assert loaded.config.id2label == built.config.id2label
        assert_close("saved with other classes", output, all_states(loaded, inputs), EXACT)
        built.reset_classifier(5)
        assert built.config.num_labels == 5 and built.config.id2label[4] == "LABEL_4"
        for arguments in ({"num_labels": 0}, {"num_labels": 2, "labels": ["a", "a"]}, {"num_labels": 2, "colors": 3}):
            with pytest.raises(ValueError, match="Expected "):
                built.reset_classifier(**arguments)


class DeviceMixin(FamilyTest):
    """Construction without memory, number formats, buffers, seeds, backends."""

    @over(models)
    def test_meta_device(self, model: ModelSpec):
        with torch.device("meta"):
            empty = model.model_class(self.spec.config(model))
        tensors = dict(empty.named_parameters()) | dict(empty.named_buffers())
        assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
        assert set(empty.state_dict()) == {name for name, _ in empty.named_parameters()}, "buffers are not to be saved"
        for name, module in empty.named_modules():
            loose = [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)]
            assert not loose, f"{name}: {loose} would stay behind when the model moves; make them buffers"

    @over(models)
    def test_empty_model_can_be_filled(self, model: ModelSpec):
        built = self.shared(model)
        with torch.device("meta"):
            empty = model.model_class(self.spec.config(model, attn_implementation="eager")).eval()
        empty.load_state_dict(built.state_dict(), assign=True)
        inputs = self.spec.inputs(model)
        assert_close("filled from the meta device", self.states(model), all_states(empty, inputs), EXACT)

    @over(models, HALF_PRECISION)
    def test_dtype(self, model: ModelSpec, dtype: torch.dtype):
        folder = self.temporary_folder()
        built, inputs = self.shared(model), self.spec.inputs(model)
        expected, terms = self.states(model), model.terms(built, self.states(model))
        built.save_pretrained(folder)
        loaded = model.model_class.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        exact = tuple(f"{part}." for part in model.model_class._keep_in_fp32_modules_strict or ())
        for name, parameter in loaded.named_parameters():
            assert parameter.dtype == (torch.float32 if name.startswith(exact) else dtype), name
        for attention in ("eager", "sdpa"):
            loaded.set_attn_implementation(attention)
            # Video processors give float32 whatever the model has.
            for given in (inputs, to_dtype(inputs, dtype)):
                actual = all_states(loaded, given)
                assert actual[model.output].dtype == dtype
                assert_close(f"{dtype} and float32 ({attention})", expected, actual, DTYPES[dtype], terms)

    @over(models)
    def test_seeds(self, model: ModelSpec):
        def weights(seed: int) -> dict[str, torch.Tensor]:
            torch.manual_seed(seed)
            return model.model_class(self.spec.config(model)).state_dict()

        first = weights(1)
        assert_close("two models of one seed", first, weights(1), EXACT)
        other = weights(2)
        same = [name for name, tensor in first.items() if torch.equal(tensor, other[name])]
        assert all((first[name] == first[name].flatten()[0]).all() for name in same), same

    @over(models)
    def test_construction_draws_every_weight(self, model: ModelSpec):
        """Not what torch's linear layers draw for themselves."""

        @torch.no_grad()
        def leave_rubbish(layer: nn.Linear) -> None:
            for parameter in layer.parameters():
                parameter.fill_(math.nan)

        with patch.object(nn.Linear, "reset_parameters", leave_rubbish):
            built = model.model_class(self.spec.config(model))
        left = [name for name, parameter in built.named_parameters() if parameter.isnan().any()]
        assert not left, f"not drawn: {left}"

    @over(models)
    def test_every_module_initializes(self, model: ModelSpec):
        """Loading leaves what a file lacks to `_init_weights`, which must reach every parameter."""
        torch.manual_seed(0)
        built = model.model_class(self.spec.config(model))
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.fill_(math.nan)
        for module in built.modules():
            built._init_weights(module)
        left = [name for name, parameter in built.named_parameters() if parameter.isnan().any()]
        assert not left, f"not initialized: {left}"

    @over(models)
    def test_backend_can_be_changed(self, model: ModelSpec):
        built, inputs = self.spec.build(model), self.spec.inputs(model)
        eager = all_states(built, inputs)
        for attention, tolerance in (("sdpa", REORDERED), ("eager", EXACT)):
            built.set_attn_implementation(attention)
            configs = {id(module.config): module.config for module in built.modules() if hasattr(module, "config")}
            assert {config._attn_implementation for config in configs.values()} == {attention}
            assert_close(f"switched to {attention}", eager, all_states(built, inputs), tolerance)


class TrainingMixin(FamilyTest):
    """Gradients, with checkpointing and without."""

    @over(models)
    def test_every_parameter_has_a_gradient(self, model: ModelSpec):
        built = self.spec.build(model).train()
        found = gradients(built, model, training_inputs(self.spec, model))
        for name, gradient in found.items():
            assert gradient is not None, f"{name} takes no part in the loss"
            assert gradient.isfinite().all(), f"{name} has a gradient that is not finite"
            assert gradient.abs().max() > 0, f"{name} has no gradient"
        for name in model.idle:
            assert built.get_parameter(name).grad is None, f"{name} takes part in the loss"

    @over(models)
    def test_a_step_lowers_the_loss(self, model: ModelSpec):
        built, inputs = self.spec.build(model).train(), training_inputs(self.spec, model)
        found = gradients(built, model, inputs)
        before = model.loss(built(**inputs)).item()
        length = torch.stack([gradient.norm() for gradient in found.values()]).norm()
        with torch.no_grad():
            for name, gradient in found.items():
                built.get_parameter(name).sub_(1e-3 * gradient / length)
        assert model.loss(built(**inputs)).item() < before

    @over(models)
    def test_gradient_checkpointing(self, model: ModelSpec):
        inputs = training_inputs(self.spec, model)
        plain, saving = self.spec.build(model).train(), self.spec.build(model).train()
        enable_checkpointing(saving)
        runs = [count_block_runs(built) for built in (plain, saving)]
        expected, actual = (gradients(built, model, inputs) for built in (plain, saving))
        assert runs[0]
        assert len(runs[1]) == 2 * len(runs[0]), "blocks are to run again in the backward pass"
        assert_close("gradients with checkpointing", expected, actual, GRADIENTS)

    @pytest.mark.slow
    @over(first_model, ["aot_eager", "inductor"])
    def test_training_compiles(self, model: ModelSpec, compiler: str):
        """Forward and backward in one graph each: run as they are, and compiled to machine code."""
        if compiler == "inductor" and not self.spec.machine_code:
            raise SkipTest(MACHINE_CODE_ELSEWHERE)
        torch._dynamo.reset()
        built = self.spec.build(model, attention="sdpa", **model.shallow).train()
        inputs = training_inputs(self.spec, model)
        expected = gradients(built, model, inputs)
        compiled = torch.compile(built, fullgraph=True, backend=compiler)
        built.zero_grad()
        model.loss(compiled(**inputs)).backward()
        actual = {name: parameter.grad for name, parameter in built.named_parameters()}
        assert_close(f"gradients, {compiler}", expected, actual, GRADIENTS)


class GraphMixin(FamilyTest):
    """`torch.compile` without graph breaks, and `torch.export`."""

    @over(first_model)
    def test_compiles_to_one_graph(self, model: ModelSpec):
        self._check_compilation(model, {"default": lambda *call: {}})

    @pytest.mark.slow
    @over(models)
    def test_every_call_compiles_to_one_graph(self, model: ModelSpec):
        further = model is not self.spec.models[0]
        self._check_compilation(model, {**({"default": lambda *call: {}} if further else {}), **model.calls})

    def _check_compilation(self, model: ModelSpec, calls: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
        """The graph is what can break; the backend that runs it as it is takes a tenth of the time of others."""
        built = self.spec.build(model, attention="sdpa", **model.shallow)
        for name, more in calls.items():
            torch._dynamo.reset()
            inputs = {**self.spec.inputs(model), **more(built.config, 2, self.spec.size)}
            compiled = torch.compile(built, fullgraph=True, backend="eager")
            assert_close(f"compiled ({name})", all_states(built, inputs), all_states(compiled, inputs), REORDERED)

    @over(models)
    def test_outputs_can_be_rebuilt_by_compiled_training(self, model: ModelSpec):
        """torch 2.13 remembers freed memory for a view of a product without bias (pytorch/pytorch#185630)."""
        built = self.spec.build(model).train()
        for name, output in stages(built(**training_inputs(self.spec, model))).items():
            origin = output._base.grad_fn if output._is_view() else None
            assert origin is None or origin.name() != "UnsafeViewBackward0", f"{name}: slice before the product"

    @pytest.mark.slow
    @over(models)
    def test_export(self, model: ModelSpec):
        if not isinstance(model.export, Export):
            raise SkipTest(model.export)
        built, (batch, size) = self.spec.build(model, attention="sdpa", **model.shallow), model.export.example
        inputs = self.spec.inputs(model, batch, size)
        with torch.no_grad():
            program = torch.export.export(built, (), inputs, dynamic_shapes=model.export.dynamic_shapes())
        assert torch.ops.aten.sort.stable not in {node.target for node in program.graph.nodes}, "ONNX has none"
        exported = program.module()
        for batch, size in (model.export.example, model.export.other):
            inputs = self.spec.inputs(model, batch, size, seed=1)
            with torch.no_grad():
                expected, actual = stages(built(**inputs)), stages(exported(**inputs))
            assert_close(f"exported, {batch} videos of {size}", expected, actual, REORDERED)


class PresetMixin(FamilyTest):
    """The published checkpoints."""

    @over(presets)
    def test_presets_are_buildable(self, preset: str):
        record = self.spec.family.presets[preset]
        config = getattr(vidformers, record.architecture).config_class(**record.config)
        with torch.device("meta"):
            built = getattr(vidformers, record.architecture)(config)
        assert record.architecture in self.spec.family.model_classes
        assert sum(parameter.numel() for parameter in built.parameters()) > 1e6
        model = next(model for model in self.spec.models if model.name == record.architecture)
        if isinstance(model.stock, Stock) and not set(record.config) & set(model.stock.lacks):
            config_class, model_class = model.stock.classes()
            with torch.device("meta"):
                theirs = model_class(config_class(**{**record.config, **model.stock.config}))
            found = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
            assert found == model.stock.stored_shapes(theirs)


class ModelingMixin(StorageMixin, OutputMixin, ClassifierMixin, DeviceMixin, TrainingMixin, GraphMixin, PresetMixin):
    """All tests of a model class."""
