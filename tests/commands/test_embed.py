"""`vidformers embed`: features of video files equal those computed by hand, and a bad file costs only its own."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from tests.inference.directories import directory_of
from tests.video_files import decode_all, truncate, write_video
from vidformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands.cli import app
from vidformers.inference import files
from vidformers.inference.clips import find_videos
from vidformers.inference.embedder import Embedding, Failure, VideoEmbedder
from vidformers.inference.files import FeatureFile


CONFIG = {
    "patch_size": 8,
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pred_hidden_size": 24,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
    "pooler_num_attention_heads": 2,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models and some videos, one below a subfolder, one cut off, one of two frames; and a text file."""
    folder = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    for name, model_class in (("model", VJEPA2Model), ("classifier", VJEPA2ForVideoClassification)):
        model_class(VJEPA2Config(**CONFIG)).save_pretrained(folder / name)
        VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder / name)
    videos = folder / "videos"
    (videos / "more").mkdir(parents=True)
    write_video(videos / "one.mp4", num_frames=20)
    write_video(videos / "more" / "two.MP4", num_frames=30, height=48, width=48)
    write_video(videos / "short.mp4", num_frames=2)
    truncate(write_video(folder / "whole.mp4"), 0.3).rename(videos / "cut.mp4")
    (videos / "notes.txt").write_text("no video")
    return folder


def run(*arguments, expect: int = 0) -> str:
    result = CliRunner().invoke(app, ["embed", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


def by_hand(folder, video, indices, model="model") -> torch.Tensor:
    """(N, D) features of chosen frames, which a plain decode gave."""
    frames = np.stack(decode_all(video))[indices]
    pixels = VJEPA2VideoProcessor(crop_size=32)(frames, return_tensors="pt")["pixel_values_videos"]
    if model == "classifier":
        encoder = VJEPA2ForVideoClassification.from_pretrained(folder / model).vjepa2
    else:
        encoder = VJEPA2Model.from_pretrained(folder / model)
    with torch.no_grad():
        return encoder.eval().get_vision_features(pixels)[0]


@pytest.mark.parametrize("model", ["model", "classifier"])
def test_safetensors_of_a_folder(folder, tmp_path, model):
    output = run(folder / "videos", "--model", folder / model, "--out", tmp_path / "out.safetensors", expect=1)
    assert "cut.mp4: Cannot decode" in output and "3 of 4 videos" in output
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        features = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()["embeddings"])
    assert set(features) == {"one.mp4", "two.MP4", "short.mp4"} == set(about["videos"])
    assert about["model"] == str(folder / model) and about["pool"] == "mean" and about["num_frames"] == 4
    assert about["videos"]["one.mp4"] == {"grid": [2, 4, 4], "fps": 25.0, "frame_indices": [0, 5, 10, 15]}
    assert about["videos"]["short.mp4"] == {"grid": [1, 4, 4], "fps": 25.0, "frame_indices": [0, 1]}
    expected = by_hand(folder, folder / "videos" / "one.mp4", [0, 5, 10, 15], model).mean(0)
    torch.testing.assert_close(features["one.mp4"], expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(features["one.mp4"], features["two.MP4"], atol=1e-2)


def test_npz_of_tokens(folder, tmp_path):
    video = folder / "videos" / "one.mp4"
    options = ["--pool", "none", "--num-frames", 2, "--dtype", "bfloat16", "--device", "cpu"]
    output = run(video, "--model", folder / "model", "--out", tmp_path / "out.npz", *options)
    assert "1 of 1 videos" in output
    archive = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert archive["one.mp4"].shape == (1, 4, 4, 32) and archive["one.mp4"].dtype == np.float32
    expected = by_hand(folder, video, [0, 10]).view(1, 4, 4, 32).numpy()
    error = np.abs(archive["one.mp4"] - expected).max()
    assert 1e-4 < error < 0.15, "bfloat16 keeps 8 bits"
    assert json.loads(str(archive["__metadata__"]))["videos"]["one.mp4"]["grid"] == [1, 4, 4]


def test_token_order_is_time_height_width(folder):
    video = folder / "videos" / "one.mp4"
    (found,) = VideoEmbedder.from_pretrained(folder / "model", pool="none").embed({"clip": video})
    assert found.name == "clip" and found.grid == (2, 4, 4) and found.frame_indices == (0, 5, 10, 15)
    expected = by_hand(folder, video, [0, 5, 10, 15])
    torch.testing.assert_close(found.embedding[1, 2, 3], expected[1 * 16 + 2 * 4 + 3], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The video does not divide")
@pytest.mark.parametrize(("num_frames", "seen"), [(1, (0,)), (3, (0, 1))])
def test_frames_that_fill_no_tubelet(folder, tmp_path, num_frames, seen):
    video = write_video(tmp_path / "odd.mp4", num_frames=num_frames)
    (found,) = VideoEmbedder.from_pretrained(folder / "model").embed({"odd": video})
    assert found.frame_indices == seen and found.grid == (1, 4, 4)


def test_results_keep_the_order_of_many_videos(folder, tmp_path):
    videos = {f"{number}": folder / "videos" / ("one.mp4" if number % 3 else "cut.mp4") for number in range(10)}
    results = list(VideoEmbedder.from_pretrained(folder / "model").embed(videos))
    assert [result.name for result in results] == list(videos)
    assert [isinstance(result, Failure) for result in results] == [number % 3 == 0 for number in range(10)]


def test_names(folder, tmp_path):
    videos = folder / "videos"
    again = tmp_path / "one.mp4"
    again.write_bytes(b"")
    assert list(find_videos([videos])) == ["cut.mp4", "two.MP4", "one.mp4", "short.mp4"]
    assert find_videos([videos / "notes.txt"]) == {"notes.txt": videos / "notes.txt"}
    alike = find_videos([again, videos / "one.mp4", videos / "short.mp4"])
    assert list(alike) == [again.as_posix(), (videos / "one.mp4").as_posix(), "short.mp4"]
    with pytest.raises(ValueError, match="more than once: .*one.mp4"):
        find_videos([videos, videos / "one.mp4"])
    with pytest.raises(ValueError, match="holds no video"):
        find_videos([folder / "model"])


def test_nothing_is_written_without_features(folder, tmp_path):
    output = run(folder / "videos/notes.txt", "--model", folder / "model", "--out", tmp_path / "out.npz", expect=1)
    assert "notes.txt: Cannot decode" in output
    assert list(tmp_path.iterdir()) == []


def test_output_is_checked_before_the_work(folder, tmp_path):
    (tmp_path / "there.npz").write_text("mine")
    for out, message in (
        ("there.npz", "exists already"),
        ("out.pt", "must end in .safetensors, .npz"),
        ("no/folder.npz", "there is no folder"),
    ):
        output = run(folder / "videos", "--model", tmp_path / "absent", "--out", tmp_path / out, expect=1)
        assert message in output and "absent" not in output
    assert (tmp_path / "there.npz").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("method", ["add", "close"])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, suffix, method):
    def fail(self, *args):
        raise OSError("No space left on device")

    monkeypatch.setattr(files._Npz if suffix == ".npz" else files._Safetensors, method, fail)
    with pytest.raises(OSError, match="No space"), FeatureFile(tmp_path / f"out{suffix}") as file:
        file.add([Embedding("clip", torch.zeros(3), (1, 1, 3), (0,), None)])
    assert list(tmp_path.iterdir()) == []


def test_npz_takes_any_name(tmp_path):
    names = ["file", "allow_pickle", "a/b.mp4", "späße 1.mp4"]
    with FeatureFile(tmp_path / "out.npz", model="m") as file:
        for number, name in enumerate(names):
            file.add([Embedding(name, torch.full((2,), float(number)), (1, 1, 1), (0,), None)])
    archive = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert [archive[name][0] for name in names] == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_are_those_of_the_library(tmp_path, dtype):
    tensors = {f"clip {number}": torch.randn(2, number + 1, 3).to(dtype) for number in range(5)}
    with FeatureFile(tmp_path / "out.safetensors", model="m") as file:
        for name, tensor in tensors.items():
            file.add([Embedding(name, tensor, (1, 1, 3), (0,), None)])
    with safe_open(tmp_path / "out.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["embeddings"])["model"] == "m"
        for name, tensor in tensors.items():
            assert torch.equal(opened.get_tensor(name), tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_incomplete_weights_are_an_error(folder, tmp_path):
    model = VJEPA2Model(VJEPA2Config(**CONFIG))
    state = {name: value for name, value in model.state_dict().items() if name != "encoder.layernorm.bias"}
    model.save_pretrained(tmp_path / "broken", state_dict=state)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match=r"lacks the weights encoder\.layernorm\.bias"):
        VideoEmbedder.from_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="pool 'auto', 'joint', 'mean', 'none', got 'max'"):
        VideoEmbedder.from_pretrained(folder / "model", pool="max")


# How a model is called for its tokens, (1, t, h, w, D).
MODELS = {
    "VideoMAEModel": lambda model, pixels, grid: model(pixels).last_hidden_state.unflatten(1, grid),
    "VideoPrismVisionModel": lambda model, pixels, grid: model(pixels).last_hidden_state.unflatten(1, grid),
    "VideoPrismClipModel": lambda model, pixels, grid: model.video_model.vision_model(
        pixels
    ).last_hidden_state.unflatten(1, grid),
    "PeVideoModel": lambda model, pixels, grid: model.video_encoder(pixels).last_hidden_state.unflatten(1, grid),
    "PeCoreModel": lambda model, pixels, grid: (
        model.vision_model(pixels[0]).last_hidden_state[:, -grid[1] * grid[2] :].reshape(1, *grid, -1)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_of_every_family(folder, tmp_path, name):
    model, processor = directory_of(name, tmp_path)
    embedder = VideoEmbedder.from_pretrained(tmp_path, pool="none")
    (found,) = embedder.embed({"clip": folder / "videos" / "one.mp4"})
    assert len(found.frame_indices) == embedder.num_frames
    frames = np.stack(decode_all(folder / "videos" / "one.mp4"))[list(found.frame_indices)]
    pixels = processor(frames, do_sample_frames=False, return_tensors="pt")[processor.model_input_names[0]]
    with torch.no_grad():
        expected = MODELS[name](model, pixels, found.grid)[0]
    assert found.embedding.shape == (*found.grid, expected.shape[-1])
    torch.testing.assert_close(found.embedding, expected, rtol=1e-5, atol=1e-5)
    (mean,) = VideoEmbedder.from_pretrained(tmp_path, pool="mean").embed({"clip": folder / "videos" / "one.mp4"})
    torch.testing.assert_close(mean.embedding, expected.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["VideoPrismClipModel", "PeVideoModel", "PeCoreModel"])
def test_joint_embeddings(folder, tmp_path, name):
    """What a video-text model compares with texts is what is written unless something else is asked for."""
    model, processor = directory_of(name, tmp_path, num_frames=4)
    run(folder / "videos" / "one.mp4", "--model", tmp_path, "--out", tmp_path / "out.npz", "--num-frames", 4)
    archive = np.load(tmp_path / "out.npz")
    about = json.loads(str(archive["__metadata__"]))
    assert about["pool"] == "joint" and about["videos"]["one.mp4"]["grid"] is None
    frames = np.stack(decode_all(folder / "videos" / "one.mp4"))[about["videos"]["one.mp4"]["frame_indices"]]
    pixels = processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    size = {"interpolate_pos_encoding": True} if name == "VideoPrismClipModel" else {}
    with torch.no_grad():
        expected = model.get_video_features(pixels, **size).pooler_output[0]
    np.testing.assert_allclose(archive["one.mp4"], expected / expected.norm(), rtol=1e-5, atol=1e-5)


def test_frames_are_those_of_the_family(folder, tmp_path):
    """PE spreads them from the first to the last, and repeats those of a short video; V-JEPA 2 does neither."""
    directory_of("PeVideoModel", tmp_path, num_frames=4)
    videos = {name: folder / "videos" / name for name in ("one.mp4", "short.mp4")}
    found = VideoEmbedder.from_pretrained(tmp_path).embed(videos)
    assert [each.frame_indices for each in found] == [(0, 6, 12, 19), (0, 0, 0, 1)]
    found = VideoEmbedder.from_pretrained(folder / "model").embed(videos)
    assert [each.frame_indices for each in found] == [(0, 5, 10, 15), (0, 1)]


def test_models_that_have_no_such_features(folder, tmp_path):
    with pytest.raises(OSError, match="absent: there is no such directory"):
        VideoEmbedder.from_pretrained(tmp_path / "absent")
    with pytest.raises(ValueError, match="VJEPA2Model has no joint embedding"):
        VideoEmbedder.from_pretrained(folder / "model", pool="joint")
    directory_of("VideoPrismTextModel", tmp_path)
    with pytest.raises(ValueError, match="VideoPrismTextModel does not embed videos"):
        VideoEmbedder.from_pretrained(tmp_path)
