"""sentence-transformers and mteb: the same numbers as `vidformers embed`, the same frames by default."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

import vidformers
from tests.harness.compare import assert_close
from tests.harness.tolerances import REORDERED
from tests.specs import SPECS
from tests.video_files import write_video
from vidformers.commands import cli
from vidformers.commands.embed import embed_files
from vidformers.sentence_transformers import load

from .every_model import build
from .local_task import clips_task


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

LENGTHS = {"long.mp4": 40, "longer.mp4": 60, "short.mp4": 9}
ENCODERS = [(spec, model) for spec in SPECS for model in spec.models if model.name in (
    "VJEPA2Model", "VideoPrismVisionModel", "VideoMAEModel", "PeVideoEncoder", "PeVisionModel"
)]  # fmt: skip
SHAPES_CLIP = "shapes_clip"
NAMES = [*(model.name for _, model in ENCODERS), SHAPES_CLIP]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in LENGTHS.items():
        write_video(folder / name, num_frames=num_frames)
    return [folder / name for name in LENGTHS]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A directory of an encoder of each family, and one of a model that embeds texts too."""
    from shutil import copytree

    folder = tmp_path_factory.mktemp("models")
    for spec, model in ENCODERS:
        build(spec, model).save_pretrained(folder / model.name)
        spec.processor_class(**spec.processor.arguments).save_pretrained(folder / model.name)
    copytree(vidformers.__path__[0] + "/demo_models/shapes_clip", folder / SHAPES_CLIP)
    return folder


@pytest.fixture(scope="module")
def embedded(directories, videos, tmp_path_factory):
    """What `vidformers embed` gives, by directory and video."""
    folder, found = tmp_path_factory.mktemp("features"), {}
    for name in NAMES:
        embed_files(videos, directories / name, folder / f"{name}.safetensors")
        found[name] = load_file(folder / f"{name}.safetensors")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_embed(name, directories, videos, embedded):
    model = load(directories / name)
    rows = torch.from_numpy(model.encode([{"video": str(path)} for path in videos], batch_size=2))
    assert_close(name, embedded[name], dict(zip(LENGTHS, rows, strict=True)), REORDERED)
    assert model.modalities == (["video", "text"] if name == SHAPES_CLIP else ["video"])


@pytest.mark.parametrize("name", ["VJEPA2Model", SHAPES_CLIP])
def test_exported_directory(name, directories, videos, embedded, tmp_path):
    runner = CliRunner()
    result = runner.invoke(cli.app, ["export", "sentence-transformers", str(directories / name)])
    assert result.exit_code == 0, result.output
    model = SentenceTransformer(str(directories / name), trust_remote_code=True)
    rows = torch.from_numpy(model.encode([{"video": str(path)} for path in videos]))
    assert_close(name, embedded[name], dict(zip(LENGTHS, rows, strict=True)), REORDERED)

    model.save(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True)
    row = again.encode({"video": str(videos[0])})
    np.testing.assert_allclose(row, embedded[name][videos[0].name], rtol=1e-4, atol=1e-5)
    twice = runner.invoke(cli.app, ["export", "sentence-transformers", str(directories / name)])
    assert twice.exit_code == 1 and "exists already" in twice.output.replace("\n", " ")


def test_frames_in_memory(directories, videos, embedded):
    """Arrays, tensors, pictures and decoders of whole videos give what the file does."""
    model = load(directories / "VJEPA2Model")
    frames, _ = vidformers.decode_video(videos[0])
    given = {
        "array": frames,
        "tensor": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "list": list(frames),
        "dictionary": {"array": frames, "video_metadata": {"fps": 25.0}},
    }
    expected = embedded["VJEPA2Model"][videos[0].name]
    rows = model.encode([{"video": video} for video in given.values()])
    for name, row in zip(given, rows, strict=True):
        assert_close(name, {"x": expected}, {"x": torch.from_numpy(row)}, REORDERED)


def test_texts(directories):
    texts = ["a red circle moves left", "a blue square grows"]
    rows = load(directories / SHAPES_CLIP).encode(texts)
    processor = vidformers.VideoPrismProcessor.from_pretrained(directories / SHAPES_CLIP)
    model = vidformers.VideoPrismClipModel.from_pretrained(directories / SHAPES_CLIP).eval()
    with torch.no_grad():
        expected = model.embed_texts(**processor(text=texts, return_tensors="pt"))
    assert_close("texts", {"x": expected}, {"x": torch.from_numpy(rows)}, REORDERED)


def test_an_encoder_refuses_texts(directories):
    with pytest.raises(ValueError, match="text"):
        load(directories / "VJEPA2Model").encode(["a dog"])


def test_mteb(directories, videos, embedded):
    """With a model of videos and texts; docs/integrations.md does it with one of videos alone."""
    import mteb

    from vidformers.mteb import VideoEncoder

    encoder = VideoEncoder(directories / SHAPES_CLIP)
    assert encoder.mteb_model_meta.modalities == encoder.model.modalities
    result = mteb.evaluate(encoder, [clips_task(videos)], cache=None, encode_kwargs={"batch_size": 2})
    scores = result.task_results[0].scores["test"][0]
    assert scores["accuracy"] == 1.0

    loader = torch.utils.data.DataLoader(Dataset.from_dict({"video": list(map(str, videos))}))
    rows = torch.from_numpy(encoder.encode(loader))
    assert_close(SHAPES_CLIP, embedded[SHAPES_CLIP], dict(zip(LENGTHS, rows, strict=True)), REORDERED)
