"""PE-AV: original directories and files to PE Video, and back."""

import json
import unittest

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from tests.commands.test_cli import run
from tests.harness.conversion import ConversionMixin
from tests.original_files import linear, norm, random_tensors
from tests.pe_core.test_conversion_pe_core import under, vision
from tests.pe_video.spec import SPEC
from tests.text_files import save_modernbert_tokenizer
from vidformers import PeVideoEncoder, PeVideoModel, PeVideoProcessor
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load_original,
    reverse_directory,
    verify_directory,
)
from vidformers.conversion.load import empty_model, form_of
from vidformers.conversion.pe_video.checkpoint import PeAvDirectory
from vidformers.conversion.rules import check_ours
from vidformers.models.pe_core.presets import PE_ARCHITECTURES, PE_TOWERS
from vidformers.models.pe_video.record import FAMILY as PE_VIDEO


class PeVideoConversionTest(ConversionMixin, unittest.TestCase):
    spec = SPEC


# -------------------------------------------------------- tensors, from core/audio_visual_encoder of the original

HEAD_DIM, VIDEO_WIDTH, TEXT_WIDTH, SPACE = 8, 32, 24, 12


def temporal(width: int = VIDEO_WIDTH, count: int = 2, mlp: int = 44, bias: bool = False) -> dict:
    shapes = {"embeddings.cls_token": (1, 1, width), "norm.weight": (width,), "output.weight": (width, width)}
    for name in ("embeddings.resnet_block.block1", "embeddings.resnet_block.block2"):
        shapes |= {**norm(f"{name}.groupnorm", width), f"{name}.project.weight": (width, width, 3)}
        shapes |= {f"{name}.project.bias": (width,)}
    for index in range(count):
        layer = f"layers.{index}"
        for name in "qkvo":
            shapes |= linear(f"{layer}.self_attn.{name}_proj", width, width, bias)
        shapes |= {f"{layer}.self_attn.{name}_norm.weight": (HEAD_DIM,) for name in "qk"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (mlp, width) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (width, mlp)}
        shapes |= {f"{layer}.{name}.weight": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def modernbert(width: int = TEXT_WIDTH, count: int = 4, mlp: int = 36, vocab: int = 60) -> dict:
    shapes = {"embeddings.tok_embeddings.weight": (vocab, width)}
    shapes |= {f"{name}.weight": (width,) for name in ("embeddings.norm", "final_norm")}
    for index in range(count):
        layer = f"layers.{index}"
        shapes |= {f"{layer}.attn_norm.weight": (width,)} if index else {}
        shapes |= {f"{layer}.attn.Wqkv.weight": (3 * width, width), f"{layer}.attn.Wo.weight": (width, width)}
        shapes |= {f"{layer}.mlp.Wi.weight": (2 * mlp, width), f"{layer}.mlp.Wo.weight": (width, mlp)}
        shapes |= {f"{layer}.mlp_norm.weight": (width,)}
    return shapes


def head(name: str, width: int) -> dict:
    return {**norm(f"{name}.layer_norm", width), f"{name}.proj.weight": (SPACE, width)}


def pe_av(**sizes) -> dict:
    visual = "audio_visual_model.visual_model."
    return {
        **under(f"{visual}pe_encoder.", vision()),
        **under(f"{visual}visual_transformer.", temporal(**sizes)),
        f"{visual}proj.weight": (VIDEO_WIDTH, 20),
        **linear(f"{visual}data_proj", VIDEO_WIDTH, VIDEO_WIDTH),
        **under("text_model.", modernbert()),
        **head("visual_head", VIDEO_WIDTH),
        **head("visual_text_head", TEXT_WIDTH),
        **AUDIO,
    }


AUDIO = {
    "audio_visual_model.audio_model.data_proj.weight": (6, 4),
    "audio_visual_model.audio_model.dac_vae_encoder.encoder.snake1.alpha": (1, 2, 1),
    "audio_visual_model.audio_visual_transformer.norm.weight": (6,),
    **head("audio_head", 6),
    **head("audio_text_head", TEXT_WIDTH),
    **head("audio_plus_text_head", 30),
    **head("audio_visual_head", 6),
    **head("audio_visual_text_head", TEXT_WIDTH),
    **head("visual_plus_text_head", 56),
}
PARTS_LEFT_OUT = {
    "audio_head",
    "audio_plus_text_head",
    "audio_text_head",
    "audio_visual_head",
    "audio_visual_model.audio_model",
    "audio_visual_model.audio_visual_transformer",
    "audio_visual_text_head",
    "visual_plus_text_head",
}
TEXT_CONFIG = {"model_type": "modernbert", "num_attention_heads": 3, "hidden_size": TEXT_WIDTH, "vocab_size": 60}
TEXT_CONFIG |= {"intermediate_size": 36, "num_hidden_layers": 4, "local_attention": 6, "local_rope_theta": 1234.0}
TEXT_CONFIG |= {"torch_dtype": "float32", "layer_norm_eps": 1e-5, "position_embedding_type": "absolute"}
TEXT_CONFIG |= {f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "cls", "eos", "sep"))}
TOWER = {"num_attention_heads": 2}
HEADS = {"video_config": {"vision_config": TOWER}}


def write(folder, shapes: dict | None = None, **config) -> dict:
    """An original directory."""
    folder.mkdir(exist_ok=True)
    tensors = random_tensors(pe_av() if shapes is None else shapes, seed=0)
    save_file(tensors, folder / "model.safetensors")
    visual = {"pe_encoder": "PE-Core-tiny", "visual_transformer": {"hidden_size": VIDEO_WIDTH}}
    visual |= config.pop("visual", {})
    written = {"output_dim": SPACE, "nth_text_layer": 3, "text_model": TEXT_CONFIG, **config}
    written["audio_visual_model"] = {"visual_model": visual}
    (folder / "config.json").write_text(json.dumps(written))
    return tensors


# -------------------------------------------------------------------------------------------------- what a file is


def test_shapes_and_the_configuration_tell_the_sizes(tmp_path):
    write(tmp_path / "av", visual={"visual_transformer": {"max_position_embeddings": 8000, "rms_norm_eps": 1e-6}})
    model = load_original(tmp_path / "av", **HEADS)
    assert type(model) is PeVideoModel
    video, text = model.config.video_config, model.config.text_config
    assert (video.hidden_size, video.num_hidden_layers, video.intermediate_size) == (VIDEO_WIDTH, 2, 44)
    assert (video.num_attention_heads, video.num_key_value_heads, video.head_dim) == (4, 4, HEAD_DIM)
    assert (video.max_position_embeddings, video.rms_norm_eps, video.attention_bias) == (8000, 1e-6, False)
    assert video.rope_parameters == {"rope_theta": 16000, "rope_type": "default"}
    assert (video.vision_config.hidden_size, video.vision_config.projection_dim) == (32, 20)
    assert (text.vocab_size, text.hidden_size, text.intermediate_size, text.num_attention_heads) == (60, 24, 36, 3)
    assert (text.num_hidden_layers, text.local_attention) == (3, 6)
    assert text.rope_parameters["sliding_attention"]["rope_theta"] == 1234.0
    assert (model.config.projection_dim, model.config.normalize_text) == (SPACE, False)
    assert (model.text_video_logit_scale.item(), model.text_video_logit_bias.item()) == (1.0, 0.0)


@pytest.mark.parametrize("longest, base", [(10_000, 20_000), (3000, 10_000)])
def test_base_of_the_rotary_frequencies(tmp_path, longest, base):
    """The original computes it, and its configuration's own field says nothing."""
    write(tmp_path / "av", visual={"visual_transformer": {"max_position_embeddings": longest, "rope_theta": 7.0}})
    parameters = load_original(tmp_path / "av", **HEADS).config.video_config.rope_parameters
    assert parameters["rope_theta"] == base


def test_biases_of_attention(tmp_path):
    tensors = write(tmp_path / "av", pe_av(bias=True))
    model = load_original(tmp_path / "av", **HEADS)
    assert model.config.video_config.attention_bias
    name = "audio_visual_model.visual_model.visual_transformer.layers.1.self_attn.k_proj.bias"
    assert torch.equal(model.video_encoder.layers[1].self_attn.k_proj.bias, tensors[name])


def test_tensors_arrive_where_they_belong(tmp_path):
    tensors = write(tmp_path / "av")
    state = load_original(tmp_path / "av", **HEADS).state_dict()
    visual, tower = "audio_visual_model.visual_model.", "video_encoder.embedder.vision_model.timm_model."
    transformer, block = f"{visual}visual_transformer.", "resnet_block.block2.project.weight"
    same = {
        f"{tower}head.weight": tensors[f"{visual}pe_encoder.proj"].T,
        f"{tower}attn_pool.kv.bias": tensors[f"{visual}pe_encoder.attn_pool.attn.in_proj_bias"][32:],
        "video_encoder.embedder.proj.weight": tensors[f"{visual}proj.weight"],
        "video_encoder.embedder.data_proj.bias": tensors[f"{visual}data_proj.bias"],
        "video_encoder.patch_embedder.class_embedding": tensors[f"{transformer}embeddings.cls_token"],
        f"video_encoder.patch_embedder.{block}": tensors[f"{transformer}embeddings.{block}"],
        "video_encoder.norm.weight": tensors[f"{transformer}norm.weight"],
        "video_encoder.layers.1.mlp.up_proj.weight": tensors[f"{transformer}layers.1.mlp.up_proj.weight"],
        "video_head.proj.weight": tensors["visual_head.proj.weight"],
        "text_video_head.layer_norm.bias": tensors["visual_text_head.layer_norm.bias"],
        "text_model.layers.2.attn_norm.weight": tensors["text_model.layers.2.attn_norm.weight"],
        "text_model.final_norm.weight": tensors["text_model.final_norm.weight"],
    }
    for name, tensor in same.items():
        assert torch.equal(state[name], tensor), name
    assert not any(name.startswith("text_model.layers.3.") for name in state)


@pytest.mark.parametrize("nth_layer", [1, 4, None])
def test_layer_of_the_text_embedding(tmp_path, nth_layer):
    write(tmp_path / "av", nth_text_layer=nth_layer)
    model = load_original(tmp_path / "av", **HEADS)
    assert model.config.text_config.num_hidden_layers == (nth_layer or 4)
    assert model.config.normalize_text is (nth_layer is None)


def test_published_names_of_frame_towers(tmp_path):
    for name in ("PE-Core-T16-384", "PE-Core-S16-384", "PE-Core-B16-224", "PE-Core-L14-336", "PE-Core-G14-448"):
        write(tmp_path / "av", visual={"pe_encoder": name})
        config = load_original(tmp_path / "av", **HEADS).config.video_config.vision_config
        assert (config.architecture, config.hidden_size, config.num_attention_heads) == (PE_TOWERS[name], 32, 2)
        visual = {"audio_visual_model": {"visual_model": {"pe_encoder": name}}}
        read = PeAvDirectory().read_settings(visual)[0]["video_config"]["vision_config"]
        assert read["num_attention_heads"] == PE_ARCHITECTURES[PE_TOWERS[name]]["num_attention_heads"]
    found, processor = PeAvDirectory().read_settings({"audio_visual_model": {}})
    tower = found["video_config"]["vision_config"]
    assert tower == {"architecture": "vit_pe_core_large_patch14_336", "num_attention_heads": 16}
    assert found["text_config"] == {"num_attention_heads": 16, "num_hidden_layers": 22} and processor == {}
    assert PeAvDirectory().read_settings({"model_type": "pe_video"}) == ({}, {})


def test_weights_without_configuration(tmp_path):
    write(tmp_path / "av")
    (tmp_path / "av/config.json").unlink()
    with pytest.raises(
        ConversionError, match="don't tell .*vision_config.num_attention_heads, text_config.num_attent"
    ):
        load_original(tmp_path / "av")
    text = {"num_attention_heads": 3, "num_hidden_layers": 2, "pad_token_id": 0}
    model = load_original(tmp_path / "av/model.safetensors", text_config=text, **HEADS)
    assert len(model.text_model.layers) == 2


def test_encoder_alone(tmp_path):
    write(tmp_path / "av")
    whole = load_original(tmp_path / "av", **HEADS)
    alone = PeVideoEncoder.from_original(tmp_path / "av", vision_config=TOWER)
    assert alone.config.to_dict() == {**whole.config.video_config.to_dict(), "architectures": ["PeVideoEncoder"]} | {
        name: alone.config.to_dict()[name] for name in ("dtype",)
    }
    expected = whole.video_encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in alone.state_dict().items())


BAD_FILES = {
    "missing": (
        lambda shapes: {name: shape for name, shape in shapes.items() if not name.endswith("data_proj.bias")},
        "data_proj.bias: missing",
    ),
    "unknown": (lambda shapes: {**shapes, "visual_head.bias": (12,)}, r"bias: not expected \(found shape \[12\]\)"),
    "unknown part": (lambda shapes: {**shapes, "depth_head.weight": (12,)}, "depth_head.weight: not expected"),
    "too many layers": (
        lambda shapes: {**shapes, "text_model.layers.28.mlp_norm.weight": (24,)},
        "layers.28.mlp_norm.weight: not expected",
    ),
    "convolution": (
        lambda shapes: {
            **shapes,
            "audio_visual_model.visual_model.visual_transformer.embeddings.resnet_block.block1.project.weight": (
                *(VIDEO_WIDTH, VIDEO_WIDTH, 5),
            ),
        },
        r"project.weight: expected shape \[32, 32, 3\], found shape \[32, 32, 5\]",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_do_not_fit(tmp_path, name):
    change, message = BAD_FILES[name]
    write(tmp_path / "av", change(pe_av()))
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(tmp_path / "av", model_class=PeVideoModel, **HEADS)


BAD_CONFIGURATIONS = {
    "layer": ({"nth_text_layer": 9}, "text_config.num_hidden_layers=9 was given, but .* say 4"),
    "text": ({"text_model": {**TEXT_CONFIG, "vocab_size": 61}}, "text_config.vocab_size=61 was given, but .* say 60"),
    "wrong kind": ({"text_model": "modernbert"}, "config.json: not what the original reads"),
}


@pytest.mark.parametrize("name", BAD_CONFIGURATIONS)
def test_configurations_that_contradict_the_file(tmp_path, name):
    fields, message = BAD_CONFIGURATIONS[name]
    write(tmp_path / "av", **fields)
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(tmp_path / "av", **HEADS)


def test_a_damaged_configuration(tmp_path):
    write(tmp_path / "av")
    (tmp_path / "av/config.json").write_text("{")
    with pytest.raises(ConversionError, match="config.json: not what the original reads"):
        load_original(tmp_path / "av", **HEADS)


def test_presets_contradict_other_sizes(tmp_path):
    write(tmp_path / "av")
    with pytest.raises(ConversionError, match="video_config.hidden_size=768 was given, but .* say 32"):
        load_original(tmp_path / "av", preset="pe-av-small")


PRESETS = {name: preset for name, preset in PE_VIDEO.presets.items() if name.startswith("pe-av-")}


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_makes_exactly_the_tensors_of_every_preset(name):
    preset = PRESETS[name]
    model = empty_model(PeVideoModel, PeVideoModel.config_class(**preset.config))
    assert check_ours(form_of(model).rules(model.config), model.state_dict()) == []
    video = model.config.video_config
    assert video.head_dim * video.num_attention_heads == video.hidden_size
    assert (preset.video_processor.get("num_frames") == 16) is name.endswith("-16-frame")


def test_there_is_a_preset_of_every_published_size():
    sizes = [f"pe-av-{size}" for size in ("small", "base", "large")]
    assert set(PRESETS) == {*sizes, *(f"{size}-16-frame" for size in sizes)}


# --------------------------------------------------------------------------------------------- directories, and back


def test_a_directory_with_tokenizer(tmp_path):
    write(tmp_path / "av", visual={"fixed_len_video": True})
    save_modernbert_tokenizer(tmp_path / "av")
    run("convert", tmp_path / "av", tmp_path / "out", "--set", f"video_config={json.dumps(HEADS['video_config'])}")
    processor, model = (auto.from_pretrained(tmp_path / "out") for auto in (AutoProcessor, AutoModel))
    assert (type(processor), type(model)) == (PeVideoProcessor, PeVideoModel)
    batch = processor(text=["a dog runs", "the cat"], videos=torch.zeros(40, 3, 8, 9), return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (1, 16, 3, 12, 12)
    assert model(**batch).logits_video_text.shape == (1, 2)
    original = AutoTokenizer.from_pretrained(tmp_path / "av")
    assert processor.tokenizer(["a dog runs"])["input_ids"] == original(["a dog runs"])["input_ids"]

    assert all(report.passed for report in verify_directory(tmp_path / "out", source=tmp_path / "av"))
    provenance = json.loads((tmp_path / "out/provenance.json").read_text())
    assert set(provenance["left_out"]) == PARTS_LEFT_OUT
    assert provenance["tokenizer"]["file"] == "tokenizer.json"
    card = (tmp_path / "out/README.md").read_text()
    assert "processor = AutoProcessor.from_pretrained(directory)" in card
    assert all(f"- `{part}`: PE Video is the model's video and text part" in card for part in PARTS_LEFT_OUT)


def test_a_directory_without_tokenizer(tmp_path):
    write(tmp_path / "av")
    convert_checkpoint(tmp_path / "av/model.safetensors", tmp_path / "out", **HEADS)
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "out")
    assert processor.size == {"height": 12, "width": 12}
    assert processor(torch.zeros(40, 3, 8, 9), return_tensors="pt")["pixel_values_videos"].shape[1] == 40
    save_modernbert_tokenizer(tmp_path / "words")
    convert_checkpoint(tmp_path / "av", tmp_path / "more", tokenizer=tmp_path / "words/tokenizer.json", **HEADS)
    assert type(AutoProcessor.from_pretrained(tmp_path / "more")) is PeVideoProcessor


def test_a_tokenizer_of_another_vocabulary(tmp_path):
    write(
        tmp_path / "av",
        {**pe_av(), "text_model.embeddings.tok_embeddings.weight": (10, TEXT_WIDTH)},
        text_model={**TEXT_CONFIG, "vocab_size": 10},
    )
    save_modernbert_tokenizer(tmp_path / "av")
    with pytest.raises(ConversionError, match="pieces, but the model's table has 10"):
        convert_checkpoint(tmp_path / "av", tmp_path / "out", **HEADS)


def test_an_encoder_takes_no_tokenizer(tmp_path):
    tensors = write(tmp_path / "av")
    save_modernbert_tokenizer(tmp_path / "av")
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith("audio_visual_model.")}
    save_file(encoder, tmp_path / "av/model.safetensors")
    convert_checkpoint(tmp_path / "av", tmp_path / "out", vision_config=TOWER)
    assert type(AutoModel.from_pretrained(tmp_path / "out")) is PeVideoEncoder
    assert not (tmp_path / "out/tokenizer.json").exists()
    with pytest.raises(ConversionError, match="PeVideoEncoder takes no text; leave the tokenizer out"):
        convert_checkpoint(
            tmp_path / "av", tmp_path / "more", tokenizer=tmp_path / "av/tokenizer.json", vision_config=TOWER
        )


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_what_comes_back(tmp_path, suffix):
    """Everything of video and text but the layers that nothing reads."""
    tensors = write(tmp_path / "av")
    convert_checkpoint(tmp_path / "av", tmp_path / "out", **HEADS)
    not_given = reverse_directory(tmp_path / "out", tmp_path / f"back.{suffix}")
    load = load_file if suffix == "safetensors" else torch.load
    back = load(tmp_path / f"back.{suffix}")
    kept = {name for name in tensors if name not in AUDIO and not name.startswith("text_model.layers.3.")}
    assert set(back) == kept
    assert all(torch.equal(back[name], tensors[name]) for name in kept)
    assert {name for name in not_given if name.startswith("text_video_logit")} == {
        "text_video_logit_scale",
        "text_video_logit_bias",
    }
    assert "text_model.layers.3.attn_norm.weight" in not_given
