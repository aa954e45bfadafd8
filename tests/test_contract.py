"""What every model class declares: it does what a program may ask of it, or says which classes do."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from tests.harness.compare import assert_close
from tests.harness.family_spec import FamilySpec, ModelSpec
from tests.harness.modeling import training_inputs
from tests.harness.tolerances import EXACT, REORDERED
from tests.specs import SPECS
from vidformers.models.pretrained import VideoPreTrainedModel


METHODS = {
    "get_feature_map": 1,
    "embed_texts": 1,
    "compare": 2,
    "encode_frames": 1,
    "encode_clip": 1,
}  # and how many arguments they need
# Where the forward has the similarities that `compare` gives, and what they are multiplied by for it.
SIMILARITIES = {
    "VideoPrismClipModel": ("similarity_logits_per_video", 100.0),
    "PeCoreModel": ("logits_per_video", 1.0),
    "PeVideoModel": ("logits_video_text", 1.0),
}


def has(model: ModelSpec, method: str) -> bool:
    """Whether a class has a method of its own, or one of its family's."""
    return getattr(model.model_class, method) is not getattr(VideoPreTrainedModel, method)


def classes(wanted: Callable[[ModelSpec], bool] = lambda model: True) -> pytest.MarkDecorator:
    """Run a test on every model class, or on those that are wanted."""
    cases = [(spec, model) for spec in SPECS for model in spec.models if wanted(model)]
    return pytest.mark.parametrize(("spec", "model"), cases, ids=[model.name for _, model in cases])


def video_of(spec: FamilySpec, model: ModelSpec) -> torch.Tensor:
    """A batch of two videos of the configured size: the model's own input, or one made of its images."""
    inputs = spec.inputs(model)
    pixels = inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    return pixels if pixels.ndim == 5 else pixels[:, None].repeat(1, 3, 1, 1, 1)


@classes()
def test_what_a_class_lacks_it_says(spec: FamilySpec, model: ModelSpec):
    built = spec.build(model)
    able = {method: has(model, method) for method in METHODS}
    for method, num_arguments in METHODS.items():
        if not able[method]:
            with pytest.raises(NotImplementedError, match=rf"^{model.name} has no .*`{method}`.*can\.$"):
                getattr(built, method)(*[None] * num_arguments)
    assert able["encode_frames"] == able["encode_clip"] == model.model_class.encodes_frames_separately
    assert able["embed_texts"] == able["compare"] == model.model_class.has_text_tower
    assert (model.name in SIMILARITIES) == model.model_class.has_text_tower


@classes(lambda model: has(model, "get_feature_map"))
def test_one_vector_for_a_video(spec: FamilySpec, model: ModelSpec):
    built, video = spec.build(model), video_of(spec, model)
    with torch.no_grad():
        feature_map, vectors = built.get_feature_map(video), built.embed_videos(video)
        in_half = built.bfloat16().embed_videos(video)
    assert feature_map.ndim == 5 and len(feature_map) == 2
    assert vectors.ndim == 2 and vectors.dtype == in_half.dtype == torch.float32
    assert built.frames_per_token * feature_map.shape[1] == video.shape[1]
    if not model.model_class.has_text_tower:
        assert_close("the mean", {"x": feature_map.mean((1, 2, 3))}, {"x": vectors}, REORDERED)


@classes(lambda model: model.model_class.encodes_frames_separately)
def test_frames_encoded_apart(spec: FamilySpec, model: ModelSpec):
    """Clips that share frames need them encoded once, and give what the whole clip gives."""
    built, video = spec.build(model), video_of(spec, model)
    whole = built.embed_videos if model.model_class.has_text_tower else built.get_feature_map
    with torch.no_grad():
        expected, frames = whole(video), built.encode_frames(video)
        apart = torch.cat([built.encode_frames(video[:, :1]), built.encode_frames(video[:, 1:])], 1)
        assert frames.shape[:2] == video.shape[:2]
        assert_close("encoded at once", {"x": expected}, {"x": built.encode_clip(frames)}, EXACT)
        assert_close("encoded apart", {"x": expected}, {"x": built.encode_clip(apart)}, REORDERED)
        shorter = built.encode_clip(frames[:, 1:])
        assert_close("a part of it", {"x": whole(video[:, 1:])}, {"x": shorter}, REORDERED)


@classes(lambda model: model.model_class.has_text_tower)
def test_comparison_is_that_of_the_forward(spec: FamilySpec, model: ModelSpec):
    built, inputs = spec.build(model), spec.inputs(model)
    name, factor = SIMILARITIES[model.name]
    with torch.no_grad():
        videos, texts = built.embed_videos(inputs["pixel_values_videos"]), built.embed_texts(inputs["input_ids"])
        expected = getattr(built(**inputs), name) * factor
        assert_close("similarities", {"x": expected}, {"x": built.compare(videos, texts)}, REORDERED)


@classes(lambda model: model.model_class.has_text_tower)
def test_features_follow_the_configuration(spec: FamilySpec, model: ModelSpec):
    inputs = spec.inputs(model)
    video = inputs["pixel_values_videos"]
    given = {"text": inputs["input_ids"], "video": video, "image": video[:, 0]}
    for kind in [kind for kind in given if hasattr(model.model_class, f"get_{kind}_features")]:
        built = spec.build(model)
        features = getattr(built, f"get_{kind}_features")
        with torch.no_grad():
            quiet = features(given[kind])
            built.config.output_hidden_states, built.config.return_dict = True, False
            as_tuple = features(given[kind])
            asked = features(given[kind], output_hidden_states=False, return_dict=True)
        assert quiet.hidden_states is None and asked.hidden_states is None, kind
        assert type(as_tuple) is tuple and any(isinstance(value, tuple) for value in as_tuple), kind


@classes()
def test_loss_and_logits_come_first(spec: FamilySpec, model: ModelSpec):
    """As an output names its fields, and as a tuple has them; a Trainer drops what it doesn't gather."""
    built, inputs = spec.build(model), training_inputs(spec, model)
    with torch.no_grad():
        output = built(**inputs, output_hidden_states=True)
    order = [field.name for field in fields(output)]
    assert list(output.keys()) == [name for name in order if name in output]
    if "loss" in output:
        assert order[0] == "loss"
    if "logits" in output:
        assert order[1] == "logits"
        gathered = set(output.keys()) - set(built.config.keys_to_ignore_at_inference)
        assert gathered == {"loss", "logits"}
