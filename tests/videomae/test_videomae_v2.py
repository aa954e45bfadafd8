"""What VideoMAE V2 adds: dual masking, attention by directions, Hub directories, features for detection, views."""

import json
import os
import shutil
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

import vidformers
from tests.harness.attention import AttentionMixin
from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close
from tests.harness.conversion import ConversionMixin
from tests.harness.modeling import DeviceMixin, GraphMixin, OutputMixin, StorageMixin, TrainingMixin
from tests.harness.parity import COMMITTED, ParityMixin, golden_folders, recorded
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, GOLDEN, NOTICEABLE, REORDERED
from tests.videomae.spec import CLASSIFIER, PRETRAINING, SHALLOW, SPEC
from tests.videomae.spec_v2 import DUAL, POOLED, SPEC_V2
from vidformers import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoMAEVideoProcessor,
    load_original,
)
from vidformers.conversion import ConversionError, convert_checkpoint, reverse_directory, verify_directory
from vidformers.inference.windows import Windows
from vidformers.models.videomae import detection_features, dual_masks, random_mask, running_cell_mask, tube_mask
from vidformers.models.videomae.detection_videomae import WINDOWS_AT_ONCE
from vidformers.models.videomae.record import FAMILY as VIDEOMAE
from vidformers.video import dense_view_indices, sparse_view_indices, view_crop_starts


class VideoMAEV2ModelTest(
    StorageMixin,
    OutputMixin,
    DeviceMixin,
    TrainingMixin,
    GraphMixin,
    AttentionMixin,
    PositionsMixin,
    unittest.TestCase,
):
    """The shared tests of models, under dual masking and with attention by directions."""

    spec = SPEC_V2


class VideoMAEV2CitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC_V2


class VideoMAEV2GoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC_V2


class VideoMAEV2ConversionTest(ConversionMixin, unittest.TestCase):
    """Its files come and go."""

    spec = SPEC_V2


HUB = COMMITTED / "videomae_v2/hub_directory"
GRID = (4, 4, 4)
KINETICS = Path(os.environ.get("VIDFORMERS_GOLDENS", "")).parent / "data/kinetics"
FIELDS = {"num_attention_heads": 2, "image_size": 16, "num_frames": 16}


def same(title, expected, actual, tolerance=REORDERED):
    assert_close(title, {"value": expected}, {"value": actual}, tolerance)


def case(name: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Hyper-parameters, inputs and outputs of a recorded case."""
    folder = golden_folders(SPEC_V2)[name]
    return json.loads((folder / "case.json").read_text())["hyperparameters"], *recorded(folder)


@pytest.fixture(autouse=True)
def no_gradients(request):
    """For the functions here; the classes of shared tests train models."""
    with torch.set_grad_enabled(request.cls is not None):
        yield


# ---------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("index", range(7))
def test_masks_are_those_of_the_original(index):
    values, inputs, outputs = case("mask_samplers")
    settings = values["generators"][index]
    draw = {"run_cell": running_cell_mask, "tube": tube_mask, "random": random_mask}[settings["kind"]]
    grid, ratio, count = tuple(settings["input_size"]), settings["mask_ratio"], settings["draws"]
    masks = outputs[f"{index}.masks"]
    assert torch.equal(draw(grid, ratio, count, seed=int(inputs[f"{index}.seed"])), masks)
    generator = np.random.RandomState(int(inputs[f"{index}.seed"]))
    assert torch.equal(torch.cat([draw(grid, ratio, seed=generator) for _ in range(count)]), masks)
    if draw is running_cell_mask:
        for start, expected in enumerate(outputs[f"{index}.all_maps"]):
            assert torch.equal(draw(grid, ratio, 2, start=start), expected.expand(2, -1))


def test_joint_masks_are_those_of_the_original():
    values, _, outputs = case("joint_masks")
    grid, ratios = tuple(values["window_size"]), (values["mask_ratio"], values["decoder_mask_ratio"])
    hidden, not_decoded = dual_masks(grid, *ratios, values["videos"], values["seed"])
    assert torch.equal(hidden, outputs["bool_masked_pos"])
    assert torch.equal(not_decoded, outputs["decode_masked_pos"])
    assert (~not_decoded).sum(1).tolist() == outputs["decoded"].tolist()
    assert (~not_decoded & hidden).sum(1).tolist() == outputs["in_loss"].tolist()


def test_without_a_decoder_mask_the_hidden_is_decoded():
    hidden, not_decoded = dual_masks((8, 14, 14), 0.9, 0, 3, seed=5)
    assert torch.equal(not_decoded, ~hidden)
    assert torch.equal(hidden, tube_mask((8, 14, 14), 0.9, 3, seed=5)), "nothing is drawn for the decoder"


def test_running_cells_go_on_at_odd_sides():
    even, odd = running_cell_mask((8, 16, 16), 0.5, 4, seed=3), running_cell_mask((8, 15, 15), 0.5, 4, seed=3)
    assert torch.equal(even.view(4, 8, 16, 16)[:, :, :15, :15].flatten(1), odd)
    assert len(set(odd.sum(1).tolist())) == 1, "over four times every place is decoded as often as any other"
    assert len({tuple(mask.tolist()) for mask in running_cell_mask(GRID, 0.25, 20, seed=0)}) == 4


def test_seeds_of_running_cells():
    torch.manual_seed(0)
    first, second = running_cell_mask(GRID, batch_size=8), running_cell_mask(GRID, batch_size=8)
    torch.manual_seed(0)
    assert torch.equal(first, running_cell_mask(GRID, batch_size=8))
    assert not torch.equal(first, second)
    generator = np.random.RandomState(1)
    running_cell_mask(GRID, start=2, seed=generator)
    assert torch.equal(running_cell_mask(GRID, 0.5, 4, generator), running_cell_mask(GRID, 0.5, 4, 1)), "a draw"


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0, -0.5])
def test_cells_that_hide_nothing_or_everything(ratio):
    with pytest.raises(ValueError, match="`mask_ratio`"):
        running_cell_mask(GRID, ratio)
    if ratio:
        with pytest.raises(ValueError, match="`decoder_mask_ratio`"):
            dual_masks(GRID, 0.75, ratio)
    with pytest.raises(ValueError, match="`start` from 0 to 3, got 4"):
        running_cell_mask(GRID, start=4)


# --------------------------------------------------------------------------------------------------- dual masking


def video(frames=8, height=32, width=24, batch=2) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def sized(spec=PRETRAINING, **fields):
    """A tiny model of 4 × 4 × 3 tokens, with an odd side; `fields` change it."""
    return SPEC.build(spec, **{"num_frames": 8, **fields})


@pytest.mark.parametrize("tubelet", [1, 2, 4])
@pytest.mark.parametrize("cos_attn", [False, True])
def test_dual_masking_step_by_step(tubelet, cos_attn):
    """The sequence of the decoder and the loss, video by video and token by token."""
    model = sized(tubelet_size=tubelet, cos_attn=cos_attn, num_frames=4 * tubelet)
    clip, (hidden, not_decoded) = video(4 * tubelet), dual_masks((4, 4, 3), 0.6, 0.5, 2, seed=1)
    output = model(clip, hidden, not_decoded)
    errors, logits = [], []
    for one, masked, left in zip(clip[:, None], hidden[:, None], not_decoded[:, None], strict=True):
        visible, asked = ((~mask[0]).nonzero()[:, 0] for mask in (masked, left))
        table = model.position_embeddings.table[0]
        seen = model.encoder_to_decoder(model.videomae(one, masked).last_hidden_state[0]) + table[visible]
        tokens = torch.cat([seen, model.mask_token[0] + table[asked]])[None]
        for layer in model.decoder.decoder_layers:
            tokens, _ = layer(tokens)
        logits.append(model.decoder.head(model.decoder.norm(tokens[:, len(visible) :])))
        cut, grid = model.videomae.embeddings.cut(one)
        squares = (logits[-1] - model.targets(cut, grid, asked[None]))[0].square().mean(-1)
        errors += [square for token, square in zip(asked.tolist(), squares, strict=True) if masked[0, token]]
    same("logits", torch.cat(logits), output.logits)
    same("loss", torch.stack(errors).mean(), output.loss)


def test_counts_in_the_loss_may_differ():
    """Of the batch's tokens, not of each video's: where videos count unequal numbers of them it is another mean."""
    values, inputs, outputs = case("pretrain_dual_mask_compiled_names")
    counts = outputs["counts_in_loss"]
    assert len(set(counts.tolist())) > 1
    squares = (outputs["logits"] - outputs["labels_normalized"]).square().mean(-1) * outputs["is_in_loss"]
    assert ((squares.sum(1) / counts).mean() - outputs["loss_normalized"]).abs() > 1e-4


def test_the_decoder_sees_no_token_in_vain():
    """Tokens that are neither visible nor asked for are in no sequence; those that are both are there twice."""
    model, (hidden, not_decoded) = sized(), dual_masks((4, 4, 3), 0.9, 0.5, 2, seed=1)
    output = model(video(), hidden, not_decoded, output_hidden_states=True)
    num_visible, num_asked = int((~hidden[0]).sum()), int((~not_decoded[0]).sum())
    assert output.decoder_hidden_states[0].shape[1] == num_visible + num_asked < 48
    assert output.hidden_states[0].shape[1] == num_visible
    assert output.logits.shape[1] == num_asked == 24


def test_a_decoder_mask_that_is_the_opposite_changes_nothing():
    model, hidden = sized(), tube_mask((4, 4, 3), 0.6, 2, seed=1)
    plain, dual = model(video(), hidden), model(video(), hidden, ~hidden)
    same("logits", plain.logits, dual.logits, EXACT)
    same("loss", plain.loss, dual.loss)
    for dtype in (torch.float64, torch.int64):
        same("numbers", dual.loss, model(video(), hidden.to(dtype), (~hidden).to(dtype)).loss, EXACT)


def test_hooks_of_the_encoder_fire_in_pretraining():
    model, (hidden, not_decoded) = sized(), dual_masks((4, 4, 3), 0.6, 0.5, 2, seed=1)
    seen = []
    model.videomae.register_forward_hook(lambda module, given, output: seen.append(output.last_hidden_state.shape))
    model(video(), hidden, not_decoded)
    model(video(), hidden)
    assert seen == [(2, int((~hidden[0]).sum()), 48)] * 2


BAD_DECODER_MASKS = {
    "one video's": (torch.zeros(1, 48, dtype=torch.bool), r"`decode_masked_pos` .* \(2, 48\).* got \(1, 48\)"),
    "fewer tokens": (torch.zeros(2, 40, dtype=torch.long), r"`decode_masked_pos` .* \(2, 48\).* got \(2, 40\)"),
    "more tokens": (torch.zeros(2, 50, dtype=torch.bool), r"`decode_masked_pos` .* \(2, 48\).* got \(2, 50\)"),
    "no batch": (torch.zeros(48, dtype=torch.bool), r"`decode_masked_pos` .* \(2, 48\).* got \(48,\)"),
    "unequal": (torch.arange(48).expand(2, -1) < torch.tensor([[9], [10]]), r"`decode_masked_pos` .* \[9, 10\]"),
    "everything": (torch.ones(2, 48, dtype=torch.bool), "`decode_masked_pos` masks all tokens"),
    "numbers": (torch.full((2, 48), 2), "`decode_masked_pos` .* booleans"),
    "what is seen": (None, "`decode_masked_pos` leaves nothing to predict of what `bool_masked_pos` hides"),
}


@pytest.mark.parametrize("name", BAD_DECODER_MASKS)
def test_bad_decoder_masks(name):
    mask, message = BAD_DECODER_MASKS[name]
    hidden = tube_mask((4, 4, 3), 0.6, 2, seed=1)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        sized()(video(), hidden, hidden if mask is None else mask)


def test_reconstruction_of_what_was_asked_for():
    model, (hidden, not_decoded) = sized(), dual_masks((4, 4, 3), 0.6, 0.5, 2, seed=1)
    clip = video()
    cut, grid = model.videomae.embeddings.cut(clip)
    asked = (~not_decoded).nonzero()[:, 1].view(2, -1)
    true = model.reconstruct(clip, hidden, model.targets(cut, grid, asked), decode_masked_pos=not_decoded)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    same("true pixels", clip * std + mean, true)


# ------------------------------------------------------------------------------------------ attention by directions


def test_only_directions_count_and_factors_are_cut():
    model, clip = SPEC.build(POOLED), video(6)
    attention = model.encoder.layer[1].attention.attention
    expected = model(clip).pooler_output
    attention.query.weight *= 3
    attention.q_bias *= 3
    attention.key.weight *= 0.5
    same("other lengths", expected, model(clip).pooler_output)
    attention.scale.fill_(4.6052)
    at_most = model(clip).pooler_output
    assert (at_most - expected).abs().max() > NOTICEABLE
    attention.scale.fill_(6.0)
    same("cut", at_most, model(clip).pooler_output, EXACT)
    fresh = VideoMAEModel(SPEC.config(POOLED)).encoder.layer[0].attention.attention.scale
    same("at first", torch.full((4, 1, 1), 10.0), fresh.exp())


# ------------------------------------------------------------------------------------------------ Hub directories


CODE = "raise SystemExit('the code of a directory was run')"


@pytest.fixture
def hub(tmp_path) -> Path:
    """The recorded directory, with code that may not run, and the settings of its processor."""
    folder = tmp_path / "VideoMAEv2-Base"
    shutil.copytree(HUB, folder)
    for name in ("modeling_videomaev2.py", "modeling_config.py"):
        (folder / name).write_text(CODE)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    settings = {"image_processor_type": "VideoMAEImageProcessor", "image_mean": mean, "image_std": std}
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **sizes}))
    return folder


def change(folder: Path, **settings) -> None:
    """Change a directory's settings, those of `model_config` or, with a capital letter before it, `Model_type`."""
    found = json.loads((folder / "config.json").read_text())
    for name, value in settings.items():
        (found if name[0].isupper() else found["model_config"])[name[0].lower() + name[1:]] = value
    (folder / "config.json").write_text(json.dumps(found))


def as_recorded(model) -> None:
    inputs, outputs = recorded(HUB)
    output = model(inputs["video"].transpose(1, 2), output_hidden_states=True)
    assert type(model) is VideoMAEModel
    expected = {"features": outputs["features"], "last": outputs["hidden_states.last"]}
    actual = {"features": output.pooler_output, "last": output.hidden_states[-1]}
    assert_close("directory of the Hub", expected, actual, GOLDEN)


@pytest.mark.parametrize("model_type", ["VideoMAEv2_Base", "VideoMAEv2_giant", "VideoMAEv2_Other"])
def test_hub_directories_load(hub, model_type):
    change(hub, Model_type=model_type)
    for arguments in ({}, {"trust_remote_code": True}, {"attn_implementation": "eager"}):
        as_recorded(AutoModel.from_pretrained(hub, **arguments))
    as_recorded(VideoMAEModel.from_pretrained(hub))
    as_recorded(AutoModel.from_pretrained(hub, config=AutoConfig.from_pretrained(hub, trust_remote_code=True)))
    as_recorded(load_original(hub))
    config = AutoConfig.from_pretrained(hub)
    assert type(config) is vidformers.VideoMAEConfig and not hasattr(config, "auto_map")
    half, info = VideoMAEModel.from_pretrained(hub, dtype=torch.bfloat16, output_loading_info=True)
    assert half.dtype == torch.bfloat16 and not any(info.values())
    assert half.name_or_path == str(hub)
    with pytest.raises(ValueError, match="'videoprism' is not|holds a model of type 'VideoMAEv2_.*'vjepa2'"):
        vidformers.VJEPA2Model.from_pretrained(hub)


def test_hub_directories_are_saved_as_ours(hub, tmp_path):
    AutoModel.from_pretrained(hub).save_pretrained(tmp_path / "ours")
    saved = json.loads((tmp_path / "ours/config.json").read_text())
    assert saved["model_type"] == "videomae" and saved["architectures"] == ["VideoMAEModel"]
    assert not {"auto_map", "model_config"} & saved.keys()
    as_recorded(AutoModel.from_pretrained(tmp_path / "ours"))
    reverse_directory(tmp_path / "ours", tmp_path / "back.safetensors")
    original, back = load_file(hub / "model.safetensors"), load_file(tmp_path / "back.safetensors")
    assert original.keys() == back.keys()
    assert_close("and back", original, back, EXACT)


def test_hub_directories_convert(hub, tmp_path):
    reports = convert_checkpoint(hub, tmp_path / "ours")
    assert all(report.passed for report in reports)
    as_recorded(AutoModel.from_pretrained(tmp_path / "ours"))
    assert all(report.passed for report in verify_directory(tmp_path / "ours", source=hub))


def test_the_norm_in_the_file_decides(hub):
    """The settings of the one directory say mean pooling, and its tensors hold the norm of the first token."""
    tensors = load_file(hub / "model.safetensors")
    save_file({name.replace("fc_norm", "norm"): value for name, value in tensors.items()}, hub / "model.safetensors")
    clip = recorded(HUB)[0]["video"].transpose(1, 2)
    for model in (AutoModel.from_pretrained(hub), load_original(hub)):
        assert not model.config.use_mean_pooling and model.fc_norm is None
        output = model(clip, output_hidden_states=True)
        weight, bias = tensors["model.fc_norm.weight"], tensors["model.fc_norm.bias"]
        expected = nn.functional.layer_norm(output.hidden_states[-1][:, 0], (24,), weight, bias, 1e-6)
        same("pooled", expected, output.pooler_output)


def test_classifiers_of_hub_directories(hub):
    encoder = AutoModel.from_pretrained(hub)
    clip = recorded(HUB)[0]["video"].transpose(1, 2)
    labels = {0: "a", 1: "b", 2: "c"}
    for model in (
        AutoModelForVideoClassification.from_pretrained(hub, id2label=labels, drop_path_rate=0.1),
        VideoMAEForVideoClassification.from_original(hub, id2label=labels, drop_path_rate=0.1),
    ):
        assert type(model) is VideoMAEForVideoClassification
        assert (model.config.id2label, model.config.drop_path_rate) == (labels, 0.1)
        same("pooled", encoder(clip).pooler_output, model.pool(model.videomae(clip).last_hidden_state), EXACT)
        assert model.classifier.weight.shape == (3, 24)
    with pytest.raises(ValueError, match="holds an encoder, of which VideoMAEForPreTraining can't be made"):
        VideoMAEForPreTraining.from_pretrained(hub)
    change(hub, qk_scale=0.5)
    with pytest.raises(ValueError, match="qk_scale"):
        AutoModel.from_pretrained(hub)


def test_processors_of_hub_directories(hub):
    processor = AutoVideoProcessor.from_pretrained(hub)
    assert type(processor) is VideoMAEVideoProcessor
    assert processor(np.zeros((8, 20, 30, 3), np.uint8), return_tensors="pt")["pixel_values"].shape == (
        1,
        8,
        3,
        16,
        16,
    )


# ------------------------------------------------------------------------------------------------ conversion, labels


NAMES = [f"class {number}" for number in range(5)]
KEPT = ["class 3", "class 0", "class 4"]


def test_classifiers_of_a_part_of_the_classes(tmp_path):
    _, inputs, outputs = case("finetune_cos_attn")
    path = golden_folders(SPEC_V2)["finetune_cos_attn"] / "checkpoint.pt"
    fields = {"image_size": 16, "num_frames": 8}  # The factors of `cos_attn` tell the number of heads.
    (tmp_path / "kept.txt").write_text("\n".join(KEPT))
    for kept in (KEPT, tmp_path / "kept.txt"):
        model = load_original(path, labels=NAMES, keep_labels=kept, **fields)
        assert model.config.id2label == dict(enumerate(KEPT)) and model.config.num_labels == 3
        assert model.config.label2id["class 0"] == 1 and model.config.num_attention_heads == 2
        logits = model(inputs["video"].transpose(1, 2)).logits
        same("logits", outputs["logits"][:, [3, 0, 4]], logits, GOLDEN)
    assert load_original(path, labels=NAMES, **fields).config.id2label[4] == "class 4"
    convert_checkpoint(path, tmp_path / "out", labels=NAMES, keep_labels=KEPT, **fields)
    assert all(report.passed for report in verify_directory(tmp_path / "out", source=path))
    assert "3 are kept" in (tmp_path / "out/README.md").read_text()
    bad = {
        "'class 9', 'x'": {"labels": NAMES, "keep_labels": ["class 9", "class 1", "x"]},
        "give those of all as labels": {"keep_labels": KEPT},
        "4 labels were given, but head.weight has 5 rows": {"labels": NAMES[:4], "keep_labels": KEPT[:2]},
        "each once": {"labels": NAMES, "keep_labels": ["class 1", "class 1"]},
        "no readable names": {"labels": tmp_path / "none.txt"},
        "num_labels=4 was given": {"labels": NAMES[:4]},
    }
    for message, arguments in bad.items():
        with pytest.raises(ConversionError, match=message):
            load_original(path, **arguments, **fields)
    with pytest.raises(ConversionError, match="has no classifier of which labels"):
        load_original(HUB, labels=NAMES, keep_labels=KEPT)


@pytest.mark.parametrize("count", [400, 600, 700])
def test_kinetics_of_k710(count):
    """By the names in the original's lists, which the repository doesn't hold."""
    folder = golden_folders(SPEC_V2).get("distilled_k710")
    if folder is None or not KINETICS.is_dir():
        pytest.skip("the case and the lists of classes are only beside the folder that $VIDFORMERS_GOLDENS names")
    inputs, outputs = recorded(folder)
    lists = {"labels": KINETICS / "label_map_k710.txt", "keep_labels": KINETICS / f"label_map_k{count}.txt"}
    model = load_original(folder / "checkpoint.pt", **lists, **FIELDS)
    same("logits", outputs[f"logits_k{count}"], model(inputs["video"].transpose(1, 2)).logits, GOLDEN)


@pytest.mark.parametrize(("entry", "wrapper"), [("model", "_orig_mod."), ("module", ""), ("", "_orig_mod.")])
def test_forms_come_back(tmp_path, entry, wrapper):
    for name in ("finetune_cos_attn", "pretrain_dual_mask_compiled_names"):
        values, _, _ = case(name)
        settings = SPEC_V2.goldens[[golden.folder for golden in SPEC_V2.goldens].index(name)].runs[0]
        folder = golden_folders(SPEC_V2)[name]
        arguments = settings.arguments(folder, values)
        original = {
            key.removeprefix("_orig_mod."): value for key, value in tensors_of(folder / "checkpoint.pt").items()
        }
        original = {f"{wrapper}{key}": value for key, value in original.items()}
        torch.save({entry: original} if entry else original, tmp_path / f"{name}.pth")
        arguments |= {"source": tmp_path / f"{name}.pth", "out": tmp_path / name}
        del arguments["path"]
        convert_checkpoint(**arguments)
        reverse_directory(tmp_path / name, tmp_path / f"{name}-back.pth")
        back = torch.load(tmp_path / f"{name}-back.pth", weights_only=True)
        back = back[entry] if entry else back
        assert back.keys() == original.keys()
        assert_close(name, original, back, EXACT)


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)["model"]


PARAMETERS = {
    "videomae-v2-small": 24_029_376,
    "videomae-v2-base": 94_210_944,
    "videomae-v2-large": 317_782_016,
    "videomae-v2-huge": 645_659_392,
    "videomae-v2-giant-hybrid-1200e": 1_026_306_560,
    "videomae-v2-giant-hybrid-1200e-k710-finetuned": 1_012_611_142,
    "videomae-v2-small-k710-distilled-from-giant": 22_153_286,
    "videomae-v2-base-k710-distilled-from-giant": 86_773_190,
    "videomae-v2-base-encoder": 86_773_190 - 710 * 769,
    "videomae-v2-giant-encoder": 1_012_611_142 - 710 * 1409,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_presets(name):
    """As counted by building the original's models."""
    preset = VIDEOMAE.presets[name]
    with torch.device("meta"):
        model = getattr(vidformers, preset.architecture)(vidformers.VideoMAEConfig(**preset.config))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_a_card_says_that_no_license_is_stated(hub, tmp_path, monkeypatch):
    from dataclasses import replace

    preset = VIDEOMAE.presets["videomae-v2-base-encoder"]
    tiny = replace(preset, config={"use_pooler": True})
    for name, license in (("said", "cc-by-nc-4.0"), ("unsaid", None)):
        monkeypatch.setitem(VIDEOMAE.presets, name, replace(tiny, license=license))
        convert_checkpoint(hub, tmp_path / name, preset=name)
        card = (tmp_path / name / "README.md").read_text()
        assert ("states no license" in card) == (license is None) == ("license:" not in card)


# -------------------------------------------------------------------------------------------- features for detection


def frames(count: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, 20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("spec", [CLASSIFIER, POOLED], ids=["classifier", "encoder"])
def test_windows_one_by_one(spec):
    """As many windows as need several calls, which share frames."""
    model, clip = SPEC.build(spec, attention="sdpa"), frames(6 + 3 * WINDOWS_AT_ONCE * 2 + 4)
    features, starts = detection_features(model, clip, num_frames=6, stride=3)
    assert starts.tolist() == list(range(0, len(clip) - 5, 3)) and len(starts) > 2 * WINDOWS_AT_ONCE
    assert (features.dtype, features.shape, starts.dtype) == (torch.float32, (len(starts), 48), torch.int64)
    processor = VideoMAEVideoProcessor.for_detection((32, 24))
    for start, feature in zip(starts[::4].tolist(), features[::4], strict=True):
        pixels = processor(clip[start : start + 6], return_tensors="pt")["pixel_values"]
        assert pixels.min() >= 0 and pixels.max() <= 1
        if spec is POOLED:
            expected = model(pixels).pooler_output[0]
        else:
            expected = model.pool(model.videomae(pixels).last_hidden_state)[0]
        same(f"window at {start}", expected, feature)
    sparse, starts = detection_features(model, clip, num_frames=6, stride=9)
    same("gaps between windows", features[::3], sparse)


@pytest.mark.parametrize("count", [16, 37, 50])
def test_windows_are_those_of_long_videos(count):
    cut = Windows.preset("videomae_v2_thumos")
    expected = [window.frame_indices[0] for window in cut(np.arange(count) / 30, count / 30)]
    model = SPEC.build(CLASSIFIER, num_frames=16, **SHALLOW)
    assert detection_features(model, frames(count))[1].tolist() == expected


def test_what_has_no_features():
    model = SPEC.build(CLASSIFIER)
    with pytest.raises(ValueError, match="takes 16 frames, every 4; the video has 15"):
        detection_features(model, frames(15))
    for given in (frames(20).astype(np.float32), frames(20)[..., :2], frames(20)[0]):
        with pytest.raises(ValueError, match="uint8 frames"):
            detection_features(model, given)
    with pytest.raises(ValueError, match="no pooled output"):
        detection_features(SPEC.build(POOLED, use_pooler=False), frames(20), num_frames=6)


def test_pixels_of_detection(tmp_path):
    processor, clip = VideoMAEVideoProcessor.for_detection(16), frames(5)
    pixels = processor(clip, return_tensors="pt")["pixel_values"]
    plain = torch.from_numpy(clip).permute(3, 0, 1, 2).float() / 255
    plain = nn.functional.interpolate(plain, size=(16, 16), mode="bilinear", align_corners=False)
    same("pixels", plain.transpose(0, 1)[None], pixels, EXACT)
    processor.save_pretrained(tmp_path)
    loaded = VideoMAEVideoProcessor.from_pretrained(tmp_path)
    same("loaded", pixels, loaded(clip, return_tensors="pt")["pixel_values"], EXACT)
    smooth = loaded(clip, return_tensors="pt", antialias=True)["pixel_values"]
    assert (smooth - pixels).abs().max() > NOTICEABLE
    usual = VideoMAEVideoProcessor()
    assert "antialias" not in usual.to_dict() and processor.to_dict()["antialias"] is False


# ------------------------------------------------------------------------------------------------------------ views


@pytest.mark.parametrize("index", range(5))
def test_views_are_those_of_the_original(index):
    values, _, outputs = case("test_views")
    settings = values["videos"][index]
    clips, crops = outputs[f"{index}.chunk_and_crop"].T
    if settings["sparse"]:
        indices = sparse_view_indices(settings["length"], settings["frames"], settings["segments"])
    else:
        dense = (settings["length"], settings["frames"], settings["stride"], settings["segments"])
        indices = dense_view_indices(*dense)
    starts = view_crop_starts(settings["height"], settings["width"], settings["side"], settings["crops"])
    assert indices.dtype == starts.dtype == np.int64
    assert np.array_equal(indices[clips], outputs[f"{index}.frames"])
    axis = 0 if settings["height"] >= settings["width"] else 1
    assert np.array_equal(starts[crops][:, axis], outputs[f"{index}.crop_start"]) and not starts[:, 1 - axis].any()


def test_views_of_any_video():
    assert dense_view_indices(1, 4, 2, 3).tolist() == [[0] * 4] * 3
    assert dense_view_indices(100, 4, 10, 1).tolist() == [[30, 40, 50, 60]]
    assert sparse_view_indices(1, 4, 3).tolist() == [[0] * 4] * 3
    assert view_crop_starts(50, 30, 20).tolist() == [[0, 5], [15, 5], [30, 5]]
    assert view_crop_starts(30, 50, 30, 1).tolist() == [[0, 10]]
    with pytest.raises(ValueError, match="resize them"):
        view_crop_starts(20, 50, 30)
    with pytest.raises(ValueError, match="num_views above 0"):
        dense_view_indices(10, num_views=0)


def test_views_are_averaged_after_the_softmax():
    model = SPEC.build(CLASSIFIER)
    views = torch.stack([video(6), video(6).flip(1), video(6).flip(3)], dim=1)
    each = torch.stack([model(views[:, index]).logits.softmax(-1) for index in range(3)])
    averaged = model.classify_views(views)
    same("averaged", each.mean(0), averaged)
    assert (each[0] - averaged).abs().max() > NOTICEABLE
    with pytest.raises(NotImplementedError, match=r"VideoMAEModel has no classes .*VideoMAEForVideoClassification"):
        SPEC.build(POOLED).classify_views(views)


def test_the_dual_spec_asks_for_seen_tokens():
    """Else nothing above would tell the sequence of VideoMAE V2 from another."""
    inputs = SPEC_V2.inputs(DUAL)
    assert (~inputs["decode_masked_pos"] & ~inputs["bool_masked_pos"]).any()
