"""Windows of videos through models: the numbers of each window alone, with every frame decoded and encoded once."""

import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

import vidformers
from tests import video_files
from tests.harness.fresh import succeed_afresh
from tests.inference.directories import directory_of
from tests.video_files import decode_all, truncate, write_video
from vidformers.inference.embedder import Embedding, Failure, VideoEmbedder
from vidformers.inference.stream import Plan, Ring, Waiting, run_ahead
from vidformers.inference.windows import Windows
from vidformers.video import VideoReader


# Each with the number of frames that windows take of it.
MODELS = (
    "VJEPA2Model",
    "VideoMAEModel",
    "VideoPrismVisionModel",
    "VideoPrismClipModel",
    "PeVideoModel",
    "PeCoreModel",
)
FRAME_BY_FRAME = ("VJEPA2ACModel", "VideoPrismVisionModel", "VideoPrismClipModel", "PeVideoModel", "PeCoreModel")
OVERLAPPING = Windows(4, 1, unit="frames")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "one.mp4", num_frames=19, b_frames=2)
    write_video(folder / "two.mp4", num_frames=10, height=48, width=48)
    write_video(folder / "three.mp4", num_frames=3)
    return folder


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """The directory of a tiny model of each class, made on first use."""
    made = {}

    def get(name: str):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            directory_of(name, made[name])
        return made[name]

    return get


def paths(folder, *names) -> dict:
    return {name: folder / f"{name}.mp4" for name in names}


@pytest.mark.parametrize("name", MODELS)
def test_windows_are_as_each_alone(name, folder, directories):
    embedder = VideoEmbedder.from_pretrained(directories(name), device="cpu", batch_size=3)
    found = list(embedder.embed(paths(folder, "one", "two"), Windows(4, 2, unit="frames", edge="drop")))
    assert [(each.name, each.window, each.num_windows) for each in found] == [
        *(("one", number, 8) for number in range(8)),
        *(("two", number, 4) for number in range(4)),
    ]
    pictures = {video: np.stack(decode_all(folder / f"{video}.mp4")) for video in ("one", "two")}
    for each in found:
        start = 2 * each.window
        assert each.frame_indices == tuple(range(start, start + 4))
        np.testing.assert_allclose((each.start_seconds, each.end_seconds), (start / 25, (start + 4) / 25), atol=1e-6)
        inputs = embedder.processor(
            pictures[each.name][start : start + 4], do_sample_frames=False, return_tensors="pt"
        )
        pixels = inputs[embedder.processor.model_input_names[0]]
        with torch.no_grad():
            if embedder.pool == "joint":
                expected = torch.nn.functional.normalize(embedder.model.embed_videos(pixels)[0], dim=0)
            else:
                expected = embedder.model.get_feature_map(pixels)[0].mean((0, 1, 2))
        torch.testing.assert_close(each.embedding, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FRAME_BY_FRAME)
def test_frames_encoded_once_give_the_same_numbers(name, folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories(name), device="cpu", batch_size=2)
    encoded, original = [], embedder.model.encode_frames
    monkeypatch.setattr(
        embedder.model, "encode_frames", lambda pixels: encoded.append(len(pixels[0])) or original(pixels)
    )
    cached = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))
    assert sum(encoded) == 19 + 10
    embedder._encodes_frames = False
    alone = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))
    assert len(cached) == len(alone) == 16 + 7
    for one, other in zip(cached, alone, strict=True):
        torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-6, atol=1e-6)


def test_frames_are_decoded_and_prepared_once(folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu")
    prepared, readers = [], []
    preprocess, initialize = embedder.processor.preprocess, VideoReader.__init__
    monkeypatch.setattr(
        embedder.processor, "preprocess", lambda video, **kw: prepared.append(len(video)) or preprocess(video, **kw)
    )
    monkeypatch.setattr(VideoReader, "__init__", lambda self, *args: readers.append(self) or initialize(self, *args))
    found = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))
    assert len(found) == 16 + 7 and sum(prepared) == 19 + 10
    # A few packets are decoded for the size of the pictures.
    assert [reader.num_decoded_packets for reader in readers] == [pytest.approx(19, abs=6), pytest.approx(10, abs=6)]


def test_batches_fill_across_videos(folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu", batch_size=5)
    sizes, original = [], embedder._features
    monkeypatch.setattr(embedder, "_features", lambda clips: sizes.append(len(clips)) or original(clips))
    windows = Windows(4, 3, unit="frames", edge="pad")
    found = list(embedder.embed(paths(folder, "one", "two", "three"), windows))
    assert [each.num_windows for each in found] == [6] * 6 + [3] * 3 + [1] and sizes == [5, 5]
    embedder.batch_size = 1
    for one, other in zip(found, embedder.embed(paths(folder, "one", "two", "three"), windows), strict=True):
        assert (one.name, one.window) == (other.name, other.window)
        torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-5, atol=2e-6)
    sizes.clear()
    embedder.batch_size = 4  # a window of another length begins a batch of its own
    list(embedder.embed(paths(folder, "two", "one"), Windows(4, 4, unit="frames", edge="keep")))
    assert sizes == [2, 1, 4, 1]


def test_a_batch_that_does_not_fit_is_halved(folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu", batch_size=7)
    expected = list(embedder.embed(paths(folder, "one"), OVERLAPPING))
    sizes, original = [], embedder._features

    def features(clips):
        sizes.append(len(clips))
        if len(clips) > 2:
            raise torch.OutOfMemoryError
        return original(clips)

    monkeypatch.setattr(embedder, "_features", features)
    found = list(embedder.embed(paths(folder, "one"), OVERLAPPING))
    assert sizes[:7] == [7, 4, 2, 2, 2, 1, 2]
    assert [each.window for each in found] == list(range(16)) and embedder.batch_size == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FRAME_BY_FRAME)
def test_frames_that_do_not_fit_are_halved(name, folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories(name), device="cpu")
    expected = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))
    sizes, original = [], embedder.model.encode_frames

    def encode_frames(pixels):
        sizes.append(pixels.shape[1])
        if pixels.shape[1] > 5:
            raise torch.OutOfMemoryError
        return original(pixels)

    monkeypatch.setattr(embedder.model, "encode_frames", encode_frames)
    found = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))
    assert sizes[:6] == [16, 8, 4, 4, 4, 4] and max(sizes[2:]) == 4, "what fits is remembered"
    assert sum(sizes[2:]) == 19 + 10, "each frame once"
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.embedding, other.embedding, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("called", ["_features", "_encoded"])
def test_no_memory_for_one_window(called, folder, directories, monkeypatch):
    """It is an error of the machine, and no failure of a video."""
    embedder = VideoEmbedder.from_pretrained(directories("PeCoreModel"), device="cpu", batch_size=2)

    def full(items):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(embedder, called, full)
    with pytest.raises(MemoryError, match="one window of a video .CUDA out of memory.. Take fewer frames"):
        list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))


def test_an_error_of_the_model_is_no_failure_of_a_video(folder, directories, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu", batch_size=2)

    def broken(clips):
        raise ValueError("the model is broken")

    monkeypatch.setattr(embedder, "_features", broken)
    with pytest.raises(ValueError, match="the model is broken"):
        list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING))


def test_damage_that_shows_late_begins_again(tmp_path, directories):
    """The decoder finds a picture damaged that its packet promised: windows are those of a reader that knows."""
    path = write_video(tmp_path / "intra.mp4", b_frames=2, options={"qp": "10"})
    data = bytearray(path.read_bytes())
    start, size = video_files.packet_places(path)[25]
    data[start + size // 2 : start + size // 2 + 40] = bytes(range(40))
    path.write_bytes(data)
    reader = VideoReader(path)
    frames, metadata = reader.read()
    assert not reader.index.is_promised.all() or reader.index is None or reader._conceals
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu")
    windows = Windows(4, 3, unit="frames", edge="drop")
    found = list(embedder.embed({"intra": path}, windows))
    assert [each.frame_indices for each in found] == [each.frame_indices for each in windows(metadata)]
    for each in found:
        pixels = embedder.processor(frames[list(each.frame_indices)], return_tensors="pt")["pixel_values_videos"]
        with torch.no_grad():
            expected = embedder.model.get_feature_map(pixels)[0].mean((0, 1, 2))
        torch.testing.assert_close(each.embedding, expected, rtol=1e-4, atol=1e-5)


def test_videos_that_cannot_be_read_cost_their_own(folder, directories, tmp_path):
    cut = truncate(write_video(tmp_path / "long.mp4", num_frames=60), 0.1)
    files = {**paths(folder, "one"), "cut": cut, **paths(folder, "three", "two"), "none": tmp_path / "none.mp4"}
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu")
    found = list(embedder.embed(files, Windows(4, 4, unit="frames", edge="drop")))
    assert [each.name for each in found if isinstance(each, Embedding)] == ["one"] * 4 + ["two"] * 2
    failures = {each.name: each.reason for each in found if isinstance(each, Failure)}
    assert list(failures) == ["cut", "three", "none"]
    assert "no window fits" in failures["three"] and "no such file" in failures["none"]
    assert [each.name for each in found] == ["one"] * 4 + ["cut", "three", "two", "two", "none"]


def test_first_windows_are_left_out_where_they_are_done(folder, directories):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu")
    whole = list(embedder.embed(paths(folder, "one"), OVERLAPPING))
    rest = list(embedder.embed(paths(folder, "one", "two"), OVERLAPPING, done={"one": 12}))
    assert [(each.name, each.window) for each in rest][:5] == [
        *(("one", number) for number in range(12, 16)),
        ("two", 0),
    ]
    torch.testing.assert_close(rest[0].embedding, whole[12].embedding, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
def test_memory_does_not_grow_with_the_video(tmp_path, directories):
    """An hour takes at most 64 MiB more than a minute."""
    script = """
import resource, sys
from vidformers.inference.embedder import VideoEmbedder
from vidformers.inference.windows import Windows

embedder = VideoEmbedder.from_pretrained(sys.argv[1], device="cpu")
count = sum(1 for _ in embedder.embed({"video": sys.argv[2]}, Windows(4.0, 2.0, num_frames=8)))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    counts, peaks = [], []
    for minutes in (1, 60):
        path = video_files.write_long_video(tmp_path / f"{minutes}.mp4", minutes, height=32, width=32)
        count, peak = map(int, succeed_afresh(script, directories("VJEPA2Model"), path).split()[-2:])
        counts.append(count)
        peaks.append(peak)
    assert counts == [29, 1799] and peaks[1] - peaks[0] <= 64, peaks


# ------------------------------------------------------------------------------------------------------------ methods


def test_encode_and_text(folder, directories):
    embedder = vidformers.VideoEmbedder.from_pretrained(directories("PeCoreModel"), dtype="float32", num_frames=4)
    vectors = embedder.encode([folder / "one.mp4", folder / "two.mp4"])
    assert vectors.dtype == torch.float32 and vectors.shape[0] == 2
    assert torch.equal(embedder.encode(folder / "one.mp4"), vectors[:1])
    rows = embedder.encode_windows(folder / "one.mp4", seconds=0.4, step=0.2)
    assert [len(each.frame_indices) for each in rows] == [4] * len(rows)
    np.testing.assert_allclose([each.start_seconds for each in rows], np.arange(len(rows)) * 0.2, atol=1e-6)
    assert rows[-1].end_seconds == pytest.approx(19 / 25)
    with pytest.raises(ValueError, match="`windows`, or `seconds`"):
        embedder.encode_windows(folder / "one.mp4")
    with pytest.raises(vidformers.VideoDecodeError, match="none.mp4'?: there is no such file"):
        embedder.encode([folder / "one.mp4", folder / "none.mp4"])


def test_texts_are_as_of_the_model():
    path = Path(vidformers.__file__).parent / "demo_models/shapes_clip"
    embedder = VideoEmbedder.from_pretrained(path, device="cpu")
    texts = ["a red square moves to the left", "a circle"]
    found = embedder.encode_text(texts)
    model, processor = AutoModel.from_pretrained(path), AutoProcessor.from_pretrained(path)
    for text, vector in zip(texts, found, strict=True):
        inputs = processor(text=[text], return_tensors="pt")
        with torch.no_grad():
            expected = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output[0]
        torch.testing.assert_close(vector, torch.nn.functional.normalize(expected, dim=0), rtol=1e-5, atol=1e-6)
    assert found.dtype == torch.float32 and not torch.allclose(found[0], found[1], atol=0.05)
    torch.testing.assert_close(embedder.encode_text(texts[1]), found[1:], rtol=1e-5, atol=1e-6)


def test_models_without_texts(folder, directories):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"))
    with pytest.raises(ValueError, match="VJEPA2Model has no text tower. Load a video-text model"):
        embedder.encode_text(["someone pours water"])
    with pytest.raises(ValueError, match='the pool is "mean"'):
        VideoEmbedder.from_pretrained(directories("PeCoreModel"), pool="mean").encode_text("water")
    with pytest.raises(ValueError, match="call embed"):
        VideoEmbedder.from_pretrained(directories("VJEPA2Model"), pool="none").encode(folder / "one.mp4")


def test_a_ring_keeps_what_coming_windows_hold():
    ring = Ring()
    plan = Plan(None, Windows(4, 2, unit="frames")(np.arange(20) / 25), 9)
    ring.begin(plan)
    for start in range(0, 12, 3):
        numbers = list(range(start, start + 3))
        for window, frames in ring.add(numbers, torch.tensor(numbers)):
            assert [int(frame) for frame in frames] == list(window.frame_indices)
        assert min(ring.frames, default=99) >= ring.windows[0].frame_indices[0] and len(ring.frames) <= 6
    ring.begin(plan)  # another video, or the same one again: a frame of before must not be taken for one of now
    assert not ring.frames and not list(ring.add([3], torch.tensor([3])))


# ------------------------------------------------------------------------------------------------------------ threads


def test_generators_run_ahead_in_order():
    started = []

    def task(number):
        started.append(number)
        for step in range(4):
            time.sleep(0.01 * ((number + step) % 3))
            yield number, step
        if number == 2:
            raise OSError("two")

    tasks = [lambda number=number: task(number) for number in range(5)]
    found, errors = [], []
    for each in run_ahead(tasks, 2, 2, Waiting()):
        try:
            found += each
        except OSError as error:
            errors.append(str(error))
    assert found == [(number, step) for number in range(5) for step in range(4) if (number, step)] and errors == [
        "two"
    ]


def test_threads_end_with_the_loop(folder, directories):
    embedder = VideoEmbedder.from_pretrained(directories("VJEPA2Model"), device="cpu")

    def decoding():
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("vidformers-decoding")]

    results = embedder.embed({str(number): folder / "one.mp4" for number in range(6)}, OVERLAPPING)
    assert len(list(islice(results, 3))) == 3 and decoding()
    results.close()
    assert not decoding()
    assert embedder.waiting.seconds > 0
