"""The command `vidformers export`, whose files the tests of the tools themselves read."""

import json
from shutil import copytree

import pytest
from typer.testing import CliRunner

import vidformers
from tests.specs import SPECS
from vidformers.commands import cli
from vidformers.commands.export import export_sentence_transformers


@pytest.fixture
def directory(tmp_path):
    """A directory of a video-text model."""
    return copytree(vidformers.__path__[0] + "/demo_models/shapes_clip", tmp_path / "model")


def test_sentence_transformers(directory):
    before = {path.name for path in directory.iterdir()}
    arguments = ["export", "sentence-transformers", str(directory), "--num-frames", "4", "--json"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    written = [json.loads(line)["file"] for line in result.output.splitlines()]
    names = ["modules.json", "config_sentence_transformers.json", "sentence_video_config.json"]
    assert written == [str(directory / name) for name in names]
    assert {path.name for path in directory.iterdir()} == before | set(names)
    (module,) = json.loads((directory / "modules.json").read_text())
    assert module["type"] == "vidformers.sentence_transformers.VideoEncoder" and module["path"] == ""
    assert json.loads((directory / "sentence_video_config.json").read_text()) == {"num_frames": 4}


def test_nothing_is_written_over(directory):
    (directory / "config_sentence_transformers.json").write_text("{}")
    with pytest.raises(ValueError, match="config_sentence_transformers.json: exists already"):
        export_sentence_transformers(directory)
    assert not (directory / "modules.json").exists()
    assert (directory / "config_sentence_transformers.json").read_text() == "{}"


def test_what_embeds_no_videos(tmp_path):
    spec = next(spec for spec in SPECS if spec.family.model_type == "videoprism")
    model = next(model for model in spec.models if model.name == "VideoPrismTextModel")
    spec.build(model, **model.shallow).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="VideoPrismTextModel does not embed videos; it takes text"):
        export_sentence_transformers(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="there is no such directory"):
        export_sentence_transformers(tmp_path / "nothing")
