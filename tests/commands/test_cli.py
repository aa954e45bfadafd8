"""The command `vidformers`, on tiny checkpoints."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig
from typer.testing import CliRunner

import vidformers
from tests.original_files import V2_CONFIG, probe_tree, v2_tree
from vidformers.commands.cli import app
from vidformers.commands.listing import describe
from vidformers.conversion.labels import read_labels
from vidformers.families import FAMILIES


SETTINGS = [part for name, value in V2_CONFIG.items() for part in ("--set", f"{name}={value}")]
PROBE_SETTINGS = [*SETTINGS, "--set", "pooler_num_attention_heads=4"]


@pytest.fixture
def files(tmp_path):
    torch.save(v2_tree(), tmp_path / "vit.pt")
    torch.save(probe_tree(heads={"linear": 3}), tmp_path / "probe.pt")
    return tmp_path


def run(*arguments, expect: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def test_convert_verify_reverse(files):
    output = run("convert", files / "vit.pt", files / "out", *SETTINGS)
    assert "✓ tensors of the original files: 91 compared" in output
    assert "✓ reloaded directory" in output and "Wrote" in output
    assert "✓ tensors of the original files" in run("verify", files / "out", "--source", files / "vit.pt")
    output = run("reverse", files / "out", files / "back.pt")
    assert "The file lacks pos_embed, which the original holds" in output
    back = torch.load(files / "back.pt")["target_encoder"]
    assert torch.equal(back["module.backbone.norm.bias"], v2_tree()["target_encoder"]["module.backbone.norm.bias"])


def test_a_classifier_with_labels_and_type(files):
    (files / "labels.txt").write_text("jump\nrun\n\nwave\n")
    options = ["--probe", files / "probe.pt", "--labels", files / "labels.txt", "--dtype", "bfloat16"]
    run("convert", files / "vit.pt", files / "out", *options, "--set", "out_layers=[0,1]", *PROBE_SETTINGS)
    config = AutoConfig.from_pretrained(files / "out")
    assert config.id2label == {0: "jump", 1: "run", 2: "wave"}
    assert config.label2id == {"jump": 0, "run": 1, "wave": 2}
    assert config.out_layers == [0, 1] and config.dtype == torch.bfloat16
    run("reverse", files / "out", files / "back.pt", "--probe", files / "head.pt")
    assert "module.linear.weight" in torch.load(files / "head.pt")["classifiers"][0]


def test_a_wrong_number_of_labels(files):
    (files / "labels.json").write_text('["jump", "run"]')
    options = ["--probe", files / "probe.pt", "--labels", files / "labels.json"]
    output = run("convert", files / "vit.pt", files / "out", *options, *PROBE_SETTINGS, expect=1)
    assert "num_labels=2 was given" in output and "say 3" in output
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", '["a", "b", "c"]'),
        ("l.json", '{"0": "a", "1": "b", "2": "c"}'),
        ("l.json", '{"c": "2", "a": "0", "b": "1"}'),
        ("l.json", '{"c": 2, "a": 0, "b": 1}'),
        ("l.txt", "a\nb\nc\n"),
    ],
)
def test_label_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name) == ["a", "b", "c"]


def test_label_numbers_with_a_gap(tmp_path):
    (tmp_path / "l.json").write_text('{"0": "a", "2": "c"}')
    with pytest.raises(ValueError, match="must run from 0 without gaps"):
        read_labels(tmp_path / "l.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "none.pt", "out"], "none.pt: no such file"),
        (["convert", "vit.pt", "out", "--set", "depth"], "--set depth: expected FIELD=VALUE"),
        (["convert", "vit.pt", "out", "--set", "tower.depth"], "--set tower.depth: expected FIELD=VALUE"),
        (["convert", "vit.pt", "out", *SETTINGS, "--set", "widht=3"], "has no field 'widht'"),
        (["convert", "vit.pt", "out", *SETTINGS, "--set", "vision_config.depth=3"], "has no field 'vision_config'"),
        (["convert", "vit.pt", ".", *SETTINGS], "exists already"),
        (["verify", "."], "no readable config.json"),
        (["verify", "absent"], "absent: there is no such directory"),
        (["reverse", ".", "back.pt"], "no readable config.json"),
    ],
)
def test_mistakes_are_told_without_a_traceback(files, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    output = run(*arguments, expect=1)
    assert output.lstrip().startswith("Error: ") and message in output


def test_a_failed_check_is_shown_stage_by_stage(files):
    run("convert", files / "vit.pt", files / "out", *SETTINGS)
    torch.save(v2_tree(seed=7), files / "other.pt")
    output = run("verify", files / "out", "--source", files / "other.pt", expect=1)
    assert "✗ tensors of the original files" in output and "first stage that diverges" in output


def test_list_names_every_preset():
    unfolded = re.sub(r"[\s│]", "", run("list"))
    for family in FAMILIES.values():
        for name, preset in family.presets.items():
            size, shape = (text.replace(" ", "") for text in describe(family, preset))
            assert name in unfolded and f"{size},{shape}" in unfolded
            assert (preset.source or "itsauthorshavenotpublishedit") in unfolded
            assert family.original_files[preset.architecture].replace(" ", "") in unfolded


def test_list_of_one_family_and_as_json():
    entries = [json.loads(line) for line in run("list", "--family", "videoprism", "--json").splitlines()]
    assert [entry["preset"] for entry in entries] == list(FAMILIES["videoprism"].presets)
    assert {entry["family"] for entry in entries} == {"videoprism"}
    assert "no family 'vjepa'" in run("list", "--family", "vjepa", expect=1)


def test_every_preset_has_addresses_or_is_not_public():
    without = [name for family in FAMILIES.values() for name, preset in family.presets.items() if not preset.source]
    own_training = {f"videomae-v2-{size}" for size in ("small", "base", "large", "huge")}
    assert set(without) == {"videoprism-giant-f8r288", "videoprism-lvt-giant-f8r288"} | own_training


def test_version():
    assert run("--version") == f"{vidformers.__version__}\n"


def test_results_as_json_and_nothing_else(files):
    output = run("convert", files / "vit.pt", files / "out", *SETTINGS, "--json")
    reports = [json.loads(line) for line in output.splitlines()]
    assert [report["title"] for report in reports] == ["tensors of the original files", "reloaded directory"]
    assert all(report["passed"] for report in reports)
    assert run("reverse", files / "out", files / "back.pt", "--quiet") == ""


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        ("vjepa2", "vjepa2-vitl-fpc64-256", ("24 × 1024", "64 × 256²")),
        ("videoprism", "videoprism-lvt-base-f16r288", ("12 + 4 × 768", "16 × 288²")),
        ("videomae", "videomae-huge-k400-1600e", ("32 × 1280", "16 × 224²")),
        ("pe_core", "PE-Core-L14-336", ("24 × 1024", "336²")),
        ("pe_core", "PE-Lang-G14-448-Tiling", ("47 × 1536", "448²")),
        ("pe_video", "pe-av-large", ("24 × 1024 + 4 × 1792", "all × 336²")),
        ("pe_video", "pe-av-small-16-frame", ("24 × 1024 + 4 × 768", "16 × 336²")),
    ],
)
def test_presets_in_words(family, name, expected):
    assert describe(FAMILIES[family], FAMILIES[family].presets[name]) == expected


class FakeApi:
    calls: list = []

    def whoami(self):
        return {"name": "someone"}

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        owner = "" if "/" in repo_id else "someone/"
        return SimpleNamespace(repo_id=f"{owner}{repo_id}", __str__=lambda self: "url")

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        files = sorted(path.name for path in folder_path.iterdir())
        self.calls.append(("upload", repo_id, files))


def test_push_uploads_what_was_written(files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    FakeApi.calls = []
    output = run("convert", files / "vit.pt", files / "out", *SETTINGS, "--push-to-hub", "vjepa2-tiny")
    assert "Uploaded to" in output
    expected = ["README.md", "config.json", "model.safetensors", "provenance.json", "video_preprocessor_config.json"]
    assert FakeApi.calls == [
        ("create", "vjepa2-tiny", {"exist_ok": True}),
        ("upload", "someone/vjepa2-tiny", expected),
    ]
    assert 'from_pretrained("someone/vjepa2-tiny")' in (files / "out/README.md").read_text("utf-8")


def test_who_is_not_logged_in_is_told_before_the_conversion(files, monkeypatch):
    def refuse(self):
        raise OSError("401: log in first")

    monkeypatch.setattr("huggingface_hub.HfApi.whoami", refuse)
    output = run("convert", files / "vit.pt", files / "out", *SETTINGS, "--push-to-hub", "bare", expect=1)
    assert "401: log in first" in output and not (files / "out").exists()


def test_a_failed_push_keeps_the_directory_and_says_so(files, monkeypatch):
    def refuse(self, repo_id, **options):
        raise OSError("401: log in first")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    output = run("convert", files / "vit.pt", files / "out", *SETTINGS, "--push-to-hub", "x/y", expect=1)
    assert "401: log in first" in output and "Wrote" in output
    assert json.loads((files / "out/config.json").read_text())["architectures"] == ["VJEPA2Model"]


def test_nothing_is_pushed_when_the_conversion_fails(files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    FakeApi.calls = []
    run("convert", files / "vit.pt", files / "out", "--push-to-hub", "vjepa2-tiny", expect=1)
    assert FakeApi.calls == []


@pytest.mark.slow
def test_the_module_is_the_command_and_loads_no_more_than_it_needs():
    command = [sys.executable, "-X", "importtime", "-m", "vidformers.conversion", "list"]
    unregistered = {**os.environ, "VIDFORMERS_AUTO": "0"}
    result = subprocess.run(command, env=unregistered, capture_output=True, text=True, check=True)
    assert "vjepa2-vitl-fpc64-256" in result.stdout
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "vidformers.commands.cli" in loaded
    assert not {"torch", "transformers", "vidformers.conversion.load"} & loaded
