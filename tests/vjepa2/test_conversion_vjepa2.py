"""V-JEPA 2: original files to models and directories, and back."""

import errno
import json
import os
import unittest
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoVideoProcessor

import vidformers
from tests.harness.conversion import ConversionMixin
from tests.original_files import (
    ANTICIPATION_HEADS,
    V2_CONFIG,
    ac_predictor_shapes,
    encoder_shapes,
    predictor_shapes,
    probe_shapes,
    probe_tree,
    random_tensors,
    v2_1_encoder_shapes,
    v2_1_predictor_shapes,
    v2_tree,
)
from tests.vjepa2.spec import SPEC, SPEC_2_1
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load,
    load_original,
    ops,
    reverse_directory,
    rules,
    verify,
    verify_directory,
)
from vidformers.models.vjepa2.record import FAMILY as VJEPA2


class VJEPA2ConversionTest(ConversionMixin, unittest.TestCase):
    spec = SPEC
    may_lack = {"predictor/mask_tokens.*": "a file with fewer mask tokens is one of a model with fewer"}


class VJEPA21ConversionTest(ConversionMixin, unittest.TestCase):
    spec = replace(SPEC_2_1, goldens=())  # the other class has the recordings of both
    may_lack = VJEPA2ConversionTest.may_lack


PROBE_CONFIG = {**V2_CONFIG, "pooler_num_attention_heads": 4}
GOLDENS = os.environ.get("VIDFORMERS_GOLDENS", "")
needs_goldens = pytest.mark.skipif(
    not (Path(GOLDENS) / "vjepa2").is_dir(), reason="VIDFORMERS_GOLDENS names no folder with vjepa2 cases"
)


@pytest.fixture
def files(tmp_path):
    """A hub file, a classifier's probe with two heads, and an anticipation probe."""
    torch.save(v2_tree(), tmp_path / "vit.pt")
    torch.save(probe_tree(count=2), tmp_path / "probe.pt")
    torch.save(probe_tree(heads=ANTICIPATION_HEADS, queries=3), tmp_path / "ek100.pt")
    return tmp_path


def arguments(folder: Path, kind: str) -> dict:
    """Arguments of `load_original` and `convert_checkpoint` for each class of model."""
    probes = {"classifier": "probe.pt", "anticipation": "ek100.pt"}
    return {"probe": folder / probes[kind], **PROBE_CONFIG} if kind in probes else dict(V2_CONFIG)


KINDS = {
    "model": "VJEPA2Model",
    "classifier": "VJEPA2ForVideoClassification",
    "anticipation": "VJEPA2ForActionAnticipation",
}
kinds = pytest.mark.parametrize("kind", KINDS)


# ------------------------------------------------------------------------------------------------- load_original


@kinds
def test_shapes_tell_the_class_and_the_sizes(files, kind):
    model = load_original(files / "vit.pt", **arguments(files, kind))
    assert type(model) is getattr(vidformers, KINDS[kind])
    assert not model.training and model.dtype == torch.float32
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.patch_size, config.tubelet_size) == (32, 2, 8, 2)
    assert config.architectures == [KINDS[kind]]
    assert config.use_predictor is (kind != "classifier")
    if kind != "classifier":
        assert (config.pred_hidden_size, config.pred_num_hidden_layers, config.pred_num_mask_tokens) == (24, 3, 4)
    if kind != "model":
        assert config.num_pooler_layers == 3
        assert config.num_labels == (11 if kind == "classifier" else 9)
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_sizes_of_all_kinds_are_read(tmp_path):
    sizes = {"width": 22, "depth": 3, "mlp": 96, "patch": 4, "tubelet": 1, "channels": 1, "qkv_bias": False}
    torch.save(v2_tree(predictor=False, **sizes), tmp_path / "vit.pt")
    config = load_original(tmp_path / "vit.pt", **V2_CONFIG).config
    assert (config.hidden_size, config.num_hidden_layers, config.patch_size) == (22, 3, 4)
    assert (config.tubelet_size, config.in_chans, config.qkv_bias, config.use_predictor) == (1, 1, False, False)
    assert int(22 * config.mlp_ratio) == 96


def test_tensors_arrive_where_they_belong(files):
    """Written out by hand wherever a wrong order would keep names and shapes."""
    tree = torch.load(files / "vit.pt")
    model = load_original(files / "vit.pt", **V2_CONFIG)
    head = torch.load(files / "probe.pt")["classifiers"][0]
    pooler = load_original(files / "vit.pt", **arguments(files, "classifier")).pooler
    blocks = {
        "module.backbone.blocks.1": (tree["target_encoder"], model.encoder.layer[1]),
        "module.backbone.predictor_blocks.2": (tree["predictor"], model.predictor.layer[2]),
        "module.pooler.blocks.0": (head, pooler.self_attention_layers[0]),
    }
    for name, (part, block) in blocks.items():
        in_pooler = "pooler" in name
        attention = block.self_attn if in_pooler else block.attention
        projections = ("q_proj", "k_proj", "v_proj") if in_pooler else ("query", "key", "value")
        for leaf in ("weight", "bias"):
            fused = part[f"{name}.attn.qkv.{leaf}"].chunk(3)
            for projection, expected in zip(projections, fused, strict=True):
                assert torch.equal(getattr(getattr(attention, projection), leaf), expected), (name, projection)
            norms = (block.layer_norm1, block.layer_norm2) if in_pooler else (block.norm1, block.norm2)
            for number, norm in enumerate(norms, start=1):
                assert torch.equal(getattr(norm, leaf), part[f"{name}.norm{number}.{leaf}"])
    cross, prefix = pooler.cross_attention_layer.cross_attn, "module.pooler.cross_attention_block.xattn"
    key, value = head[f"{prefix}.kv.weight"].chunk(2)
    assert torch.equal(cross.k_proj.weight, key) and torch.equal(cross.v_proj.weight, value)
    assert torch.equal(cross.q_proj.weight, head[f"{prefix}.q.weight"])
    tokens = model.predictor.embeddings.mask_tokens
    assert torch.equal(tokens[2], tree["predictor"]["module.backbone.mask_tokens.2"])


def test_checkpoint_key_chooses_the_encoder(files):
    tree = torch.load(files / "vit.pt")
    for key in ("encoder", "target_encoder"):
        model = load_original(files / "vit.pt", checkpoint_key=key, **V2_CONFIG)
        assert torch.equal(model.encoder.layernorm.weight, tree[key]["module.backbone.norm.weight"])


def test_probe_index_chooses_the_head(files):
    heads = torch.load(files / "probe.pt")["classifiers"]
    for index in range(2):
        model = load_original(files / "vit.pt", probe_index=index, **arguments(files, "classifier"))
        assert torch.equal(model.classifier.weight, heads[index]["module.linear.weight"])


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_prefixes(tmp_path, prefix):
    torch.save(v2_tree(prefix=prefix), tmp_path / "vit.pt")
    assert isinstance(load_original(tmp_path / "vit.pt", **V2_CONFIG), vidformers.VJEPA2Model)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_bare_encoder(tmp_path, suffix):
    tensors = random_tensors(encoder_shapes(stray=False), seed=0)
    path = tmp_path / f"encoder{suffix}"
    torch.save(tensors, path) if suffix == ".pt" else save_file(tensors, path)
    model = load_original(path, **V2_CONFIG)
    assert torch.equal(model.encoder.layernorm.weight, tensors["norm.weight"])


def test_from_original_and_subclasses(files):
    class Mine(vidformers.VJEPA2Model):
        pass

    assert type(Mine.from_original(files / "vit.pt", **V2_CONFIG)) is Mine
    classifier = vidformers.VJEPA2ForVideoClassification
    assert type(classifier.from_original(files / "vit.pt", **arguments(files, "classifier"))) is classifier


def test_the_model_is_independent_of_the_file(files):
    model = load_original(files / "vit.pt", **V2_CONFIG)
    before = model.encoder.layernorm.weight.clone()
    with (files / "vit.pt").open("r+b") as file:
        file.write(bytes(file.seek(0, 2)))
        file.truncate(0)
    assert torch.equal(model.encoder.layernorm.weight, before)
    storages = [parameter.untyped_storage().data_ptr() for parameter in model.parameters()]
    assert len(set(storages)) == len(storages)


def test_dtype_and_half_precision_files(tmp_path):
    tree = v2_tree(predictor=False)
    tree["target_encoder"] = {name: tensor.half() for name, tensor in tree["target_encoder"].items()}
    torch.save(tree, tmp_path / "vit.pt")
    assert load_original(tmp_path / "vit.pt", **V2_CONFIG).dtype == torch.float32
    model = load_original(tmp_path / "vit.pt", dtype=torch.bfloat16, **V2_CONFIG)
    assert model.dtype == torch.bfloat16 and model.config.dtype == torch.bfloat16


def test_a_probe_of_actions_alone(files):
    torch.save(probe_tree(heads={"action_classifier": 9}), files / "actions.pt")
    model = load_original(files / "vit.pt", probe=files / "actions.pt", **PROBE_CONFIG)
    assert isinstance(model, vidformers.VJEPA2ForActionAnticipation)
    assert (model.config.num_verb_labels, model.config.num_labels) == (0, 9)


# -------------------------------------------------------------------------------------------- rules and their models


@pytest.mark.parametrize("preset", VJEPA2.presets)
def test_the_table_makes_exactly_the_tensors_of_every_preset(preset):
    record = VJEPA2.presets[preset]
    uses_predictor = record.architecture != "VJEPA2ForVideoClassification"
    classes = {"num_verb_labels": 2, "num_noun_labels": 2}
    config = vidformers.VJEPA2Config(**record.config, use_predictor=uses_predictor, **classes)
    model = load.empty_model(getattr(vidformers, record.architecture), config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert all(tensor.is_meta for tensor in model.parameters())
    width, mlp = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    heads = {"linear": 2} if not uses_predictor else dict.fromkeys(ANTICIPATION_HEADS, 2)
    sizes = {"width": width, "depth": config.num_hidden_layers, "mlp": mlp, "patch": 16}
    originals = {
        "encoder": encoder_shapes(**sizes),
        "predictor": predictor_shapes(width, 384, 12, 1536, tokens=10),
        "ac_encoder": encoder_shapes(**sizes),
        "ac_predictor": ac_predictor_shapes(width, 1024, depth=24, mlp=4096),
        "probe": probe_shapes(width, heads=heads),
        "anticipation_probe": probe_shapes(width, heads=heads, queries=3),
    }
    if config.hierarchical_layers:
        is_distilled = config.num_hidden_layers < 40
        levels = {"outputs": 1, "teacher": 1664} if is_distilled else {"outputs": 4}
        depth = 12 if is_distilled else 24
        originals["encoder"] = v2_1_encoder_shapes(**sizes)
        originals["predictor"] = v2_1_predictor_shapes(width, 384, depth=depth, mlp=1536, tokens=8, **levels)
    form = load.form_of(model)
    table = list(form.rules(config))
    is_ac, has_verbs = record.architecture == "VJEPA2ACModel", "ForAction" in record.architecture
    names = {
        "encoder": originals["encoder"],
        "predictor": originals["ac_predictor" if is_ac else "predictor"],
        "probe": originals["anticipation_probe" if has_verbs else "probe"],
    }
    found = {f"{entry}/{name}": shape for entry in form.entries for name, shape in names[entry].items()}
    assert rules.check_ours(table, shapes) == []
    assert not any(rules.check_theirs(table, found, shapes).values())


@kinds
def test_every_original_tensor_moves_exactly_its_own_targets(files, kind):
    """Perturb one original tensor at a time: its targets change, where they should, and nothing else does."""
    request = load.Request(**{k: v for k, v in arguments(files, kind).items() if k != "probe"})
    with load.planned(files / "vit.pt", arguments(files, kind).get("probe"), request) as plan:
        originals = {name: plan.found.read(name).clone() for name in plan.found.shapes}
        before = dict(rules.convert(plan.rules, originals.__getitem__))
        for entry in plan.rules:
            for position, name in enumerate(entry.theirs):
                moved = originals | {name: originals[name] + 1}
                after = dict(rules.convert(plan.rules, moved.__getitem__))
                changed = [ours for ours in before if not torch.equal(before[ours], after[ours])]
                assert changed == list(entry.ours), name
                if isinstance(entry.op, ops.Stack):
                    rows = (after[changed[0]] - before[changed[0]]).flatten(1).any(dim=1)
                    assert rows.nonzero().flatten().tolist() == [position]


def test_swapped_query_and_key_are_noticed(files, monkeypatch):
    """A wrong rule keeps all names and shapes; only numbers can tell, and the comparison of stages does."""
    request = load.Request(**V2_CONFIG)

    def stages():
        with load.planned(files / "vit.pt", None, request) as plan:
            model = load.build(plan, torch.float32)
        return verify.run_stages(model, verify.adapter("vjepa2").example_calls(model.config, "VJEPA2Model"))

    right = stages()
    forward = ops.Split.forward
    monkeypatch.setattr(ops.Split, "forward", lambda op, tensors: [forward(op, tensors)[i] for i in (1, 0, 2)])
    report = verify.compare("swapped", right, stages(), 1e-5)
    assert not report.passed
    assert report.first_diverging == "video.hidden_states.1"
    assert "<== first stage that diverges" in str(report)


# ------------------------------------------------------------------------------------------------------ bad input


def damaged(tree: dict, change) -> dict:
    change(tree["target_encoder"])
    return tree


BAD_TREES = {
    "missing": (
        lambda part: part.pop("module.backbone.blocks.1.norm2.bias"),
        r"1 tensor\(s\) don't fit.*target_encoder: blocks\.1\.norm2\.bias: missing \(expected shape \[32\]\)",
    ),
    "extra": (
        lambda part: part.update({"module.backbone.cls_token": torch.zeros(1, 1, 32)}),
        r"target_encoder: cls_token: not expected \(found shape \[1, 1, 32\]\)",
    ),
    "misshapen": (
        lambda part: part.update({"module.backbone.blocks.0.mlp.fc2.weight": torch.zeros(32, 64)}),
        r"blocks\.0\.mlp\.fc2\.weight: expected shape \[32, 128\], found shape \[32, 64\]",
    ),
    "not square": (
        lambda part: part.update({"module.backbone.patch_embed.proj.weight": torch.zeros(32, 3, 2, 6, 8)}),
        r"patch_embed\.proj\.weight: expected shape \[32, 3, 2, 6, 6\], found shape \[32, 3, 2, 6, 8\]",
    ),
    "a gap": (
        lambda part: [part.pop(name) for name in list(part) if ".blocks.0." in name],
        r"blocks\.0\.mlp\.fc1\.weight is missing, and sizes of the model are read from it",
    ),
    "no patch embedding": (
        lambda part: part.pop("module.backbone.patch_embed.proj.weight"),
        r"target_encoder: patch_embed\.proj\.weight is missing, and sizes of the model are read from it",
    ),
    "mixed prefixes": (
        lambda part: part.update({"norm.weight": part.pop("module.backbone.norm.weight")}),
        r"begins with 'module\.backbone\.' and norm\.weight does not; all names .* must carry the same prefix",
    ),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_trees_that_do_not_fit(tmp_path, name):
    change, message = BAD_TREES[name]
    torch.save(damaged(v2_tree(), change), tmp_path / "vit.pt")
    with pytest.raises(ConversionError, match=f"(?s)vit.pt: .*{message}"):
        load_original(tmp_path / "vit.pt", family="vjepa2", **V2_CONFIG)


def test_all_misfits_are_listed(tmp_path):
    tree = v2_tree()
    for name in ("norm.weight", "blocks.0.norm1.bias"):
        del tree["target_encoder"][f"module.backbone.{name}"]
    del tree["predictor"]["module.backbone.predictor_proj.weight"]
    torch.save(tree, tmp_path / "vit.pt")
    with pytest.raises(ConversionError) as error:
        load_original(tmp_path / "vit.pt", **V2_CONFIG)
    assert "3 tensor(s)" in str(error.value)
    for line in ("target_encoder: norm.weight", "target_encoder: blocks.0.norm1.bias", "predictor: predictor_proj"):
        assert line in str(error.value)


BAD_REQUESTS = {
    "unknown field": ({"num_heads": 2}, r"VJEPA2Config has no field 'num_heads'; did you mean .*num_attention_heads"),
    "contradiction": (
        {"hidden_size": 64},
        r"hidden_size=64 was given, but the file's tensors say 32\.$",
    ),
    "preset contradicts": ({"preset": "vjepa2-vitl-fpc64-256"}, r"num_hidden_layers=24 was given, but .* say 2"),
    "predictor": ({"use_predictor": False}, r"use_predictor=False was given, but .* say True"),
    "heads": ({"num_attention_heads": 5}, r"`hidden_size` \(32\) must be a multiple of `num_attention_heads` \(5\)"),
    "lacking": ({"crop_size": None, "num_attention_heads": None}, r"don't tell num_attention_heads, crop_size\. Give"),
    "unknown preset": ({"preset": "vjepa2-vitl-fpc64-265"}, r"unknown preset .*did you mean vjepa2-vitl-fpc64-256"),
    "unknown family": ({"family": "vjepa"}, r"unknown family 'vjepa'; did you mean vjepa2\?"),
    "wrong key": (
        {"checkpoint_key": "ema"},
        r"has no entry 'ema'; it holds 'target_encoder', .*, such as",
    ),
    "probe lacking": (
        {"preset": "vjepa2-vitl-fpc16-256-ssv2"},
        r"made from checkpoint and probe; .*ssv2-vitl-16x2x3",
    ),
    "wrong type": ({"layer_norm_eps": "small"}, r"VJEPA2Config refuses the configuration: .*layer_norm_eps"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_cannot_be_met(files, name):
    change, message = BAD_REQUESTS[name]
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(files / "vit.pt", **{**V2_CONFIG, **change})


def test_a_file_without_the_default_encoder_names_the_remedy(tmp_path):
    tree = v2_tree()
    del tree["target_encoder"]
    torch.save(tree, tmp_path / "vit.pt")
    with pytest.raises(ConversionError, match=r"no entry 'target_encoder'; it holds 'encoder', .*such as 'encoder'"):
        load_original(tmp_path / "vit.pt", **V2_CONFIG)
    assert load_original(tmp_path / "vit.pt", checkpoint_key="encoder", **V2_CONFIG)


def test_an_entry_that_nothing_knows(tmp_path):
    torch.save({**v2_tree(), "adapter": {"w": torch.zeros(3)}}, tmp_path / "vit.pt")
    with pytest.raises(
        ConversionError, match=r"1 tensor\(s\) don't fit V-JEPA 2 hub file.\n  adapter/w: not expected .*\[3\]"
    ):
        load_original(tmp_path / "vit.pt", **V2_CONFIG)


def test_probes_that_do_not_exist_or_fit(files):
    with pytest.raises(ConversionError, match=r"no entry 'classifiers/2'; it holds 'classifiers/0', 'classifiers/1'"):
        load_original(files / "vit.pt", family="vjepa2", probe_index=2, **arguments(files, "classifier"))
    torch.save(probe_tree(width=16), files / "narrow.pt")
    with pytest.raises(ConversionError, match=r"classifiers/0: pooler\.query_tokens: expected .*32.*found .*16"):
        load_original(files / "vit.pt", probe=files / "narrow.pt", **PROBE_CONFIG)
    torch.save(probe_tree(heads={"verb_classifier": 5}), files / "verbs.pt")
    with pytest.raises(
        ConversionError,
        match=r"(?s)not recognized.*attentive probe on .*lacks probe/linear.weight.*anticipation probe",
    ):
        load_original(files / "vit.pt", probe=files / "verbs.pt", **PROBE_CONFIG)


def test_a_class_that_is_not_ours(files):
    class Other(torch.nn.Module):
        pass

    with pytest.raises(ConversionError, match="Other is no model of vidformers; there are VJEPA2Model"):
        load_original(files / "vit.pt", model_class=Other, **V2_CONFIG)


# ------------------------------------------------------------------------------------------- directories, and back


@kinds
def test_directories_load_and_give_the_original_back(files, kind):
    reports = convert_checkpoint(files / "vit.pt", files / "out", probe_index=0, **arguments(files, kind))
    assert [report.title for report in reports] == ["tensors of the original files", "reloaded directory"]
    assert all(report.passed for report in reports)
    model = getattr(vidformers, KINDS[kind]).from_pretrained(files / "out")
    expected = load_original(files / "vit.pt", **arguments(files, kind)).state_dict()
    assert set(expected) == set(model.state_dict())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert AutoVideoProcessor.from_pretrained(files / "out").crop_size["height"] == 32

    probe_out = None if kind == "model" else files / "back_probe.pt"
    not_given = reverse_directory(files / "out", files / "back.pt", probe_out=probe_out)
    assert "pos_embed" in not_given
    back, original = torch.load(files / "back.pt"), torch.load(files / "vit.pt")
    assert set(back) == {"target_encoder"} | ({"predictor"} if kind != "classifier" else set())
    for name, part in back.items():
        equal_parts(part, original[name], left_out=set(not_given))
    if probe_out:
        head = torch.load(probe_out)["classifiers"]
        equal_parts(head[0], torch.load(arguments(files, kind)["probe"])["classifiers"][0])


def equal_parts(found: dict, expected: dict, left_out: set[str] = frozenset()) -> None:
    kept = {name: value for name, value in expected.items() if name.removeprefix("module.backbone.") not in left_out}
    assert set(found) == set(kept)
    for name, tensor in kept.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_the_way_back_restores_entry_prefix_and_type(tmp_path):
    tree = v2_tree(prefix="module.", predictor=False)
    tree["encoder"] = {name: tensor.half() for name, tensor in tree["encoder"].items()}
    torch.save(tree, tmp_path / "vit.pt")
    convert_checkpoint(tmp_path / "vit.pt", tmp_path / "out", checkpoint_key="encoder", **V2_CONFIG)
    reverse_directory(tmp_path / "out", tmp_path / "back.pt")
    equal_parts(
        torch.load(tmp_path / "back.pt")["encoder"],
        {name: tensor for name, tensor in tree["encoder"].items() if "pos_embed" not in name},
    )


def test_directories_without_provenance_are_reversed_in_the_usual_form(files):
    load_original(files / "vit.pt", **V2_CONFIG).save_pretrained(files / "plain")
    reverse_directory(files / "plain", files / "back.pt")
    back = torch.load(files / "back.pt")
    assert set(back) == {"target_encoder", "predictor"}
    assert "module.backbone.blocks.0.attn.qkv.weight" in back["target_encoder"]


def test_reversing_a_classifier_needs_two_files(files):
    convert_checkpoint(files / "vit.pt", files / "out", **arguments(files, "classifier"))
    with pytest.raises(ConversionError, match="its original files are checkpoint and probe; name a file for each"):
        reverse_directory(files / "out", files / "back.pt")
    (files / "there.pt").touch()
    with pytest.raises(ConversionError, match="there.pt: exists already"):
        reverse_directory(files / "out", files / "there.pt", probe_out=files / "p.pt")


def test_provenance_and_card(files):
    convert_checkpoint(files / "vit.pt", files / "out", dtype=torch.bfloat16, **arguments(files, "classifier"))
    noted = json.loads((files / "out/provenance.json").read_text())
    assert noted["parts"]["encoder"] == {
        "file": "vit.pt",
        "entry": "target_encoder",
        "prefix": "module.backbone.",
        "dtypes": ["float32"],
    }
    assert noted["left_out"] == {
        "encoder": "another version of the encoder",
        "predictor": "VJEPA2ForVideoClassification has no predictor",
        "opt": "state of the optimizer",
        "classifiers/1": "another version of the probe",
    }
    assert [len(source["sha256"]) for source in noted["sources"]] == [64, 64]
    assert all(report["passed"] for report in noted["parity"])
    assert noted["dtype"] == "bfloat16" and set(noted["weights"]) == {"model.safetensors"}
    card = (files / "out/README.md").read_text()
    assert "pipeline_tag: video-classification" in card and noted["sources"][0]["sha256"] in card
    assert "AutoModelForVideoClassification.from_pretrained(directory)" in card


def test_nothing_is_half_written_when_the_disk_is_full(files, monkeypatch):
    def full(model, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vidformers.VJEPA2Model, "save_pretrained", full)
    before = sorted(files.iterdir())
    with pytest.raises(ConversionError, match=r"out: no space left on .*about [\d,]+ bytes.*Nothing was left"):
        convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    assert sorted(files.iterdir()) == before


def test_nothing_is_published_when_the_numbers_are_wrong(files, monkeypatch):
    save = vidformers.VJEPA2Model.save_pretrained

    def corrupt(model, folder):
        save(model, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.1.norm1.weight"][3] += 1e-3
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(vidformers.VJEPA2Model, "save_pretrained", corrupt)
    with pytest.raises(ConversionError, match=r"(?s)nothing was written.*layer\.1\.norm1\.weight.*<== first stage"):
        convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    assert not (files / "out").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_in_the_way(files, kind):
    if kind == "file":
        (files / "out").write_text("mine")
    else:
        (files / "out").mkdir()
        (files / "out/mine.txt").write_text("mine")
    with pytest.raises(ConversionError, match="out: exists already; remove it or choose another name"):
        convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)


def test_an_empty_folder_is_filled(files):
    (files / "out").mkdir()
    convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    assert isinstance(AutoModel.from_pretrained(files / "out"), vidformers.VJEPA2Model)


# ------------------------------------------------------------------------------------------------------ verification


def test_verify_a_directory_against_its_source(files):
    convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    reports = verify_directory(files / "out", source=files / "vit.pt")
    assert [report.title for report in reports] == ["finite outputs", "tensors of the original files"]
    assert all(report.passed for report in reports)
    torch.save(v2_tree(seed=5), files / "other.pt")
    _, tensors = verify_directory(files / "out", source=files / "other.pt")
    assert not tensors.passed and tensors.first_diverging == "encoder.embeddings.patch_embeddings.proj.weight"


def test_verify_notices_changed_files(files):
    convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    weights = files / "out/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ConversionError, match="model.safetensors: missing or changed since it was converted"):
        verify_directory(files / "out")


def test_verify_against_a_recording(files):
    convert_checkpoint(files / "vit.pt", files / "out", **V2_CONFIG)
    model = load_original(files / "vit.pt", **V2_CONFIG)
    video = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        features = model(video, skip_predictor=True).last_hidden_state
    save_file({"pixel_values_videos": video}, files / "inputs.safetensors")
    save_file({"last_hidden_state": features}, files / "outputs.safetensors")
    assert verify_directory(files / "out", recording=files)[1].passed
    save_file({"last_hidden_state": features * 1.001}, files / "outputs.safetensors")
    assert verify_directory(files / "out", recording=files)[1].first_diverging == "recording.last_hidden_state"


def test_verify_notices_numbers_that_are_not(files):
    tree = v2_tree()
    tree["target_encoder"]["module.backbone.norm.bias"][3] = float("nan")
    torch.save(tree, files / "nan.pt")
    with pytest.raises(ConversionError, match="not finite: target_encoder/module.backbone.norm.bias"):
        convert_checkpoint(files / "nan.pt", files / "out", **V2_CONFIG)


def test_a_folder_that_is_no_original_repository(files):
    with pytest.raises(ConversionError, match="is no checkout of the original code, it lacks src/, evals/"):
        convert_checkpoint(files / "vit.pt", files / "out", original_repo=files, **V2_CONFIG)
    assert not (files / "out").exists()


# --------------------------------------------------------------------------------------------------------- goldens


ENCODER_CASES = ("a_encoder_native", "b_encoder_other_square", "c_encoder_nonsquare", "d_encoder_masks", "e_predictor")
MORE_CASES = ("g1_ac", "h1_v21_encoder")
PROBE_CASES = ("f1_probe", "f2_probe_multilevel", "f3_action_anticipation")


@needs_goldens
@pytest.mark.slow
@pytest.mark.parametrize("case", [*ENCODER_CASES, *MORE_CASES, *PROBE_CASES])
def test_golden_files_convert_and_come_back(tmp_path, case):
    folder = Path(GOLDENS) / "vjepa2" / case
    given = json.loads((folder / "case.json").read_text())["hyperparameters"]
    config = {
        "num_attention_heads": given["num_heads"],
        "crop_size": given["img_size"],
        "frames_per_clip": given["num_frames"],
        "pred_num_attention_heads": given.get("pred_num_heads", 12),
        "pooler_num_attention_heads": given.get("probe_num_heads", 16),
        "out_layers": given.get("out_layers"),
    }
    probe = folder / "probe.pt" if case in PROBE_CASES else None
    convert_checkpoint(folder / "checkpoint.pt", tmp_path / "out", probe=probe, **config)
    probe_out = probe and tmp_path / "probe.pt"
    left_out = set(reverse_directory(tmp_path / "out", tmp_path / "back.pt", probe_out=probe_out))
    originals = torch.load(folder / "checkpoint.pt", weights_only=True)
    for name, part in torch.load(tmp_path / "back.pt").items():
        equal_parts(part, originals[name], left_out)
    if probe:
        head = torch.load(probe, weights_only=True)["classifiers"][0]
        equal_parts(torch.load(probe_out)["classifiers"][0], head)


@needs_goldens
@pytest.mark.slow
def test_a_golden_number(tmp_path):
    folder = Path(GOLDENS) / "vjepa2/f1_probe"
    model = load_original(folder / "checkpoint.pt", probe=folder / "probe.pt", **PROBE_CONFIG)
    video = load_file(folder / "inputs.safetensors")["clip_seg0_view0"].transpose(1, 2)
    with torch.no_grad():
        logits = model(video).logits
    torch.testing.assert_close(
        logits, load_file(folder / "outputs.safetensors")["logits_single_c0"], atol=1e-5, rtol=0
    )
