"""The shared tests can fail: each topic is shown a model, processor, map or registration with a planted fault."""

from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import vidformers
from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.compare import assert_close, compare, stages
from tests.harness.config import ConfigMixin
from tests.harness.conversion import ConversionMixin
from tests.harness.family_spec import GoldenRun
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import COMMITTED, ParityMixin, recorded
from tests.harness.positions import PositionsMixin
from tests.harness.processing import ProcessingMixin
from tests.harness.tolerances import EXACT, GOLDEN, REORDERED
from tests.vjepa2.spec import ANTICIPATION, CLASSIFIER, GOLDENS, MODEL, SPEC
from vidformers.conversion.core import Split
from vidformers.conversion.vjepa2 import checkpoint as maps
from vidformers.layers.patchify import Grid
from vidformers.models.vjepa2 import modeling_vjepa2 as modeling


CASES = {case.folder[0]: case for case in GOLDENS if case.committed}


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


def test_config_field_lost_on_disk(wrap, tmp_path):
    def lose(original, self):
        return {name: value for name, value in original(self).items() if name != "mlp_ratio"}

    wrap(vidformers.VJEPA2Config, "to_diff_dict", lose)
    with fails("mlp_ratio"):
        ConfigMixin().test_round_trip(SPEC, MODEL, tmp_path)


def test_config_default_changed(wrap):
    wrap(
        vidformers.VJEPA2Config,
        "__init__",
        lambda original, self, **kw: original(self, **{"layer_norm_eps": 1e-5, **kw}),
    )
    with fails("layer_norm_eps"):
        ConfigMixin().test_defaults_are_those_of_transformers(SPEC, MODEL)


def test_config_field_undocumented(monkeypatch):
    text = vidformers.VJEPA2Config.__doc__
    monkeypatch.setattr(vidformers.VJEPA2Config, "__doc__", text.replace("tubelet_size (", "tubelets ("))
    with fails("tubelet_size"):
        ConfigMixin().test_every_field_is_documented(SPEC)


def test_config_type_that_the_model_cannot_use(wrap):
    def refuse_whole_numbers(original, self, config, *args, **kwargs):
        assert isinstance(config.mlp_ratio, float), "range() takes no float"
        original(self, config, *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "__init__", refuse_whole_numbers)
    with fails("takes no float"):
        ConfigMixin().test_advertised_types_construct(SPEC, MODEL)


# ---------------------------------------------------------------------------------------------------- modeling


def test_eps_changed(wrap, tmp_path):
    wrap(modeling.VJEPA2Layer, "__init__", after_init(lambda layer: setattr(layer.norm2, "eps", 1e-3)))
    with fails("hidden_states.1 diverges"):
        ModelingMixin().test_transformers_loads_ours(SPEC, MODEL, tmp_path)
    with fails("hidden_states.1 diverges"):
        ModelingMixin().test_loads_what_transformers_saves(SPEC, MODEL, tmp_path)


def add_parameter(module):
    module.spare = nn.Parameter(torch.ones(1))


def test_parameter_that_nobody_else_has(wrap, tmp_path):
    wrap(modeling.VJEPA2Encoder, "__init__", after_init(add_parameter))
    with fails("encoder.spare"):
        ModelingMixin().test_names_on_disk_are_those_of_transformers(SPEC, MODEL, tmp_path)
    with fails("encoder.spare takes no part"):
        ModelingMixin().test_every_parameter_has_a_gradient(SPEC, MODEL)


def test_weights_lost_on_disk(wrap, tmp_path):
    def save_other(original, self, folder):
        with torch.no_grad():
            self.encoder.layernorm.bias += 1
        original(self, folder)
        with torch.no_grad():
            self.encoder.layernorm.bias -= 1

    wrap(vidformers.VJEPA2Model, "save_pretrained", save_other)
    with fails("last_hidden_state diverges"):
        ModelingMixin().test_save_and_load(SPEC, MODEL, tmp_path)


def test_hidden_state_left_out(wrap):
    def forget_last(original, *args, **kwargs):
        output = original(*args, **kwargs)
        return replace(output, hidden_states=output.hidden_states and output.hidden_states[:-1])

    wrap(modeling, "run_layers", forget_last)
    with fails():
        ModelingMixin().test_hidden_states_and_attentions(SPEC, MODEL)


def test_videos_of_a_batch_mixed(wrap):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x - x.mean(0, keepdim=True)))
    with fails("hidden_states.1 diverges"):
        ModelingMixin().test_batch_is_invariant(SPEC, MODEL)


def test_input_changed_in_place(wrap):
    wrap(modeling.VJEPA2Encoder, "forward", lambda original, self, video, *a, **kw: original(self, video.mul_(2), *a))
    with fails("pixel_values_videos diverges"):
        ModelingMixin().test_inputs_are_left_alone(SPEC, CLASSIFIER)


def test_table_that_is_no_buffer(wrap):
    wrap(modeling.VJEPA2Encoder, "__init__", after_init(lambda module: setattr(module, "table", torch.zeros(3))))
    with fails("encoder.*table"):
        ModelingMixin().test_meta_device(SPEC, MODEL)


def test_buffer_that_is_saved(wrap):
    wrap(
        modeling.VJEPA2Encoder, "__init__", after_init(lambda module: module.register_buffer("table", torch.zeros(3)))
    )
    with fails("not to be saved"):
        ModelingMixin().test_meta_device(SPEC, MODEL)


def test_module_left_uninitialised(wrap):
    def skip_norms(original, self, module):
        if not isinstance(module, nn.LayerNorm):
            original(self, module)

    wrap(modeling.VJEPA2PreTrainedModel, "_init_weights", skip_norms)
    with fails("not initialised.*norm1"):
        ModelingMixin().test_every_module_initialises(SPEC, MODEL)


def test_float32_out_of_a_half_model(wrap, tmp_path):
    wrap(modeling.VJEPA2AttentivePooler, "forward", lambda original, self, tokens: original(self, tokens).float())
    with pytest.raises((AssertionError, RuntimeError), match="dtype"):
        ModelingMixin().test_dtype(SPEC, CLASSIFIER, torch.bfloat16, tmp_path)


def test_rounding_inside_a_float32_model(wrap, tmp_path):
    wrap(modeling.Mlp, "forward", lambda original, self, x: original(self, x.bfloat16().to(x.dtype)))
    with fails("hidden_states.1 diverges"):
        ModelingMixin().test_transformers_loads_ours(SPEC, MODEL, tmp_path)


def test_checkpointing_without_effect(monkeypatch):
    monkeypatch.setattr("harness.modeling.enable_checkpointing", lambda model: None)
    with fails("run again"):
        ModelingMixin().test_gradient_checkpointing(SPEC, MODEL)


def test_graph_break(wrap):
    def break_graph(original, self, *args, **kwargs):
        torch._dynamo.graph_break()
        return original(self, *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "forward", break_graph)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        ModelingMixin().test_compiles_to_one_graph(SPEC, CLASSIFIER)


def test_export_with_a_fixed_number_of_frames(wrap):
    def fixed(original, self, video, *args, **kwargs):
        return original(self, video[:, : int(video.shape[1])], *args, **kwargs)

    wrap(modeling.VJEPA2Encoder, "forward", fixed)
    with pytest.raises((ValueError, torch._dynamo.exc.UserError), match="steps"):
        ModelingMixin().test_export(SPEC, CLASSIFIER)


# --------------------------------------------------------------------------------------------------- attention


def double_scaling(backend, original, *args, implementation, scaling, **kwargs):
    scaling = 2 * scaling if implementation == backend else scaling
    return original(*args, implementation=implementation, scaling=scaling, **kwargs)


@pytest.mark.parametrize("model", [MODEL, CLASSIFIER, ANTICIPATION], ids=lambda model: model.name)
def test_backend_with_another_scaling(wrap, model):
    wrap(modeling, "attention", partial(double_scaling, "sdpa"))
    for check in (AttentionMixin().test_forward, AttentionMixin().test_backward):
        for dtype in (torch.float32, torch.bfloat16):
            with fails("sdpa"):
                check(SPEC, model, "sdpa", dtype)
    with fails("switched to sdpa: hidden_states.1"):
        ModelingMixin().test_backend_can_be_changed(SPEC, model)


def test_attention_that_is_uniform(wrap):
    def no_scores(original, *args, scaling, **kwargs):
        return original(*args, scaling=0.0, **kwargs)

    wrap(modeling, "attention", no_scores)
    with fails():
        AttentionMixin().test_attention_matters(SPEC, MODEL)


def test_probabilities_of_another_computation(wrap):
    def shifted(original, *args, implementation, **kwargs):
        attended, probabilities = original(*args, implementation=implementation, **kwargs)
        return attended, probabilities.roll(1, -1) if implementation == "sdpa" else probabilities

    wrap(modeling, "attention", shifted)
    with fails("attentions.0 diverges"):
        AttentionMixin().test_probabilities_on_request(SPEC, MODEL, "sdpa")


# --------------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("axis", ["time", "height", "width"])
def test_axis_without_positions(wrap, axis):
    index = ["time", "height", "width"].index(axis)

    def forget(original, positions, *args, **kwargs):
        positions = [place * 0 if number == index else place for number, place in enumerate(positions)]
        return original(tuple(positions), *args, **kwargs)

    wrap(modeling, "rotary_table", forget)
    with fails(f"order along {axis}"):
        PositionsMixin().test_order_matters(SPEC, MODEL, axis)


def test_grid_from_the_configuration(wrap):
    def configured(original, config, token_ids, grid, *args):
        side = config.crop_size // config.patch_size
        return original(config, token_ids, Grid(grid.t, side, side), *args)

    wrap(modeling, "rotary_for", configured)
    with fails("two configured sizes"):
        PositionsMixin().test_configured_size_is_not_read(SPEC)


def test_positions_in_bfloat16(wrap):
    def rounded(original, positions, *args, dtype, **kwargs):
        return original(tuple(place.to(dtype) for place in positions), *args, dtype=dtype, **kwargs)

    wrap(modeling, "rotary_table", rounded)
    with fails("bfloat16"):
        PositionsMixin().test_many_frames_in_16_bits(SPEC, torch.bfloat16)


@pytest.mark.parametrize("off_size", [off for off in MODEL.off_sizes if off.kept], ids=str)
def test_silent_cut(wrap, off_size):
    def silent(original, video, tubelet_size, patch_size):
        frames, _, height, width = video.shape[1:]
        video = video[:, : frames - frames % tubelet_size, :, : height - height % patch_size]
        return original(video[..., : width - width % patch_size], tubelet_size, patch_size)

    wrap(modeling, "cut_to_tubelets", silent)
    with fails():
        PositionsMixin().test_off_size(SPEC, MODEL, off_size)


def test_cut_at_the_wrong_end(wrap):
    wrap(modeling, "cut_to_tubelets", lambda original, video, *sizes: video_end(original(video, *sizes), video))
    with fails("cut by the model and before it"):
        PositionsMixin().test_off_size(SPEC, MODEL, MODEL.off_sizes[3])


def video_end(cut, video):
    return video[:, -cut[0].shape[1] :], cut[1]


# -------------------------------------------------------------------------------------------------- processing


def test_wrong_mean(monkeypatch):
    monkeypatch.setattr(vidformers.VJEPA2VideoProcessor, "image_mean", [0.5, 0.456, 0.406])
    with fails("one colour"):
        ProcessingMixin().test_values(SPEC)


def test_wrong_frames_sampled(wrap, tmp_path):
    wrap(
        vidformers.VJEPA2VideoProcessor,
        "sample_frames",
        lambda original, self, metadata, **kw: np.minimum(
            original(self, metadata, **kw) + 1, metadata.total_num_frames - 1
        ),
    )
    with fails("sampled while decoding"):
        ProcessingMixin().test_sampled_frames(SPEC, "variable_rate", tmp_path)


def test_stale_frames(wrap, tmp_path):
    processor = import_module("vidformers.video.processor")

    def repeat_first(original, *args, **kwargs):
        frames, metadata = original(*args, **kwargs)
        return np.repeat(frames[:1], len(frames), axis=0), metadata

    wrap(processor, "decode_video", repeat_first)
    with fails("file and decoded frames"):
        ProcessingMixin().test_file(SPEC, "short", tmp_path)


def test_bad_file_accepted(monkeypatch, tmp_path):
    processor = import_module("vidformers.video.processor")
    frames = np.zeros((2, 40, 40, 3), dtype=np.uint8)
    monkeypatch.setattr(processor, "decode_video", lambda *args, **kwargs: (frames, None))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        ProcessingMixin().test_bad_file(SPEC, "text", tmp_path)


def test_colours_of_one_form_swapped(wrap, tmp_path):
    processor = import_module("vidformers.video.processor")
    wrap(processor, "_pil_to_array", lambda original, image: original(image)[..., ::-1])
    with fails("list of images"):
        ProcessingMixin().test_forms_of_one_video(SPEC, tmp_path)


# -------------------------------------------------------------------------------------------------------- auto


@pytest.mark.parametrize("auto", SPEC.family.auto_models)
def test_registration_missing(monkeypatch, auto, tmp_path):
    mapping = getattr(transformers, auto)._model_mapping
    monkeypatch.delitem(mapping._extra_content, vidformers.VJEPA2Config)
    with pytest.raises((AssertionError, ValueError)):
        AutoMixin().test_auto_models(SPEC, tmp_path)


def test_processor_registration_missing(monkeypatch, tmp_path):
    module = import_module("transformers.models.auto.video_processing_auto")
    monkeypatch.delitem(module.VIDEO_PROCESSOR_MAPPING._extra_content, vidformers.VJEPA2Config)
    with pytest.raises((AssertionError, ValueError, ImportError)):
        AutoMixin().test_auto_video_processor(SPEC, tmp_path)


def test_registration_missing_after_import(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "harness.auto.IMPORTS",
        {"order": "import os\nos.environ['VIDFORMERS_AUTO'] = '0'\nimport transformers\nimport vidformers"},
    )
    with fails("AutoModel"):
        AutoMixin().test_import_orders(SPEC, "order", tmp_path)


def test_model_class_without_a_spec():
    with fails():
        AutoMixin().test_every_class_has_a_spec(replace(SPEC, models=SPEC.models[:2]))


# -------------------------------------------------------------------------------------------------- conversion


def replaced_rules(change):
    """The encoder's part with its rules changed."""
    rules = tuple(changed for entry in maps.ENCODER.rules for changed in change(entry))
    return replace(maps.MAP, parts={**maps.MAP.parts, "encoder": replace(maps.ENCODER, rules=rules)})


def test_rule_missing(monkeypatch):
    without = replaced_rules(lambda entry: [] if "encoder.layernorm.bias" in entry.targets else [entry])
    monkeypatch.setattr(maps, "MAP", without)
    with fails("encoder.layernorm.bias"):
        ConversionMixin().test_every_tensor_has_one_rule(SPEC, MODEL)
    with fails():
        ConversionMixin().test_round_trip(SPEC, MODEL)


def test_operation_that_does_not_invert(wrap):
    wrap(Split, "inverse", lambda original, self, tensors: original(self, tensors[::-1]))
    with fails("there and back: .*attention"):
        ConversionMixin().test_round_trip(SPEC, MODEL)
    with fails("comes? back|encoder of"):
        ConversionMixin().test_golden_files_come_back(SPEC, CASES["c"])


def swap_query_and_key(entry):
    if not any(name.endswith("attention.query.weight") for name in entry.targets):
        return [entry]
    query, key, value = entry.targets
    return [replace(entry, targets=(key, query, value))]


def test_queries_and_keys_swapped_in_the_map(monkeypatch):
    monkeypatch.setattr(maps, "MAP", replaced_rules(swap_query_and_key))
    ConversionMixin().test_round_trip(SPEC, MODEL)  # it inverts, so that only numbers tell
    with fails("last_0 diverges"):
        ParityMixin().test_golden(SPEC, CASES["c"], "eager")


def test_tensor_that_parity_does_not_notice():
    """A run that computes nothing and repeats the recording."""
    case = CASES["c"]

    def recite(model, inputs):
        return recorded(COMMITTED / "vjepa2" / case.folder)[1]

    blind = replace(case, runs=(GoldenRun("", case.runs[0].arguments, recite),))
    with fails("change of blocks.0.*patch_embed.proj.weight"):
        ConversionMixin().test_parity_notices_every_tensor(SPEC, blind)


def test_tensor_wrongly_called_blind():
    case = replace(CASES["c"], blind={"norm.weight": "nothing depends on it, they say"})
    with fails("a change shows: norm.weight"):
        ConversionMixin().test_parity_notices_every_tensor(SPEC, case)


# ------------------------------------------------------------------------------------------------------ parity


def test_rope_pairing_switched(wrap):
    wrap(modeling, "rotary_table", lambda original, *a, pairing, **kw: original(*a, pairing="interleaved", **kw))
    for letter in "cef":  # V-JEPA 2; 2.1 has the other pairing
        with fails("first stage that diverges"):
            ParityMixin().test_golden(SPEC, CASES[letter], "sdpa")


def test_context_mask_applied_after_the_encoder(wrap):
    def late(original, self, video, context_mask=None, *args, **kwargs):
        output = original(self, video, None, *args, **kwargs)
        if context_mask is not None:
            ids = modeling.join_masks("context_mask", context_mask, video)
            output.last_hidden_state = modeling.select_tokens(output.last_hidden_state, ids)
        return output

    wrap(modeling.VJEPA2Encoder, "forward", late)
    with fails("e_predictor.*: context diverges"):
        ParityMixin().test_golden(SPEC, CASES["e"], "eager")


def test_mask_index_ignored(wrap):
    wrap(
        modeling.VJEPA2PredictorEmbeddings,
        "forward",
        lambda original, self, context, targets, mask_index, image: original(self, context, targets, 1, image),
    )
    with fails("pred_index0 diverges"):
        ParityMixin().test_golden(SPEC, CASES["e"], "eager")


def test_output_that_no_run_reproduces():
    case = CASES["c"]
    first = GoldenRun(
        "", case.runs[0].arguments, lambda model, inputs: dict([*case.runs[0].outputs(model, inputs).items()][:1])
    )
    with fails("no run reproduces"):
        ParityMixin().test_golden(SPEC, replace(case, runs=(first,)), "eager")


def test_committed_case_missing():
    with fails("is missing"):
        ParityMixin().test_golden(SPEC, replace(CASES["c"], folder="c_encoder_nowhere"), "eager")
    with fails():
        ParityMixin().test_committed_selection(replace(SPEC, goldens=GOLDENS[:1]))


def test_case_that_the_spec_does_not_name():
    with fails("doesn't name"):
        ParityMixin().test_every_case_is_known(replace(SPEC, goldens=GOLDENS[:2]))
