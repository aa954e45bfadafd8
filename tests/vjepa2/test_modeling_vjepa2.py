"""What V-JEPA 2 alone has: masks, the predictor's rules, probes over clips, anticipation, its errors and warnings."""

import math
import unittest
import warnings

import pytest
import torch
from torch import nn
from transformers import pipeline

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin, watch
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.video_files import write_video
from tests.vjepa2.spec import ANTICIPATION, CLASSIFIER, MODEL, SPEC
from vidformers import VJEPA2Config, VJEPA2ForActionAnticipation, VJEPA2ForVideoClassification, VJEPA2Model
from vidformers.models.vjepa2 import modeling_vjepa2


class VJEPA2ConfigTest(ConfigMixin, AutoMixin, unittest.TestCase):
    spec = SPEC


class VJEPA2ModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
    spec = SPEC


class VJEPA2CitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC


class VJEPA2GoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC


CONTEXT = torch.tensor([[0, 9, 3, 30, 17], [31, 2, 8, 12, 5]])
TARGET = torch.tensor([[1, 29, 4], [20, 19, 0]])


def video(batch=2, frames=4, height=32, width=32, seed=0) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> VJEPA2Model:
    return SPEC.build(MODEL)


@pytest.fixture(scope="module")
def classifier() -> VJEPA2ForVideoClassification:
    return SPEC.build(CLASSIFIER)


@pytest.fixture(autouse=True)
def no_gradients(request):
    """For the functions here; the classes of shared tests train models."""
    with torch.set_grad_enabled(request.cls is not None):
        yield


def same(title, expected, actual, tolerance=REORDERED):
    assert_close(title, {"value": expected}, {"value": actual}, tolerance)


# ------------------------------------------------------------------------------------------------------- masks


def test_context_tokens_see_nothing_else(model):
    """Pixels outside the context change nothing; those inside do."""
    clip, context = video(), CONTEXT
    inside = torch.zeros(2, 32, dtype=torch.bool).scatter(1, context, True).view(2, 2, 4, 4)
    pixels = inside.repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, None]
    noise = video(seed=1)
    before = model(clip, context_mask=context).last_hidden_state
    same("outside", before, model(torch.where(pixels, clip, noise), context_mask=context).last_hidden_state, EXACT)
    after = model(torch.where(pixels, noise, clip), context_mask=context).last_hidden_state
    assert (before - after).abs().min(dim=-1).values.max() > NOTICEABLE


def test_full_mask_is_no_mask(model):
    every = torch.arange(32).expand(2, -1)
    same("all tokens", model(video()).last_hidden_state, model(video(), context_mask=every).last_hidden_state)


def test_mask_order_is_output_order(model):
    output = model(video(), CONTEXT, TARGET)
    turned = model(video(), CONTEXT.flip(1), TARGET.flip(1))
    same("context", output.last_hidden_state.flip(1), turned.last_hidden_state)
    same("targets", output.predictor_output.last_hidden_state.flip(1), turned.predictor_output.last_hidden_state)


def test_mask_lists_are_predicted_one_by_one(model):
    contexts, targets = [CONTEXT, CONTEXT.flip(0)], [TARGET, TARGET.flip(0)]
    together = model(video(), contexts, targets)
    alone = [model(video(), context, target) for context, target in zip(contexts, targets)]
    same("context", torch.cat([each.last_hidden_state for each in alone]), together.last_hidden_state)
    same(
        "predictions",
        torch.cat([each.predictor_output.last_hidden_state for each in alone]),
        together.predictor_output.last_hidden_state,
    )


def test_one_context_serves_no_two_target_masks(model):
    with pytest.raises(ValueError, match="form pairs, got 1 and 2.*repeating"):
        model(video(), CONTEXT, [TARGET, TARGET])


def test_context_alone_predicts_every_token(model):
    predicted = model(video(), context_mask=CONTEXT).predictor_output.last_hidden_state
    every = torch.arange(32).expand(2, -1)
    same("all targets", model(video(), CONTEXT, every).predictor_output.last_hidden_state, predicted)


def test_targets_alone_are_predicted_from_every_token(model):
    output = model(video(), target_mask=TARGET)
    every = torch.arange(32).expand(2, -1)
    assert output.last_hidden_state.shape[1] == 32
    expected = model(video(), every, TARGET).predictor_output.last_hidden_state
    same("from all tokens", expected, output.predictor_output.last_hidden_state)


def test_several_target_masks_share_the_whole_context(model):
    output = model(video(), target_mask=[TARGET, TARGET.flip(1)])
    first, second = output.predictor_output.last_hidden_state.chunk(2)
    same("flipped", first, second.flip(1))


# --------------------------------------------------------------------------------------- predictor and targets


def test_target_features_come_free_with_the_whole_video(model):
    output = model(video())
    assert output.predictor_output.target_hidden_state is output.last_hidden_state
    selected = model(video(), target_mask=TARGET).predictor_output.target_hidden_state
    same("selected", output.last_hidden_state.gather(1, TARGET[..., None].expand(-1, -1, 80)), selected)


def test_target_features_are_none_where_they_would_cost_a_pass(model):
    assert model(video(), CONTEXT, TARGET).predictor_output.target_hidden_state is None
    asked = model(video(), CONTEXT, TARGET, return_target_hidden_state=True).predictor_output.target_hidden_state
    same("on request", model(video(), target_mask=TARGET).predictor_output.target_hidden_state, asked)


def test_target_features_of_a_list_come_selection_by_selection(model):
    contexts, targets = [CONTEXT, CONTEXT.flip(0)], [TARGET, TARGET.flip(0)]
    asked = model(video(), contexts, targets, return_target_hidden_state=True).predictor_output.target_hidden_state
    whole = model(video()).last_hidden_state
    expected = torch.cat([whole.gather(1, target[..., None].expand(-1, -1, 80)) for target in targets])
    same("selections", expected, asked)


def test_targets_beyond_the_video_have_no_features(model):
    output = model(video(), target_mask=TARGET + 32)
    assert output.predictor_output.last_hidden_state.shape == (2, 3, 80)
    assert output.predictor_output.target_hidden_state is None


def test_mask_index(model):
    def predict(index):
        return model(video(), CONTEXT, TARGET, mask_index=index).predictor_output.last_hidden_state

    same("default", model(video(), CONTEXT, TARGET).predictor_output.last_hidden_state, predict(1), EXACT)
    same("modulo", predict(1), predict(4), EXACT)
    assert (predict(0) - predict(2)).abs().max() > NOTICEABLE


def test_all_tokens_are_sorted_by_position(model):
    every = model(video(), CONTEXT, TARGET, return_all_tokens=True).predictor_output.last_hidden_state
    predicted = model(video(), CONTEXT, TARGET).predictor_output.last_hidden_state
    assert every.shape == (2, 8, 80)
    for index in range(2):
        order = sorted([*CONTEXT[index].tolist(), *TARGET[index].tolist()])
        places = [order.index(token) for token in TARGET[index].tolist()]
        same("targets among all", predicted[index], every[index, places])


def test_hooks_see_the_norm_of_each_layer_asked_for():
    built = SPEC.build(MODEL)
    seen = watch(built)
    built(video(), out_layers=[2, 0])
    assert seen["encoder.layernorm"] == [2, 2]
    assert seen["encoder.layer.0.norm1"] == [2]


def test_out_layers(model):
    output = model(video(), out_layers=[2, 0], output_hidden_states=True)
    norm = model.encoder.layernorm
    for index, layer in enumerate((2, 0)):
        same(f"layer {layer}", norm(output.hidden_states[layer + 1]), output.out_layer_hidden_states[index], EXACT)
    same("the last one", output.last_hidden_state, output.out_layer_hidden_states[0], EXACT)
    assert model(video()).out_layer_hidden_states is None


@pytest.fixture
def warned(monkeypatch):
    """Messages that the model logs once."""
    messages = []
    monkeypatch.setattr(modeling_vjepa2.logger, "warning_once", messages.append, raising=False)
    return messages


def test_predictor_says_that_it_reads_another_grid(model, warned):
    model(video(), CONTEXT, TARGET)
    model(video(height=48), skip_predictor=True)
    assert not warned
    model(video(height=48))
    assert len(warned) == 1
    assert "4 × 4 grid" in warned[0]
    assert "6 × 4 tokens" in warned[0]
    assert "pred_positions_from_input" in warned[0]


def test_predictor_positions_from_the_input(model, warned):
    """As if the configured crop were the input's; the default keeps to the crop."""
    clip = video(height=48, width=48)
    outputs = []
    for fields in ({"pred_positions_from_input": True}, {"crop_size": 48}, {}):
        other = SPEC.build(MODEL, **fields)
        other.load_state_dict(model.state_dict())
        outputs.append(other(clip).predictor_output.last_hidden_state)
    same("on the input's grid", outputs[1], outputs[0], EXACT)
    assert (outputs[2] - outputs[0]).abs().max() > NOTICEABLE
    assert len(warned) == 1


def test_without_a_predictor():
    encoder = SPEC.build(MODEL, use_predictor=False)
    assert encoder.predictor is None
    assert encoder(video()).predictor_output is None
    with pytest.raises(ValueError, match="no predictor.*use_predictor"):
        encoder(video(), target_mask=TARGET)


# -------------------------------------------------------------------------------------------- images, cuts, errors


def test_an_image_is_a_still_clip(model):
    image = video(frames=1)
    still = model(image.expand(-1, 2, -1, -1, -1)).last_hidden_state
    assert still.shape == (2, 16, 80)
    same("one frame", still, model(image).last_hidden_state, EXACT)
    same("no axis of frames", still, model(image[:, 0]).last_hidden_state, EXACT)
    same("features", still, model.get_vision_features(image[:, 0]), EXACT)


def test_get_vision_features_is_the_encoder_alone(model):
    same("features", model(video()).last_hidden_state, model.get_vision_features(video()), EXACT)


@pytest.mark.parametrize(
    "size, cut",
    [
        ((5, 32, 32), "frames from 5 to 4"),
        ((4, 33, 32), "height from 33 to 32"),
        ((4, 32, 39), "width from 39 to 32"),
        ((7, 35, 47), "frames from 7 to 6, height from 35 to 32, width from 47 to 40"),
    ],
)
def test_cut_warns_once_with_a_remedy(model, size, cut):
    frames, height, width = size
    clip = video(frames=frames, height=height, width=width)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(clip, skip_predictor=True)
    (warning,) = caught
    assert f": {cut}." in str(warning.message)
    assert "multiples of 8 × 8 pixels" in str(warning.message)


@pytest.mark.parametrize(
    "clip, options, message",
    [
        (video(batch=0), {}, r"batch is empty.*\(0, 4, 3, 32, 32\).*at least one video"),
        (video(frames=0), {}, r"0 frame\(s\).*at least 2 frame\(s\) of 8 × 8.*Sample more"),
        (video(height=7), {}, r"4 frame\(s\) of 7 × 32 pixels.*resize"),
        (video().transpose(1, 2), {}, r"\(batch, frames, 3, height, width\).*got \(2, 3, 4, 32, 32\).*channels"),
        (video()[0, 0], {}, r"got \(3, 32, 32\)"),
        (video()[:, :, :1], {}, r"got \(2, 4, 1, 32, 32\)"),
        (video(), {"context_mask": [CONTEXT, TARGET]}, r"same count.*\[\(2, 5\), \(2, 3\)\].*Cut longer"),
        (video(), {"context_mask": CONTEXT[:1]}, r"batch = 2.*\[\(1, 5\)\]"),
        (video(), {"context_mask": CONTEXT[0]}, r"batch = 2.*\[\(5,\)\]"),
        (video(), {"context_mask": CONTEXT[:, :0]}, r"count ≥ 1.*\[\(2, 0\)\]"),
        (video(), {"context_mask": []}, r"batch = 2.*got \[\]"),
        (video(), {"context_mask": CONTEXT + 3}, r"between 0 and 31; got 3 to 34|between 0 and 31; got 5 to 34"),
        (video(), {"target_mask": TARGET - 1}, r"not be negative; got -1 to 28"),
        (video(), {"context_mask": CONTEXT > 5}, r"integer token numbers, got torch.bool.*nonzero"),
        (video(), {"context_mask": CONTEXT.float()}, r"integer token numbers, got torch.float32"),
        (video(), {"out_layers": [3]}, r"from 0 to 2, got \[3\]"),
    ],
)
def test_errors_say_what_came_and_what_to_do(model, clip, options, message):
    with pytest.raises(ValueError, match=message):
        model(clip, **options)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hidden_size": 81}, r"`hidden_size` \(81\) must be a multiple of `num_attention_heads` \(4\)"),
        ({"pred_hidden_size": 61}, r"`pred_hidden_size` \(61\) must be a multiple of `pred_num_attention_heads`"),
        ({"patch_size": 0}, "`patch_size` must be at least 1, got 0"),
        ({"out_layers": [3]}, "from 0 to 2, got 3"),
    ],
)
def test_configuration_errors(fields, message):
    with pytest.raises(Exception, match=message) as caught:
        SPEC.config(**fields)
    assert isinstance(caught.value, ValueError) or isinstance(caught.value.__cause__, ValueError)


def test_pooler_heads_are_checked_where_there_is_a_probe():
    config = SPEC.config(pooler_num_attention_heads=3)
    VJEPA2Model(config)
    with pytest.raises(ValueError, match=r"`hidden_size` \(80\).*`pooler_num_attention_heads` \(3\)"):
        VJEPA2ForVideoClassification(config)


def test_num_frames_is_another_name():
    config = VJEPA2Config(frames_per_clip=32)
    assert config.num_frames == 32
    config.num_frames = 8
    assert config.frames_per_clip == 8


# ---------------------------------------------------------------------------------------------------- training


def test_initialization_is_the_originals():
    """Output layers of a block are divided by √(2·layer); biases and mask tokens start at zero."""
    torch.manual_seed(0)
    built = VJEPA2Model(SPEC.config(initializer_range=0.02))
    for layers in (built.encoder.layer, built.predictor.layer):
        for depth, layer in enumerate(layers, start=1):
            for module, scale in (
                (layer.attention.query, 1),
                (layer.mlp.fc1, 1),
                (layer.attention.proj, math.sqrt(2 * depth)),
                (layer.mlp.fc2, math.sqrt(2 * depth)),
            ):
                assert module.weight.std().item() == pytest.approx(0.02 / scale, rel=0.05)
                assert not module.bias.any()
    assert built.encoder.embeddings.patch_embeddings.proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not built.predictor.embeddings.mask_tokens.any()
    assert VJEPA2Model(SPEC.config(pred_zero_init_mask_tokens=False)).predictor.embeddings.mask_tokens.all()


def test_initialization_of_probes():
    torch.manual_seed(0)
    built = VJEPA2ForVideoClassification(SPEC.config(initializer_range=0.02))
    for depth, layer in enumerate(built.pooler.self_attention_layers, start=1):
        assert layer.self_attn.out_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.05)
        assert layer.mlp.fc2.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.05)
    assert built.pooler.query_tokens.std().item() == pytest.approx(0.02, rel=0.3)


def test_a_new_head_leaves_loaded_weights_alone(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, info = VJEPA2ForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all(name.startswith(("pooler.", "classifier.")) for name in info["missing_keys"])
    expected = {f"vjepa2.{name}": tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    assert_close("the encoder's weights", expected, loaded.state_dict(), EXACT)
    assert loaded.pooler.self_attention_layers[0].self_attn.out_proj.weight.std() > 0.01


def test_drop_path_is_active_in_training():
    built = SPEC.build(MODEL, drop_path_rate=0.5)
    rates = [layer.drop_path.rate for layer in built.encoder.layer]
    assert rates == pytest.approx([0, 0.25, 0.5])
    assert [layer.drop_path.rate for layer in built.predictor.layer] == pytest.approx([0, 0.5])

    def run(seed):
        torch.manual_seed(seed)
        return built(video(batch=8)).last_hidden_state

    assert torch.equal(run(0), run(1))
    built.train()
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


@pytest.mark.parametrize(
    "spec, field",
    [(MODEL, "attention_probs_dropout_prob"), (CLASSIFIER, "attention_dropout")],
    ids=["encoder", "probe"],
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_dropout_is_active_in_training(spec, field, attention):
    built = SPEC.build(spec, attention=attention, **{field: 0.5})

    def run(seed):
        torch.manual_seed(seed)
        return built(video())[spec.output]

    assert torch.equal(run(0), run(1))
    built.train()
    assert not torch.equal(run(0), run(1))


# ------------------------------------------------------------------------------------------------------ probes


def test_classifiers_hold_no_predictor(classifier):
    assert classifier.vjepa2.predictor is None
    assert not [name for name in classifier.state_dict() if "predictor" in name]


def test_probe_has_its_own_heads_and_eps(classifier):
    norms = [module for module in classifier.pooler.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}
    assert {module.eps for module in classifier.vjepa2.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}
    assert classifier.pooler.cross_attention_layer.cross_attn.head_dim == 40
    assert classifier.vjepa2.encoder.layer[0].attention.head_dim == 20
    assert VJEPA2Config().pooler_num_attention_heads == 16


def test_segments_are_seen_together(classifier):
    segments = torch.stack([video(seed=seed) for seed in (1, 2, 3)], dim=1)  # (B, 3, T, C, H, W)
    tokens = torch.cat([classifier.vjepa2.get_vision_features(segments[:, index]) for index in range(3)], dim=1)
    expected = classifier.classifier(classifier.pooler(tokens)[:, 0])
    output = classifier(segments)
    same("segments", expected, output.logits)
    assert output.view_logits is None


def test_views_are_averaged_as_probabilities(classifier):
    views = torch.stack([torch.stack([video(seed=10 * v + s) for s in (0, 1)], 1) for v in (0, 1, 2)], 1)
    output = classifier(views)  # (B, 3 views, 2 segments, T, C, H, W)
    expected = torch.stack([classifier(views[:, view]).logits for view in range(3)], 1)
    same("logits of the views", expected, output.view_logits)
    same("mean probabilities", expected.softmax(-1).mean(1), output.logits.softmax(-1))


def test_probe_of_several_layers():
    built = SPEC.build(CLASSIFIER, out_layers=[0, 2])
    levels = built.vjepa2(video(), skip_predictor=True, out_layers=[0, 2]).out_layer_hidden_states
    expected = built.classifier(built.pooler(torch.cat(levels, dim=1))[:, 0])
    same("layers", expected, built(video()).logits)
    last = SPEC.build(CLASSIFIER)
    last.load_state_dict(built.state_dict())
    assert (last(video()).logits - expected).abs().max() > NOTICEABLE


def test_classification_loss(classifier):
    labels = torch.tensor([3, 0])
    output = classifier(video(), labels=labels)
    expected = -output.logits.log_softmax(-1)[torch.arange(2), labels].mean()
    same("cross entropy", expected, output.loss)
    views = video()[:, None, None]
    same("of averaged views", expected, classifier(views, labels=labels).loss)
    loss, logits = classifier(video(), labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)


def test_images_can_be_classified(classifier):
    image = video(frames=1)
    same("4-D", classifier(image).logits, classifier(image[:, 0]).logits, EXACT)


def test_pipeline(tmp_path):
    built = SPEC.build(CLASSIFIER, id2label={index: f"class {index}" for index in range(5)})
    built.save_pretrained(tmp_path)
    SPEC.processor_class(**SPEC.processor.arguments).save_pretrained(tmp_path)
    file = write_video(tmp_path / "clip.mp4", num_frames=20)

    classify = pipeline("video-classification", model=str(tmp_path))
    answers = classify(str(file), top_k=2)

    assert isinstance(classify.model, VJEPA2ForVideoClassification)
    clip = SPEC.processor_class.from_pretrained(tmp_path)(str(file), num_frames=4, return_tensors="pt")
    scores = built(**clip).logits[0].softmax(-1)
    expected = scores.topk(2)
    assert [answer["label"] for answer in answers] == [f"class {index}" for index in expected.indices.tolist()]
    assert [answer["score"] for answer in answers] == pytest.approx(expected.values.tolist(), abs=1e-4)


# ------------------------------------------------------------------------------------------------ anticipation


def test_anticipation_predicts_the_tokens_of_the_time():
    """At 8 frames a second and 2 frames a token, 0.5 s are two steps of 16 tokens after the 32 observed ones."""
    built = SPEC.build(ANTICIPATION)
    output = built(video(), torch.tensor([0.0, 0.5]))
    assert output.last_hidden_state.shape == (2, 48, 80)
    for index, first in enumerate((32, 64)):
        target = torch.arange(first, first + 16)[None]
        whole = built.vjepa2(video()[index : index + 1], target_mask=target)
        expected = torch.cat([whole.last_hidden_state, whole.predictor_output.last_hidden_state], 1)
        same(f"video {index}", expected, output.last_hidden_state[index : index + 1])


def test_anticipation_loss_is_the_sum_over_heads():
    built = SPEC.build(ANTICIPATION)
    labels = {"labels": torch.tensor([1, 4]), "verb_labels": torch.tensor([0, 3]), "noun_labels": torch.tensor([5, 2])}
    times = torch.tensor([1.0, 1.0])
    together = built(video(), times, **labels)
    alone = [built(video(), times, **{name: value}).loss for name, value in labels.items()]
    same("sum", sum(alone), together.loss)
    assert built(video(), times).loss is None


def test_anticipation_of_actions_alone():
    built = SPEC.build(ANTICIPATION, num_verb_labels=0, num_noun_labels=0)
    output = built(video(), torch.tensor([1.0, 1.0]))
    assert built.pooler.query_tokens.shape[1] == 1
    assert output.verb_logits is None
    assert output.noun_logits is None
    assert output.logits.shape == (2, 5)


def test_anticipation_needs_a_predictor():
    with pytest.raises(ValueError, match="needs the predictor.*use_predictor"):
        VJEPA2ForActionAnticipation(SPEC.config(ANTICIPATION, use_predictor=False))
