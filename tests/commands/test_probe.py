"""`vidformers probe`: heads learn from kept features, one is chosen and tested once, and what is wrong is said."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModelForVideoClassification

import vidformers
from tests.commands.probes import TINY, prepared, run, settings, trained
from tests.inference.directories import directory_of
from tests.video_files import write_video
from vidformers import VJEPA2Config, VJEPA2ForActionAnticipation, VJEPA2Model, VJEPA2VideoProcessor
from vidformers.commands import probe, probe_run
from vidformers.commands.classify import Classifier
from vidformers.commands.probe_task import PARTS, draw_parts, kind_of
from vidformers.inference.kept_features import KeptFeatures, encode
from vidformers.inference.media import Clip
from vidformers.inference.probe_clips import ClipViews, PreparedClips, renormalized, stacked


SHAPES_MAE = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
FAMILIES = ("VideoMAEModel", "VideoPrismVisionModel", "VideoPrismClipModel", "PeCoreModel", "PeVisionModel")
FAMILIES = (*FAMILIES, "PeVideoModel", "VJEPA2Model")
pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Six clips of each of two classes, some of them shorter than two clips of a model."""
    folder = tmp_path_factory.mktemp("clips")
    for name, height in (("flat", 32), ("tall", 64)):
        (folder / name).mkdir()
        for index in range(6):
            write_video(folder / name / f"{index}.mp4", num_frames=6 + 4 * index, height=height, width=48)
    return folder


def inputs_of(task: probe.Task, part: str) -> tuple[list[Clip], dict[str, torch.Tensor]]:
    """Model input of the clips of a part, in one batch."""
    data = PreparedClips(task.parts[part], task.prepare_of(part))
    found, inputs, problems = stacked([data[index] for index in range(len(data))])
    assert not problems
    return found, inputs


# ----------------------------------------------------------------------------------------------------- it learns


@pytest.mark.slow
def test_motions_are_learned(shapes, tmp_path):
    """From the toy VideoMAE, frozen: of four motions, which no single frame tells, at least 0.75 are told in the test.

    Chance is 0.25, and by chance 18 of 24 clips or more are right once in some ten million tests.
    """
    rng, motions = np.random.default_rng(0), list(shapes.MOTIONS)[:4]
    for motion in motions:
        (tmp_path / "clips" / motion).mkdir(parents=True)
        scenes = [scene for scene in shapes.SCENES if scene.motion == motion]
        for index in range(24):
            frames = shapes.render(scenes[rng.integers(len(scenes))], rng, num_frames=8, side=64)
            shapes.write_clip(tmp_path / "clips" / motion / f"{index}.mp4", frames)
    task = probe.prepare(tmp_path / "clips", SHAPES_MAE, probe.Settings(epochs=10), test_share=0.25)
    measures = trained(task, tmp_path / "out")
    assert len(task.parts["test"]) == 24 and measures.test["accuracy"] >= 0.75


@pytest.mark.parametrize("name", FAMILIES)
def test_any_family(clips, tmp_path, name):
    """The directory loads by its Auto class, and scores a file as its head was measured."""
    directory_of(name, tmp_path / "model")
    task = prepared(clips, tmp_path / "model", settings(epochs=1))
    measures = trained(task, tmp_path / "out")
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").eval()
    own = name.startswith("VJEPA2")
    assert type(model).__name__ == ("VJEPA2" if own else "AttentiveProbe") + "ForVideoClassification"
    found, inputs = inputs_of(task, "test")
    with torch.no_grad():
        logits = model(**inputs).logits
    right = sum(clip.label == each.argmax() for clip, each in zip(found, logits, strict=True))
    assert measures.test["accuracy"] == right / len(found)
    shares = Classifier(tmp_path / "out", num_frames=4).classify(found[0].source)
    expected = dict(zip(("flat", "tall"), logits.softmax(-1)[0].tolist(), strict=True))
    assert shares == pytest.approx(expected, abs=1e-5)


def test_a_probe_is_probed_again(clips, tmp_path):
    """Its encoder gets a new head, of either class."""
    for name, encoder in (("VideoMAEModel", "encoder"), ("VJEPA2ForVideoClassification", "vjepa2")):
        directory_of(name, tmp_path / name)
        first, second = tmp_path / f"{name}-1", tmp_path / f"{name}-2"
        trained(prepared(clips, tmp_path / name, settings(epochs=1)), first)
        trained(prepared(clips, first, settings(epochs=1, layers=1)), second)
        models = [AutoModelForVideoClassification.from_pretrained(folder) for folder in (first, second)]
        states = [getattr(model, encoder).state_dict() for model in models]
        torch.testing.assert_close(*states, rtol=0, atol=0)
        assert [len(model.pooler.self_attention_layers) for model in models] == [0, 1]


def test_only_heads_are_trained(clips, tiny, tmp_path):
    task = prepared(clips, tiny)
    before = {name: each.clone() for name, each in task.model.state_dict().items()}
    trained(task, tmp_path / "out")
    after = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if not name.startswith("vjepa2.")}


def test_heads_begin_alike_and_as_new(tiny, clips):
    task = prepared(clips, tiny, settings(layers=1))
    assert task.model.pooler.query_tokens.std().item() == pytest.approx(0.2, rel=0.4)
    assert task.model.classifier.weight.std().item() == pytest.approx(0.2, rel=0.4)
    again, other = (prepared(clips, tiny, settings(layers=1, seed=seed)).model for seed in (0, 1))
    assert torch.equal(again.classifier.weight, task.model.classifier.weight)
    assert not torch.equal(other.classifier.weight, task.model.classifier.weight)


def test_half_precision(clips, tiny, tmp_path):
    """The encoder computes in bfloat16, the directory has its weights as they were."""
    trained(prepared(clips, tiny, dtype=torch.bfloat16), tmp_path / "out")
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    original = VJEPA2Model.from_pretrained(tiny, use_predictor=False)
    torch.testing.assert_close(model.vjepa2.state_dict(), original.state_dict(), rtol=0, atol=0)
    assert {each.dtype for each in model.state_dict().values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------------ features


@pytest.mark.parametrize("change", [{}, {"segments": 2, "views": 3}], ids=["processor", "segments and views"])
def test_kept_features_are_those_of_the_model(clips, tiny, tmp_path, change):
    task = prepared(clips, tiny, settings(epochs=1, **change))
    trained(task, tmp_path / "out")
    folder = KeptFeatures(tmp_path / "out.features", json.loads((tmp_path / "out.features/settings.json").read_text()))
    for part in ("training", "validation"):
        found, inputs = inputs_of(task, part)
        expected = encode(task.model, inputs)
        actual = folder.load(found, task.prepare_of(part).views)
        torch.testing.assert_close(actual.tokens, expected.tokens, rtol=0, atol=1e-6)
        segments, views = change.get("segments", 1), change.get("views", 1) if part == "validation" else 1
        assert expected.tokens.shape[:2] == (len(found) * views, segments * 2 * 4)


def test_features_are_made_once(clips, tiny, tmp_path, monkeypatch):
    """For any number of epochs and trainings; a folder of others is refused."""
    calls = []
    usual = KeptFeatures.save
    monkeypatch.setattr(
        KeptFeatures, "save", lambda self, clip, tokens: calls.append(clip) or usual(self, clip, tokens)
    )
    trained(prepared(clips, tiny), tmp_path / "out", features=tmp_path / "kept")
    assert len(calls) == len(set(calls)) == 12
    next((tmp_path / "kept").glob("*.safetensors")).unlink()
    trained(prepared(clips, tiny, settings(layers=1)), tmp_path / "other", features=tmp_path / "kept")
    assert len(calls) == 13
    for change, message in (({"num_frames": 2}, "num_frames was 4, now 2"), ({"dtype": torch.bfloat16}, "dtype was")):
        with pytest.raises(ValueError, match=f"made otherwise: {message}"):
            trained(prepared(clips, tiny, **change), tmp_path / "new", features=tmp_path / "kept")
    changed = shutil.copytree(tiny, tmp_path / "changed")
    torch.manual_seed(1)
    VJEPA2Model(VJEPA2Config(**TINY)).save_pretrained(changed)
    with pytest.raises(ValueError, match="made otherwise: model was"):
        trained(prepared(clips, changed), tmp_path / "new", features=tmp_path / "kept")
    with pytest.raises(ValueError, match="no folder of features"):
        trained(prepared(clips, tiny), tmp_path / "new", features=clips)
    assert not (tmp_path / "new").exists()


def test_a_file_that_changes_has_other_features(clips, tiny, tmp_path):
    folder = KeptFeatures(tmp_path / "kept", {})
    file = shutil.copy(clips / "flat/0.mp4", tmp_path / "0.mp4")
    before = folder.file_of(Clip("0.mp4", 0, file), 1)
    assert folder.file_of(Clip("0.mp4", 0, file), 3) != before == folder.file_of(Clip("0.mp4", 1, file), 1)
    shutil.copy(clips / "flat/1.mp4", file)
    assert folder.file_of(Clip("0.mp4", 0, file), 1) != before


def test_pixels_are_normalized_as_the_processor_does(clips):
    clip = Clip("0", 0, clips / "flat/5.mp4")
    plain = ClipViews(VJEPA2VideoProcessor(crop_size=32), 4, frame_step=2)
    assert renormalized(torch.ones(1, 3, 2, 2), plain.processor).eq(1).all()
    other = replace(plain, processor=vidformers.VideoPrismVideoProcessor(size=32))
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (plain.processor.image_mean, plain.processor.image_std)
    )
    pixels = plain(clip)["pixel_values_videos"]
    assert pixels.shape == (1, 1, 4, 3, 32, 32)
    torch.testing.assert_close(other(clip)["pixel_values_videos"], pixels * std + mean)


def test_segments_lie_in_parts_of_the_video(clips):
    """Clips of four frames out of two parts of 26 frames: the first frames of each, or drawn ones."""
    clip, frames = Clip("0", 0, clips / "flat/5.mp4"), vidformers.decode_video(clips / "flat/5.mp4")[0]
    views = ClipViews(VJEPA2VideoProcessor(crop_size=32), 4, segments=2, frame_step=2)
    pixels = views(clip)["pixel_values_videos"]
    expected = vidformers.video.VJEPA2EvaluationViews(32, 1)(frames[[0, 2, 5, 7, 13, 15, 18, 20]])
    torch.testing.assert_close(pixels[0].flatten(0, 1), expected[0])
    drawn = PreparedClips([clip] * 6, replace(views, drawn=True))
    pixels = [drawn[number][1]["pixel_values_videos"] for number in (0, *range(6))]
    assert torch.equal(pixels[0], pixels[1]) and not all(torch.equal(pixels[0], each) for each in pixels[2:])


# ------------------------------------------------------------------------------------------------------------- honesty


def recording(monkeypatch, task: probe.Task) -> list[tuple[str, int, tuple[str, ...]]]:
    """What is looked at, in order: the part, the epoch and the names of the clips."""
    looked = []
    usual = probe_run.Run.batches

    def batches(self, part, epoch):
        names = [clip.name for clip in self.order(part, epoch)]
        looked.append((part, epoch, tuple(names)))
        count = 0
        for features, labels in usual(self, part, epoch):
            count += len(labels["labels"])
            yield features, labels
        assert count == len(names)

    monkeypatch.setattr(probe_run.Run, "batches", batches)
    return looked


def test_validation_is_complete_and_the_test_is_looked_at_once(clips, tiny, tmp_path, monkeypatch):
    task = prepared(clips, tiny, settings(epochs=3, batch_size=4), validation_share=0.34, test_share=0.17)
    parts = {part: {clip.name for clip in found} for part, found in task.parts.items()}
    assert [len(parts[part]) for part in PARTS] == [6, 4, 2] and len(set.union(*parts.values())) == 12
    looked = recording(monkeypatch, task)
    measures = trained(task, tmp_path / "out")
    assert [part for part, *_ in looked] == ["training", "validation"] * 3 + ["test"]
    for part, _, names in looked:
        assert set(names) == parts[part] and len(names) == len(parts[part])
    orders = {part: {names for name, _, names in looked if name == part} for part in parts}
    assert len(orders["training"]) == 3 and len(orders["validation"]) == 1
    assert sum(map(sum, measures.confusion)) == 2
    last = [each["accuracy"] for each in measures.epochs[-1]["measures"]]
    assert measures.validation["accuracy"] == last[measures.chosen] == max(last)


def test_as_the_original(clips, tiny, tmp_path, monkeypatch):
    """Validation draws its clips, and leaves out those that fill no batch; there is no test."""
    given = probe.Settings.original(epochs=2, batch_size=3, rates=(1e-3,), decays=(0.1,), layers=0)
    assert (given.views, given.step, given.augment) == (3, 4, True) and len(probe.Settings.original().heads) == 20
    task = prepared(clips, tiny, given, validation_share=0.34)
    assert not task.keeps("training") and not task.keeps("validation") and not task.parts["test"]
    looked = recording(monkeypatch, task)
    drawn = []
    usual = probe_run.encode
    monkeypatch.setattr(probe_run, "encode", lambda model, inputs: drawn.append(inputs) or usual(model, inputs))
    measures = trained(task, tmp_path / "out")
    assert [(part, len(names)) for part, _, names in looked] == [("training", 6), ("validation", 3)] * 2
    assert looked[1][2] == looked[3][2] != tuple(clip.name for clip in task.parts["validation"])[:3]
    shapes = [inputs["pixel_values_videos"].shape[1:3] for inputs in drawn]
    assert shapes == [(1, 1), (1, 1), (3, 1)] * 2
    assert not torch.equal(drawn[2]["pixel_values_videos"], drawn[5]["pixel_values_videos"])
    assert measures.test is None and sum(map(sum, measures.confusion)) == 3
    assert "so that they flatter it" in (tmp_path / "out/README.md").read_text("utf-8")
    with pytest.raises(ValueError, match="fewer than fill a batch"):
        trained(prepared(clips, tiny, replace(given, batch_size=5), validation_share=0.17), tmp_path / "none")


def test_what_is_drawn_is_drawn_again(clips, tiny, tmp_path):
    """Augmented clips differ between epochs, and not between two trainings."""
    given = settings(augment=True, rates=(1e-3,))
    losses = [
        [epoch["losses"] for epoch in trained(prepared(clips, tiny, given), tmp_path / name).epochs] for name in "ab"
    ]
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
    assert len(list((tmp_path / "a.features").glob("*.safetensors"))) == 4  # of validation and test alone


@pytest.mark.parametrize(
    ("given", "drawn"),
    [((), "validation 0.2 0, test 0.25 1"), (("validation",), "test 0.2 0"), (("test",), "validation 0.2 0")],
)
def test_parts_that_are_drawn(given, drawn):
    """One after the other, each from what is left, with seeds in their order."""
    calls = []

    def draw(items, share, seed):
        calls.append(f"{round(share, 3)} {seed}")
        return items[1:], items[:1]

    sources, shares = {part: part if part in given else None for part in PARTS[1:]}, dict.fromkeys(PARTS[1:], 0.2)
    rest, parts = draw_parts([1, 2, 3], sources, shares, 0, draw)
    assert ", ".join(f"{part} {call}" for part, call in zip(parts, calls, strict=True)) == drawn
    assert parts == {part: [number] for number, part in enumerate(parts, 1)} and len(rest) == 3 - len(parts)


def test_clips_of_ones_own(clips, tiny):
    task = prepared(clips, tiny, validation=clips, test=clips)
    assert [len(found) for found in task.parts.values()] == [12, 12, 12]
    with pytest.raises(ValueError, match="nothing to choose a head by"):
        prepared(clips, tiny, validation_share=0)


# ----------------------------------------------------------------------------------------------------- stop and go on


def test_a_stopped_training_goes_on(clips, tiny, tmp_path):
    """As one that was not stopped, and only for the same task."""
    given = settings(epochs=3)
    whole = trained(prepared(clips, tiny, given), tmp_path / "whole")

    def stop(epoch):
        if epoch["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(prepared(clips, tiny, given), tmp_path / "out", on_epoch=stop)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="Pass --resume to go on"):
        trained(prepared(clips, tiny, given), tmp_path / "out")
    with pytest.raises(ValueError, match="of another task: rates was"):
        trained(prepared(clips, tiny, replace(given, rates=(1e-4, 1e-3))), tmp_path / "out", resume=True)
    resumed = trained(prepared(clips, tiny, given), tmp_path / "out", resume=True)
    for mine, theirs in zip(resumed.epochs, whole.epochs, strict=True):
        assert mine | {"seconds": 0} == theirs | {"seconds": 0}
    assert (resumed.chosen, resumed.test) == (whole.chosen, whole.test)
    weights = [
        AutoModelForVideoClassification.from_pretrained(tmp_path / name).state_dict() for name in ("out", "whole")
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert not (tmp_path / "out.training").exists()


def test_a_training_that_only_had_to_write(clips, tiny, tmp_path, monkeypatch):
    """What was measured before is measured again for the confusion alone."""
    usual = probe.write_card
    monkeypatch.setattr(probe, "write_card", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained(prepared(clips, tiny, test_share=0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(probe, "write_card", usual)
    measures = trained(prepared(clips, tiny, test_share=0), tmp_path / "out", resume=True)
    assert sum(map(sum, measures.confusion)) == 2 and len(measures.epochs) == 2


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_and_its_card(clips, tiny, tmp_path):
    out = tmp_path / "out"
    output = run(clips, "--model", tiny, "--out", out, "--rate", "1e-3", "--rate", "1e-2", "--decay", "0.5")
    assert "2 classes: clips 8 to train on, 2 to choose by, 2 to test with; 2 heads" in output
    assert "epoch 2: accuracy" in output and "On the test: accuracy" in output
    card = (out / "README.md").read_text("utf-8")
    assert ModelCard(card).data.pipeline_tag == "video-classification"
    assert "measured once on 2 that had no part in either" in card and card.count("| chosen |") == 1
    assert "| 0.001 | 0.5 |" in card and "| 0.01 | 0.5 |" in card
    for name in ("accuracy.png", "confusion.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("RGB").resize((64, 64)).get_flattened_data())) > 10
    record = json.loads((out / "training.json").read_text())
    assert len(record["epochs"]) == 2 and record["settings"]["decays"] == [0.5]
    lines = [
        json.loads(line)
        for line in run(
            clips, "--model", tiny, "--out", tmp_path / "json", "--features", tmp_path / "out.features", "--json"
        ).splitlines()
        if line.startswith("{")
    ]
    assert [line["epoch"] for line in lines] == [1, 2] and len(lines[0]["losses"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "tall"), "found only flat"),
        (lambda folder: [file.unlink() for file in folder.glob("*/*")], "too few of flat \\(0\\), tall \\(0\\)"),
        (lambda folder: [file.unlink() for file in folder.glob("tall/[2-5]*")], "Expected at least 3 video files"),
        (lambda folder: [(folder / f"tall/{n}.mp4").write_text("none") for n in range(2)], "2 of 12 clips cannot be"),
    ],
    ids=["one class", "no videos", "too few", "unreadable"],
)
def test_clips_that_are_none(clips, tiny, tmp_path, change, message):
    folder = shutil.copytree(clips, tmp_path / "clips")
    change(folder)
    with pytest.raises(ValueError, match=message):
        prepared(folder, tiny)


def test_unreadable_clips_are_counted(clips, tiny, tmp_path):
    """One that cannot be opened, and one that only breaks when it is read."""
    folder = shutil.copytree(clips, tmp_path / "clips")
    (folder / "tall/2.mp4").write_text("no video")
    given = settings(max_unreadable=0.25)
    task = prepared(folder, tiny, given)
    assert sum(map(len, task.parts.values())) == 11 and "tall/2.mp4" in task.unreadable[0]
    broken = task.parts["training"][0]
    broken.source.write_bytes(b"nothing any more")
    measures = trained(task, tmp_path / "out")
    assert len(measures.left_out) == 1 and broken.name in measures.left_out[0]
    assert "2 could not be used" in (tmp_path / "out/README.md").read_text("utf-8")
    with pytest.raises(ValueError, match="more than a share of 0.1"):
        prepared(folder, tiny)


def test_models_without_tokens(clips, tmp_path, tiny):
    text = vidformers.VideoPrismTextConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    text.save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="VideoPrismTextModel reads texts"):
        prepared(clips, tmp_path / "text")
    directory_of("VideoMAEModel", tmp_path / "mae")
    with pytest.raises(ValueError, match="of models of V-JEPA 2 alone: leave `out_layers` out"):
        prepared(clips, tmp_path / "mae", settings(out_layers=(0,)))
    with pytest.raises(ValueError, match="blocks from 0 to 0, got 5"):
        prepared(clips, tiny, settings(out_layers=(5,)))


# ------------------------------------------------------------------------------------------------------- anticipation


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Path:
    """Four videos of a second and a half with three actions each, of two verbs and two nouns."""
    folder = tmp_path_factory.mktemp("kitchen")
    with open(folder / "actions.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "start_frame", "stop_frame", "verb_class", "noun_class", "verb", "noun"])
        for number in range(4):
            (folder / f"P0{number}/videos").mkdir(parents=True)
            write_video(folder / f"P0{number}/videos/P0{number}_1.MP4", num_frames=40, height=32, width=48)
            for start, verb, noun in ((10, 3, 7), (20, 3, 9), (30, 5, 7)):
                words = {3: "take", 5: "put", 7: "plate", 9: "cup"}
                table.writerow([f"P0{number}_1", start, start + 8, verb, noun, words[verb], words[noun]])
        table.writerow(["P09_1", 5, 9, 3, 7, "take", "plate"])  # of a video that is not there
    return folder


@pytest.mark.parametrize("original", [False, True], ids=["honest", "as the original"])
def test_actions_are_anticipated(kitchen, tiny, tmp_path, original):
    make = probe.Settings.original if original else probe.Settings
    given = make(epochs=2, batch_size=2, rates=(1e-2, 1e-3), decays=(0.1,), layers=0, loss="focal")
    task = prepared(kitchen / "actions.csv", tiny, given, validation_share=0.25, test_share=0.25)
    assert task.classes == ("take plate", "take cup", "put plate")
    assert [len(found) for found in task.parts.values()] == ([9, 3, 0] if original else [6, 3, 3])
    measures = trained(task, tmp_path / "out")
    kinds = {f"{name}_{kind}" for name in ("action", "verb", "noun") for kind in ("recall", "top5")}
    assert set(measures.validation) == kinds and measures.validation["action_top5"] == 1.0  # there are but three
    model = VJEPA2ForActionAnticipation.from_pretrained(tmp_path / "out").eval()
    assert (model.config.num_labels, model.config.num_verb_labels, model.config.num_noun_labels) == (3, 2, 2)
    data = PreparedClips(task.parts["validation"], task.prepare_of("validation"))
    _, inputs, _ = stacked([data[index] for index in range(3)])
    assert inputs["anticipation_times"].tolist() == [1.0] * 3
    with torch.no_grad():
        logits = model(**inputs).verb_logits
        expected = task.model.probe_output(encode(task.model, inputs)).verb_logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert "action recall" in (tmp_path / "out/README.md").read_text("utf-8")


@pytest.mark.parametrize("augment", [False, True], ids=["kept", "drawn"])
def test_videos_that_are_too_slow(kitchen, tiny, tmp_path, augment):
    """They open, and no clip can be taken of them: left out, counted and named, as those that cannot be read."""
    folder = shutil.copytree(kitchen, tmp_path / "kitchen")
    given = settings(augment=augment, max_unreadable=0.25)
    slow = prepared(folder / "actions.csv", tiny, given, test_share=0).parts["training"][0].source
    write_video(slow, num_frames=40, height=32, width=48, rate=5)
    measures = trained(prepared(folder / "actions.csv", tiny, given, test_share=0), tmp_path / "out")
    assert len(measures.left_out) == 3 and len(measures.epochs) == 2
    for reason in measures.left_out:
        assert (
            reason.startswith(f"{slow.stem}, frames ") and "Expected `fps` of at most the video's 5, got 8" in reason
        )
    assert "3 could not be used" in (tmp_path / "out/README.md").read_text("utf-8")
    few = replace(given, max_unreadable=0.1)
    with pytest.raises(ValueError, match="of 12 clips cannot be used, more than a share of 0.1"):
        trained(prepared(folder / "actions.csv", tiny, few, test_share=0), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_used_counts_together(clips, tiny, tmp_path):
    """Files that cannot be opened, and clips of any part that cannot be read."""
    folder = shutil.copytree(clips, tmp_path / "clips")
    (folder / "tall/2.mp4").write_text("no video")
    task = prepared(folder, tiny, settings(max_unreadable=0.1))
    task.parts["validation"][0].source.write_bytes(b"nothing any more")
    with pytest.raises(ValueError, match="2 of 12 clips cannot be used, more than a share of 0.1"):
        trained(task, tmp_path / "out")


def test_the_settings_of_the_original(kitchen, clips):
    assert [kind_of(source) for source in (clips, kitchen / "actions.csv")] == ["videos", "actions"]
    given = probe.Settings.original("actions", layers=1)
    assert (given.loss, given.decays, given.layers, given.augment) == ("focal", (1e-4, 1e-3, 0.01, 0.1), 1, True)


def test_clips_of_any_length(clips, tmp_path):
    """A video of three frames has eight segments, too."""
    clip = Clip("0", 0, write_video(tmp_path / "0.mp4", num_frames=3, height=32, width=48))
    views = ClipViews(VJEPA2VideoProcessor(crop_size=32), 4, segments=8, frame_step=4)
    for prepare in (views, replace(views, drawn=True, augment=True)):
        _, inputs = PreparedClips([clip], prepare)[0]
        assert inputs["pixel_values_videos"].shape == (1, 8, 4, 3, 32, 32)


def test_annotations_that_are_none(kitchen, tiny, clips, tmp_path):
    rows = (kitchen / "actions.csv").read_text("utf-8").splitlines()
    (tmp_path / "actions.csv").write_text("\n".join(row.replace("stop_frame", "end") for row in rows))
    with pytest.raises(ValueError, match="has no column stop_frame"):
        prepared(tmp_path / "actions.csv", tiny)
    (tmp_path / "actions.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="holds no video of the annotations of P0"):
        prepared(tmp_path / "actions.csv", tiny)
    (tmp_path / "actions.csv").write_text("\n".join(rows[:4]))
    with pytest.raises(ValueError, match="by whole videos.*got P00_1 alone"):
        prepared(tmp_path / "actions.csv", tiny)
    directory_of("VideoMAEModel", tmp_path / "mae")
    with pytest.raises(ValueError, match="by models of V-JEPA 2 alone"):
        prepared(kitchen / "actions.csv", tmp_path / "mae")
    (tmp_path / "list.csv").write_text("path,kind\na.mp4,x\n")
    with pytest.raises(ValueError, match="expected a column `label` beside that of the paths"):
        prepared(tmp_path / "list.csv", tiny)
