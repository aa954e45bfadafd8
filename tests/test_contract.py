"""What a program may ask of every model, with the answers of V-JEPA 2 and VideoMAE."""

import pytest
import torch

import vidformers


VIDEO = torch.randn(2, 4, 3, 32, 48, generator=torch.Generator().manual_seed(0))
VJEPA2 = {"crop_size": 32, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "frames_per_clip": 6}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
VIDEOMAE = {"image_size": 32, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_frames": 4}


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def vjepa2(name: str = "VJEPA2Model", **config):
    config = vidformers.VJEPA2Config(**VJEPA2, **PREDICTOR, pooler_num_attention_heads=2, **config)
    return getattr(vidformers, name)(config).eval()


def videomae(**config):
    return vidformers.VideoMAEModel(vidformers.VideoMAEConfig(**VIDEOMAE, intermediate_size=48, **config)).eval()


@pytest.mark.parametrize("build", [vjepa2, videomae])
@pytest.mark.parametrize("return_dict", [True, False])
def test_features_and_their_mean(build, return_dict):
    """Of a size that isn't configured, whatever the configuration says of what a call returns."""
    model = build(return_dict=return_dict, output_hidden_states=True)
    features = model.get_feature_map(VIDEO)
    assert features.shape == (2, 2, 2, 3, 24)
    torch.testing.assert_close(model.embed_videos(VIDEO), features.mean((1, 2, 3)))
    assert model.bfloat16().embed_videos(VIDEO).dtype == torch.float32
    assert model.frames_per_token == 2 and not model.has_text_tower and not model.encodes_frames_separately


def test_frames_of_a_clip():
    assert vjepa2().frames_per_clip == 6 and videomae().frames_per_clip == 4


@pytest.mark.parametrize("name", ["VideoPrismClipModel", "PeVideoModel", "PeCoreModel"])
def test_sentences_that_searches_put_words_into(name):
    model = getattr(vidformers, name)
    filled = [template.format("a dog") for template in model.text_templates]
    assert model.has_text_tower and filled[0] == "a dog" and all("a dog" in text for text in filled)


def test_padding_is_refused_where_a_model_knows_none():
    with pytest.raises(NotImplementedError, match="VideoMAEModel takes no videos with padding"):
        videomae().embed_videos(VIDEO, torch.ones(2, 4))


@pytest.mark.parametrize("method, others", [("get_feature_map", "VJEPA2Model"), ("embed_texts", None)])
def test_what_a_class_lacks_is_said(method, others):
    model = vjepa2("VJEPA2ForVideoClassification")
    remedy = f"{others} of this family can" if others else "No model of this family can"
    with pytest.raises(NotImplementedError, match=f"VJEPA2ForVideoClassification has no .*`{method}`.*{remedy}"):
        getattr(model, method)(VIDEO)


def test_only_some_models_have_a_probe():
    assert vjepa2("VJEPA2ForVideoClassification").has_probe and not vjepa2().has_probe
    able = "VJEPA2ForActionAnticipation, VJEPA2ForVideoClassification of this family can"
    with pytest.raises(NotImplementedError, match=f"VJEPA2Model has no probe .*{able}"):
        vjepa2().probe_features(VIDEO)
    model = videomae()
    assert model.feature_tower is model


def test_configuration_for_features():
    config = vjepa2().config
    assert not vidformers.VJEPA2Model.for_features(config).use_predictor and config.use_predictor
    assert vidformers.VideoMAEModel.for_features(videomae().config).num_frames == 4


def test_frames_encoded_one_by_one():
    model = vjepa2("VJEPA2ACModel")
    assert model.encodes_frames_separately
    frames = torch.cat([model.encode_frames(VIDEO[:, :1]), model.encode_frames(VIDEO[:, 1:])], dim=1)
    torch.testing.assert_close(model.encode_clip(frames), model.get_feature_map(VIDEO), atol=1e-5, rtol=1e-5)
