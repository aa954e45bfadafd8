"""The shared tests can fail: each topic is shown a model, processor, map or registration with a planted fault."""

import unittest
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import vidformers
from tests.harness import fresh
from tests.harness import modeling as modeling_tests
from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin, auto_models
from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close, compare, stages
from tests.harness.config import ConfigMixin
from tests.harness.conversion import ConversionMixin
from tests.harness.family_spec import Called, GoldenRun
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import COMMITTED, ParityMixin, recorded, unknown_cases
from tests.harness.positions import PositionsMixin
from tests.harness.processing import ProcessingMixin
from tests.harness.tolerances import EXACT, GOLDEN, REORDERED
from tests.pe_core.spec import CORE_MODEL
from tests.pe_core.spec import SPEC as PE_CORE
from tests.test_families import MIXINS
from tests.vjepa2.spec import ANTICIPATION, CLASSIFIER, GOLDENS, MODEL, SPEC
from vidformers.conversion.ops import Split
from vidformers.conversion.vjepa2 import checkpoint
from vidformers.layers.patchify import Grid
from vidformers.models.vjepa2 import modeling_vjepa2 as modeling
from vidformers.models.vjepa2 import modeling_vjepa2_probes as probes


pytestmark = pytest.mark.slow

CASES = {case.folder[0]: case for case in GOLDENS if case.committed}


class AnyTest(*MIXINS, unittest.TestCase):
    """All shared tests, none of them written out."""

    __test__ = False


@pytest.fixture
def check():
    """Run a shared test of V-JEPA 2, with its arguments."""
    case = AnyTest()

    def check(test, *arguments, spec=SPEC):
        case.spec, case.made = spec, {}
        test(case, *arguments)

    yield check
    case.doCleanups()


@pytest.fixture
def wrap(monkeypatch):
    """Replace a function by one that gets the original as its first argument."""

    def wrap(owner, name, fault):
        monkeypatch.setattr(owner, name, _method(getattr(owner, name), fault))

    return wrap


def _method(original, fault):
    def wrapper(*args, **kwargs):
        return fault(original, *args, **kwargs)

    return wrapper


def after_init(change):
    """A fault that changes a module once it is built."""

    def fault(original, self, *args, **kwargs):
        original(self, *args, **kwargs)
        change(self)

    return fault


def fails(match=None):
    return pytest.raises(AssertionError, match=match)


# -------------------------------------------------------------------------------------------------- comparison


def test_the_table_marks_the_first_stage_that_diverges():
    expected = {name: torch.ones(2, 3) for name in ("embedding", "block", "head")}
    actual = {"embedding": torch.ones(2, 3), "block": torch.ones(2, 3) + 1e-3, "head": torch.ones(2, 3) * 2}
    table = compare("a model", expected, actual, REORDERED)
    title, header, *rows = str(table).splitlines()
    assert table.first_diverging == "block"
    assert title.startswith("a model: block diverges")
    assert header.split() == ["stage", "max", "abs", "limit", "relative", "cosine", "shape"]
    assert [row.partition("<")[2] for row in rows] == ["", "== first stage that diverges", "- diverges"]
    assert rows[2].split()[:5] == ["head", "1.00e+00", "1.00e-05", "1.00e+00", "1.0000000"]
    with fails(match="first stage that diverges"):
        assert_close("a model", expected, actual, REORDERED)


@pytest.mark.parametrize(
    "actual", [{}, {"x": torch.ones(3, 2)}, {"x": torch.full((2, 3), torch.nan)}, {"x": torch.full((2, 3), torch.inf)}]
)
def test_what_is_missing_misshapen_or_not_a_number_diverges(actual):
    with fails():
        assert_close("x", {"x": torch.ones(2, 3)}, actual, GOLDEN)


@pytest.mark.parametrize("tolerance", [EXACT, GOLDEN], ids=["exact", "golden"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_diverges_from_itself(value, tolerance):
    with fails():
        assert_close("x", {"x": torch.tensor([1.0, value])}, {"x": torch.tensor([1.0, value])}, tolerance)


def test_values_of_two_dtypes_are_compared():
    table = compare("x", {"x": torch.ones(2)}, {"x": torch.ones(2, dtype=torch.bfloat16) + 1}, GOLDEN)
    assert table.stages[0].max_abs == 1.0


def test_nothing_to_compare_is_a_failure():
    with fails(match="nothing to compare"):
        assert_close("nothing", {}, {}, EXACT)


def test_golden_limit_grows_with_outputs_beyond_one():
    assert GOLDEN.limit(torch.tensor([0.5, -0.1])) == pytest.approx(1e-5)
    assert GOLDEN.limit(torch.tensor([0.5, -4.0])) == pytest.approx(4e-5)


def test_stages_hold_every_tensor():
    output = SPEC.build(MODEL)(**SPEC.inputs(MODEL), output_hidden_states=True)
    names = list(stages(output))
    assert names[:4] == [f"hidden_states.{index}" for index in range(4)]
    assert "predictor_output.hidden_states.2" in names
    assert "predictor_output.target_hidden_state" in names


# ------------------------------------------------------------------------------------------------------ config


def test_config_field_lost_on_disk(check, wrap):
    def lose(original, self):
        return {name: value for name, value in original(self).items() if name != "mlp_ratio"}

    wrap(vidformers.VJEPA2Config, "to_diff_dict", lose)
    with fails("mlp_ratio"):
        check(ConfigMixin.test_round_trip, MODEL)


def test_config_default_changed(check, wrap):
    wrap(
        vidformers.VJEPA2Config,
        "__init__",
        lambda original, self, **kw: original(self, **{"layer_norm_eps": 1e-5, **kw}),
    )
    with fails("layer_norm_eps"):
        check(ConfigMixin.test_defaults_are_those_of_transformers, MODEL)


def test_config_field_undocumented(check, monkeypatch):
    text = vidformers.VJEPA2Config.__doc__
    monkeypatch.setattr(vidformers.VJEPA2Config, "__doc__", text.replace("tubelet_size (", "tubelets ("))
    with fails("tubelet_size"):
        check(ConfigMixin.test_every_field_is_documented)


def test_config_type_that_the_model_cannot_use(check, wrap):
    def refuse_whole_numbers(original, self, config, *args, **kwargs):
        assert isinstance(config.mlp_ratio, float), "range() takes no float"
        original(self, config, *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "__init__", refuse_whole_numbers)
    with fails("takes no float"):
        check(ConfigMixin.test_advertised_types_construct, MODEL)


# ---------------------------------------------------------------------------------------------------- modeling


def test_eps_changed(check, wrap):
    wrap(modeling.VJEPA2Layer, "__init__", after_init(lambda layer: setattr(layer.norm2, "eps", 1e-3)))
    with fails("hidden_states.1 diverges"):
        check(ModelingMixin.test_transformers_loads_ours, MODEL)
    with fails("hidden_states.1 diverges"):
        check(ModelingMixin.test_loads_what_transformers_saves, MODEL)


def add_parameter(module):
    module.spare = nn.Parameter(torch.ones(1))


def test_parameter_that_nobody_else_has(check, wrap):
    wrap(modeling.VJEPA2Encoder, "__init__", after_init(add_parameter))
    with fails("encoder.spare"):
        check(ModelingMixin.test_names_on_disk_are_those_of_transformers, MODEL)
    with fails("encoder.spare takes no part"):
        check(ModelingMixin.test_every_parameter_has_a_gradient, MODEL)


def test_weights_lost_on_disk(check, wrap):
    def save_other(original, self, folder):
        with torch.no_grad():
            self.encoder.layernorm.bias += 1
        original(self, folder)
        with torch.no_grad():
            self.encoder.layernorm.bias -= 1

    wrap(vidformers.VJEPA2Model, "save_pretrained", save_other)
    with fails("last_hidden_state diverges"):
        check(ModelingMixin.test_save_and_load, MODEL)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("check_model_type", ModelingMixin.test_directories_of_other_models_are_refused),
        ("check_weights", ModelingMixin.test_missing_weights_are_an_error),
    ],
)
def test_random_models_in_the_place_of_errors(check, monkeypatch, fault, test):
    check(test, CLASSIFIER)
    monkeypatch.setattr(f"vidformers.models.pretrained.{fault}", lambda *arguments: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check(test, CLASSIFIER)


def test_new_heads_refused(check, monkeypatch):
    """As if every missing tensor were an error."""
    check(ModelingMixin.test_heads_may_be_new, CLASSIFIER)

    def strict(model, path, missing):
        if missing:
            raise ValueError("something is missing")

    monkeypatch.setattr("vidformers.models.pretrained.check_weights", strict)
    with pytest.raises(ValueError, match="something is missing"):
        check(ModelingMixin.test_heads_may_be_new, CLASSIFIER)


def test_hidden_state_left_out(check, monkeypatch):
    kept = modeling.Records.hidden_states.fget
    monkeypatch.setattr(
        modeling.Records, "hidden_states", property(lambda records: kept(records) and kept(records)[:-1])
    )
    with fails():
        check(ModelingMixin.test_hidden_states_and_attentions, MODEL)


def test_videos_of_a_batch_mixed(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x - x.mean(0, keepdim=True)))
    with fails("hidden_states.1 diverges"):
        check(ModelingMixin.test_batch_is_invariant, MODEL)


def test_input_changed_in_place(check, wrap):
    wrap(modeling.VJEPA2Encoder, "forward", lambda original, self, video, *a, **kw: original(self, video.mul_(2), *a))
    with fails("pixel_values_videos diverges"):
        check(ModelingMixin.test_inputs_are_left_alone, CLASSIFIER)


def test_table_that_is_no_buffer(check, wrap):
    wrap(modeling.VJEPA2Encoder, "__init__", after_init(lambda module: setattr(module, "table", torch.zeros(3))))
    with fails("encoder.*table"):
        check(ModelingMixin.test_meta_device, MODEL)


def test_buffer_that_is_saved(check, wrap):
    wrap(
        modeling.VJEPA2Encoder, "__init__", after_init(lambda module: module.register_buffer("table", torch.zeros(3)))
    )
    with fails("not to be saved"):
        check(ModelingMixin.test_meta_device, MODEL)


def test_module_left_uninitialized(check, wrap):
    def skip_norms(original, self, module):
        if not isinstance(module, nn.LayerNorm):
            original(self, module)

    wrap(modeling.VJEPA2PreTrainedModel, "_init_weights", skip_norms)
    with fails("not initialized.*norm1"):
        check(ModelingMixin.test_every_module_initializes, MODEL)


def test_float32_out_of_a_half_model(check, wrap):
    wrap(probes.AttentivePooler, "forward", lambda original, self, tokens: original(self, tokens).float())
    with pytest.raises((AssertionError, RuntimeError), match="dtype"):
        check(ModelingMixin.test_dtype, CLASSIFIER, torch.bfloat16)


def test_rounding_inside_a_float32_model(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x.bfloat16().to(x.dtype)))
    with fails("hidden_states.1 diverges"):
        check(ModelingMixin.test_transformers_loads_ours, MODEL)


def test_checkpointing_without_effect(check, monkeypatch):
    monkeypatch.setattr(modeling_tests, "enable_checkpointing", lambda model: None)
    with fails("run again"):
        check(ModelingMixin.test_gradient_checkpointing, MODEL)


def test_graph_break(check, wrap):
    def break_graph(original, self, *args, **kwargs):
        torch._dynamo.graph_break()
        return original(self, *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "forward", break_graph)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        check(ModelingMixin.test_compiles_to_one_graph, CLASSIFIER)


def test_export_with_a_fixed_number_of_frames(check, wrap):
    def fixed(original, self, video, *args, **kwargs):
        return original(self, video[:, : int(video.shape[1])], *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "forward", fixed)
    with pytest.raises((ValueError, torch._dynamo.exc.UserError), match="steps"):
        check(ModelingMixin.test_export, CLASSIFIER)


# --------------------------------------------------------------------------------------------------- attention


def double_scaling(backend, original, module, *args, scaling, **kwargs):
    scaling = 2 * scaling if module.config._attn_implementation == backend else scaling
    return original(module, *args, scaling=scaling, **kwargs)


@pytest.mark.parametrize("model", [MODEL, CLASSIFIER, ANTICIPATION], ids=lambda model: model.name)
def test_backend_with_another_scaling(check, wrap, model):
    wrap(modeling, "attention", partial(double_scaling, "sdpa"))
    for test in (AttentionMixin.test_forward, AttentionMixin.test_backward):
        for dtype in (torch.float32, torch.bfloat16):
            with fails("sdpa"):
                check(test, model, "sdpa", dtype)
    with fails("switched to sdpa: hidden_states.1"):
        check(ModelingMixin.test_backend_can_be_changed, model)


def test_attention_that_is_uniform(check, wrap):
    def no_scores(original, *args, scaling, **kwargs):
        return original(*args, scaling=0.0, **kwargs)

    wrap(modeling, "attention", no_scores)
    with fails():
        check(AttentionMixin.test_attention_matters, MODEL)


def test_probabilities_of_another_computation(check, wrap):
    def shifted(original, module, *args, **kwargs):
        attended, probabilities = original(module, *args, **kwargs)
        return attended, probabilities.roll(1, -1) if module.config._attn_implementation == "sdpa" else probabilities

    wrap(modeling, "attention", shifted)
    with fails("attentions.0 diverges"):
        check(AttentionMixin.test_probabilities_on_request, MODEL)


# ----------------------------------------------------------------------------------------------------- citizen


def read_weight(original, self, x):
    """An MLP that computes around its second layer."""
    return nn.functional.linear(self.activation(self.fc1(x)), self.fc2.weight, self.fc2.bias)


def test_weight_that_a_forward_reads(check, wrap):
    wrap(modeling.Mlp, "forward", read_weight)
    with fails("adapters and merged: hidden_states.1 diverges"):
        check(CitizenMixin.test_adapters_can_be_merged, MODEL)
    with fails("adapter of encoder.layer.0.mlp.fc2 has no gradient"):
        check(CitizenMixin.test_adapters_learn, MODEL)
    with pytest.raises(RuntimeError, match="dtype"):
        check(CitizenMixin.test_linear_layers_can_be_replaced, MODEL)
    with pytest.raises(RuntimeError, match="meta"):
        check(CitizenMixin.test_parameters_can_be_elsewhere, MODEL)
    with fails(r"encoder.layer.0.mlp.fc2 \(default\): \[\] rows in its calls, expected \[3\]"):
        check(CitizenMixin.test_hooks_see_every_call, MODEL)


def test_adapter_whose_output_is_cut_off(check, wrap):
    wrap(modeling.VJEPA2Layer, "forward", lambda original, self, x, **kw: original(self, x.detach(), **kw))
    with fails("adapter of predictor.embeddings.predictor_embeddings has no gradient"):
        check(CitizenMixin.test_adapters_learn, MODEL)


def test_adapter_with_a_gradient_of_zeros(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: 0 * original(self, x))
    with fails("adapter of encoder.layer.0.mlp.fc1 has a gradient of zeros"):
        check(CitizenMixin.test_adapters_learn, MODEL)


def test_adapter_with_a_gradient_that_is_not_finite(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: (original(self, x) * 0).sqrt() + x)
    with fails("gradient that is not finite"):
        check(CitizenMixin.test_adapters_learn, MODEL)


def test_input_cast_to_the_type_of_a_weight(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x.to(self.fc1.weight.dtype).to(x.dtype)))
    with fails("layers in int8: hidden_states.1 diverges"):
        check(CitizenMixin.test_linear_layers_can_be_replaced, MODEL)


def test_stand_in_that_is_wrong_by_a_quarter(check, wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x) * (0.75 if is_replaced(self) else 1))
    with fails("layers in int8"):
        check(CitizenMixin.test_linear_layers_can_be_replaced, MODEL)


def is_replaced(mlp):
    return not isinstance(mlp.fc2, nn.Linear)


def test_own_parameters_read_outside_of_forward(check, monkeypatch):
    check(CitizenMixin.test_parameters_can_be_elsewhere, CORE_MODEL, spec=PE_CORE)
    monkeypatch.setattr(vidformers.PeCoreModel, "compare", vidformers.PeCoreModel.compare.__wrapped__)
    with pytest.raises(RuntimeError, match="meta"):
        check(CitizenMixin.test_parameters_can_be_elsewhere, CORE_MODEL, spec=PE_CORE)


@pytest.mark.parametrize(
    ("fault", "calls"),
    {
        "twice": (lambda original, self, x: (original(self, x) + original(self, x)) / 2, r"fc1 \(default\): \[3, 3\]"),
        "video by video": (
            lambda original, self, x: torch.cat([original(self, video) for video in x.split(1)]),
            r"fc1 \(default\): \[1, 1, 1\]",
        ),
        "tokens without their video": (
            lambda original, self, x: original(self, x.flatten(0, 1)).view_as(x),
            r"fc1 \(default\): \[96\]",
        ),
    }.values(),
    ids=["twice", "video by video", "tokens without their video"],
)
def test_module_called_another_way(check, wrap, fault, calls):
    wrap(modeling.Mlp, "forward", fault)
    with fails(rf"encoder.layer.0.mlp.{calls} rows in its calls, expected \[3\]"):
        check(CitizenMixin.test_hooks_see_every_call, MODEL)


def test_output_that_depends_on_being_watched(check, wrap):
    def differ(original, self, x):
        return original(self, x) * (1.001 if self.fc1._forward_hooks else 1)

    wrap(modeling.Mlp, "forward", differ)
    with fails("watched .default.: hidden_states.1 diverges"):
        check(CitizenMixin.test_hooks_see_every_call, MODEL)


def test_called_speaks_of_no_module(check):
    called = (*MODEL.called, Called("encoder.nothing*", "there is no such module", lambda config, size: []))
    with fails("aren't there.*encoder.nothing"):
        check(CitizenMixin.test_hooks_see_every_call, replace(MODEL, called=called))


class OwnLinear(nn.Linear):
    pass


@pytest.mark.parametrize(("layer", "kind"), [("fc1", OwnLinear), ("fc2", nn.Bilinear)], ids=["derived", "another"])
def test_layer_of_another_class(check, wrap, layer, kind):
    def derive(mlp):
        getattr(mlp, layer).__class__ = kind

    wrap(modeling.Mlp, "__init__", after_init(derive))
    with fails(rf"encoder.layer.0.mlp.{layer} is a {kind.__name__} with a weight of shape"):
        check(CitizenMixin.test_layers_are_those_of_torch, MODEL)


def test_own_layer_that_no_model_has(check):
    with fails("classes that no model has"):
        check(CitizenMixin.test_own_layers_are_used, spec=replace(SPEC, own_layers={"OwnLinear": "it has a reason"}))


# --------------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("axis", ["time", "height", "width"])
def test_axis_without_positions(check, wrap, axis):
    index = ["time", "height", "width"].index(axis)

    def forget(original, positions, *args, **kwargs):
        positions = [place * 0 if number == index else place for number, place in enumerate(positions)]
        return original(tuple(positions), *args, **kwargs)

    wrap(modeling, "rotary_table", forget)
    with fails(f"order along {axis}"):
        check(PositionsMixin.test_order_matters, MODEL, axis)


def test_grid_from_the_configuration(check, wrap):
    def configured(original, config, token_ids, grid, *args, **kwargs):
        side = config.crop_size // config.patch_size
        return original(config, token_ids, Grid(grid.t, side, side), *args, **kwargs)

    wrap(modeling, "rotary_for", configured)
    with fails("two configured sizes"):
        check(PositionsMixin.test_configured_size_is_not_read)


def test_positions_in_bfloat16(check, wrap):
    def rounded(original, positions, *args, dtype, **kwargs):
        return original(tuple(place.to(dtype) for place in positions), *args, dtype=dtype, **kwargs)

    wrap(modeling, "rotary_table", rounded)
    with fails("bfloat16"):
        check(PositionsMixin.test_many_frames_in_16_bits, torch.bfloat16)


@pytest.mark.parametrize("off_size", [off for off in MODEL.off_sizes if off.kept], ids=str)
def test_silent_cut(check, wrap, off_size):
    def silent(original, video, tubelet_size, patch_size):
        frames, _, height, width = video.shape[1:]
        video = video[:, : frames - frames % tubelet_size, :, : height - height % patch_size]
        return original(video[..., : width - width % patch_size], tubelet_size, patch_size)

    wrap(modeling, "cut_to_tubelets", silent)
    with fails():
        check(PositionsMixin.test_off_size, MODEL, off_size)


def test_cut_at_the_wrong_end(check, wrap):
    wrap(modeling, "cut_to_tubelets", lambda original, video, *sizes: video_end(original(video, *sizes), video))
    with fails("cut by the model and before it"):
        check(PositionsMixin.test_off_size, MODEL, MODEL.off_sizes[3])


def video_end(cut, video):
    return video[:, -cut[0].shape[1] :], cut[1]


# -------------------------------------------------------------------------------------------------- processing


def test_wrong_mean(check, monkeypatch):
    monkeypatch.setattr(vidformers.VJEPA2VideoProcessor, "image_mean", [0.5, 0.456, 0.406])
    with fails("one color"):
        check(ProcessingMixin.test_values)


def test_wrong_frames_sampled(check, wrap):
    wrap(
        vidformers.VJEPA2VideoProcessor,
        "sample_frames",
        lambda original, self, metadata, **kw: np.minimum(
            original(self, metadata, **kw) + 1, metadata.total_num_frames - 1
        ),
    )
    with fails("sampled while decoding"):
        check(ProcessingMixin.test_sampled_frames, "variable_rate")


def test_stale_frames(check, wrap):
    processor = import_module("vidformers.video.processor")

    def repeat_first(original, *args, **kwargs):
        frames, metadata = original(*args, **kwargs)
        return np.repeat(frames[:1], len(frames), axis=0), metadata

    wrap(processor, "decode_video", repeat_first)
    with fails("file and decoded frames"):
        check(ProcessingMixin.test_file, "short")


def test_bad_file_accepted(check, monkeypatch):
    processor = import_module("vidformers.video.processor")
    frames = np.zeros((2, 40, 40, 3), dtype=np.uint8)
    monkeypatch.setattr(processor, "decode_video", lambda *args, **kwargs: (frames, None))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check(ProcessingMixin.test_bad_file, "text")


def test_colors_of_one_form_swapped(check, wrap):
    inputs = import_module("vidformers.video.inputs")
    wrap(inputs, "_pil_to_array", lambda original, image: original(image)[..., ::-1])
    with fails("list of images"):
        check(ProcessingMixin.test_forms_of_one_video)


# -------------------------------------------------------------------------------------------------------- auto


@pytest.mark.parametrize(("auto", "model"), auto_models(SPEC), ids=lambda value: getattr(value, "name", value))
def test_registration_missing(check, monkeypatch, auto, model):
    mapping = getattr(transformers, auto)._model_mapping
    monkeypatch.delitem(mapping._extra_content, vidformers.VJEPA2Config)
    with pytest.raises((AssertionError, ValueError)):
        check(AutoMixin.test_auto_model, auto, model)


def test_processor_registration_missing(check, monkeypatch):
    module = import_module("transformers.models.auto.video_processing_auto")
    monkeypatch.delitem(module.VIDEO_PROCESSOR_MAPPING._extra_content, vidformers.VJEPA2Config)
    with pytest.raises((AssertionError, ValueError, ImportError)):
        check(AutoMixin.test_auto_video_processor)


def test_registration_missing_after_import(check, monkeypatch):
    imports = "import os\nos.environ['VIDFORMERS_AUTO'] = '0'\nimport transformers\nimport vidformers\n"
    monkeypatch.setitem(fresh.IMPORTS, "order", imports)
    with fails("AutoModel"):
        check(AutoMixin.test_import_orders, "order")


def test_model_class_without_a_spec(check):
    with fails():
        check(AutoMixin.test_every_class_has_a_spec, spec=replace(SPEC, models=SPEC.models[:2]))


# -------------------------------------------------------------------------------------------------- conversion


def change_encoder_rules(monkeypatch, change):
    """Replace each of the encoder's rules by those that `change` makes of it."""
    original = checkpoint.encoder_rules

    def changed(*args, **kwargs):
        for entry in original(*args, **kwargs):
            yield from change(entry)

    monkeypatch.setattr(checkpoint, "encoder_rules", changed)


def test_rule_missing(check, monkeypatch):
    change_encoder_rules(monkeypatch, lambda entry: [] if "layernorm.bias" in entry.ours else [entry])
    with fails("encoder.layernorm.bias"):
        check(ConversionMixin.test_every_tensor_has_one_rule, MODEL)
    with fails():
        check(ConversionMixin.test_round_trip, MODEL)


def test_operation_that_does_not_invert(check, wrap):
    wrap(Split, "inverse", lambda original, self, tensors: original(self, tensors[::-1]))
    with fails("there and back: .*attention"):
        check(ConversionMixin.test_round_trip, MODEL)
    with fails("c_encoder_nonsquare: encoder/blocks.0.attn.qkv.weight diverges"):
        check(ConversionMixin.test_golden_files_come_back, CASES["c"])


def swap_query_and_key(entry):
    if not any(name.endswith("attention.query.weight") for name in entry.ours):
        return [entry]
    query, key, value = entry.ours
    return [replace(entry, ours=(key, query, value))]


def test_queries_and_keys_swapped_in_the_rules(check, monkeypatch):
    change_encoder_rules(monkeypatch, swap_query_and_key)
    check(ConversionMixin.test_round_trip, MODEL)  # it inverts, so that only numbers tell
    with fails("last_0 diverges"):
        check(ParityMixin.test_golden, CASES["c"], "eager")


def test_tensor_that_parity_does_not_notice(check):
    """A run that computes nothing and repeats the recording."""
    case = CASES["c"]

    def recite(model, inputs):
        return recorded(COMMITTED / "vjepa2" / case.folder)[1]

    blind = replace(case, runs=(GoldenRun("", case.runs[0].arguments, recite),))
    with fails("change of encoder/blocks.0.*encoder/patch_embed.proj.weight"):
        check(ConversionMixin.test_parity_notices_every_tensor, blind)


def test_tensor_wrongly_called_blind(check):
    case = replace(CASES["c"], blind={"norm.weight": "nothing depends on it, they say"})
    with fails("a change shows: norm.weight"):
        check(ConversionMixin.test_parity_notices_every_tensor, case)


# ------------------------------------------------------------------------------------------------------ parity


def test_rope_pairing_switched(check, wrap):
    wrap(modeling, "rotary_table", lambda original, *a, pairing, **kw: original(*a, pairing="interleaved", **kw))
    for letter in "cef":  # V-JEPA 2; 2.1 has the other pairing
        with fails("first stage that diverges"):
            check(ParityMixin.test_golden, CASES[letter], "sdpa")


def test_context_mask_applied_after_the_encoder(check, wrap):
    def late(original, self, video, context_mask=None, *args, **kwargs):
        output = original(self, video, None, *args, **kwargs)
        if context_mask is not None:
            ids = modeling.join_masks("context_mask", context_mask, video)
            output.last_hidden_state = modeling.select_tokens(output.last_hidden_state, ids)
        return output

    wrap(modeling.VJEPA2Encoder, "forward", late)
    with fails("e_predictor.*: context diverges"):
        check(ParityMixin.test_golden, CASES["e"], "eager")


def test_mask_index_ignored(check, wrap):
    wrap(
        modeling.VJEPA2PredictorEmbeddings,
        "forward",
        lambda original, *args, mask_index, **kwargs: original(*args, **kwargs),
    )
    with fails("pred_index0 diverges"):
        check(ParityMixin.test_golden, CASES["e"], "eager")


def test_output_that_no_run_reproduces(check):
    case = CASES["c"]
    first = GoldenRun(
        "", case.runs[0].arguments, lambda model, inputs: dict([*case.runs[0].outputs(model, inputs).items()][:1])
    )
    with fails("no run reproduces"):
        check(ParityMixin.test_golden, replace(case, runs=(first,)), "eager")


def test_committed_case_missing(check):
    with fails("is missing"):
        check(ParityMixin.test_golden, replace(CASES["c"], folder="c_encoder_nowhere"), "eager")
    with fails():
        check(ParityMixin.test_committed_selection, spec=replace(SPEC, goldens=GOLDENS[:1]))


def test_case_that_no_spec_names():
    assert not unknown_cases([SPEC])
    assert "c_encoder_nonsquare" in unknown_cases([replace(SPEC, goldens=GOLDENS[:2])])
