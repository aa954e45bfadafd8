"""An attentive probe on an encoder of another family than the head's."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, Trainer, TrainingArguments

import vidformers
from vidformers import AttentiveProbeConfig, AttentiveProbeForVideoClassification
from vidformers.inference.directory import Directory


ENCODER = {"image_size": 32, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_frames": 4}
HEAD = {"num_labels": 3, "num_pooler_layers": 1, "pooler_num_attention_heads": 2, "initializer_range": 0.2}


def build(**fields) -> AttentiveProbeForVideoClassification:
    torch.manual_seed(0)
    encoder = vidformers.VideoMAEConfig(**ENCODER, intermediate_size=48)
    return AttentiveProbeForVideoClassification(
        AttentiveProbeConfig(encoder_config=encoder, **{**HEAD, **fields})
    ).eval()


def video(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_segments_are_seen_together_and_views_averaged():
    model, clips = build(), video(2, 3, 2)  # two videos in three views of two segments
    output = model(clips)
    tokens = model.get_feature_map(clips[0, 1]).flatten(0, 3)[None]  # both segments of a view
    expected = model.classifier(model.pooler(tokens)[:, 0])
    torch.testing.assert_close(output.view_logits[0, 1], expected[0])
    torch.testing.assert_close(output.logits.exp(), output.view_logits.softmax(-1).mean(1))
    torch.testing.assert_close(model(clips[:, 0]).logits, output.view_logits[:, 0])
    torch.testing.assert_close(model.classify_views(clips[:, :, 0]), model(clips[:, :, :1]).logits.exp())


@torch.no_grad()
def test_directories(tmp_path):
    """Of every Auto class, and as any other directory of ours; the head's weights begin as configured."""
    model = build(id2label={0: "a", 1: "b", 2: "c"})
    assert model.pooler.query_tokens.std().item() == pytest.approx(0.2, rel=0.4)
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path).encoder_config) is vidformers.VideoMAEConfig
    for auto_class in (AutoModel, AutoModelForVideoClassification):
        loaded = auto_class.from_pretrained(tmp_path).eval()
        assert type(loaded) is AttentiveProbeForVideoClassification
        torch.testing.assert_close(loaded(pixel_values=video(1)).logits, model(video(1)).logits)
    opened = Directory.open(tmp_path, revision="a-branch")
    assert opened.revision == "a-branch"
    assert opened.labels == ("a", "b", "c")
    assert opened.load_model(torch.float32).embed_videos(video(1)).shape == (1, 24)


@torch.no_grad()
def test_backends_and_types():
    model = build()
    expected = model(video(2)).logits
    model.set_attn_implementation("eager")
    assert model.encoder.config._attn_implementation == "eager"
    torch.testing.assert_close(model(video(2)).logits, expected)
    assert model.bfloat16()(video(2).bfloat16()).logits.dtype == torch.bfloat16


def test_a_trainer_gathers_the_logits_alone(tmp_path):
    """Without those of the views, beside which `compute_metrics` would get a tuple."""
    seen = []
    clips = [{"pixel_values_videos": each, "labels": label} for label, each in enumerate(video(3, 2, 1))]
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False)
    Trainer(build(), arguments, eval_dataset=clips, compute_metrics=lambda found: seen.append(found) or {}).evaluate()
    assert seen[0].predictions.shape == (3, 3)


def test_what_is_no_input():
    with pytest.raises(ValueError, match="exactly one"):
        build()()
    with pytest.raises(ValueError, match="padding"):
        build()(video(1), padding_mask_videos=torch.tensor([[True, True, False, False]]))
    with pytest.raises(ValueError, match="`encoder_config`"):
        AttentiveProbeConfig()
    with pytest.raises(ValueError, match="`pooler_num_attention_heads`"):
        build(pooler_num_attention_heads=7)


def test_other_classes():
    model = build()
    model.reset_classifier(2, ["x", "y"])
    assert model(video(1), labels=torch.tensor([1])).loss.isfinite() and model.config.label2id == {"x": 0, "y": 1}
