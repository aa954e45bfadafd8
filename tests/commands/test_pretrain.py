"""`vidformers pretrain`: models learn from videos without labels, on one process or two, and go on after a stop."""

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor
from transformers.modeling_layers import GradientCheckpointingLayer
from typer.testing import CliRunner

import vidformers
from tests.commands.test_finetune import VIDEOMAE, fake_datasets
from tests.harness.fresh import run_in_two_processes, succeed_afresh
from tests.video_files import write_video
from vidformers import VJEPA2Config, VJEPA2ForPreTraining, VJEPA2Model, VJEPA2VideoProcessor, load_original
from vidformers.commands import pretrain as job
from vidformers.commands.cli import app
from vidformers.conversion import reverse_directory
from vidformers.inference.labeled_clips import Clip, find_unlabeled
from vidformers.training.batches import ClipBatches, ClipReader
from vidformers.training.pretraining import DivergedError


VJEPA2 = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "drop_path_rate": 0.2}
VJEPA2 |= {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
VJEPA2 |= {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "pred_num_mask_tokens": 2}
SHORT = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "frame_step": 1}
QUICK = {"workers": 0, "log_every": 1}


def run(*arguments, expect: int = 0) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["pretrain", *map(str, arguments), "--workers", "0"])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder of five videos."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(5):
        write_video(folder / f"{index}.mp4", num_frames=8 + index, height=40, width=48)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A directory of a V-JEPA 2."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**VJEPA2)).save_pretrained(folder)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def numbers_of(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Records without what no two runs have alike."""
    return [{name: each for name, each in record.items() if name != "seconds_per_step"} for record in history]


# ------------------------------------------------------------------------------------------------------ what it writes


def test_what_is_written_and_told(videos, tiny, tmp_path):
    output = run(videos, "--model", tiny, "--out", tmp_path / "out", "--steps", 4, "--batch-size", 4, "--log-every", 2)
    assert "Videos: 5 in" in output and "New: teacher (36 tensors). Left out: nothing." in output
    assert "step 4: loss" in output and "targets: std" in output
    encoder, model = (each.from_pretrained(tmp_path / "out") for each in (AutoModel, AutoModelForPreTraining))
    assert type(encoder) is VJEPA2Model and type(model) is VJEPA2ForPreTraining
    weights = weights_of(tmp_path / "out")
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert torch.equal(encoder.encoder.layernorm.weight, model.vjepa2.encoder.layernorm.weight)
    assert not torch.equal(model.teacher.layernorm.weight, model.vjepa2.encoder.layernorm.weight)
    assert AutoVideoProcessor.from_pretrained(tmp_path / "out").crop_size == {"height": 32, "width": 32}
    record = json.loads((tmp_path / "out/training.json").read_text())
    assert [each["step"] for each in record["history"]] == [2, 4] and record["recipe"]["steps"] == 4
    assert record["recipe"]["num_frames"] == 4 and record["recipe"]["crop_size"] == 32
    with Image.open(tmp_path / "out/pretraining.png") as picture:
        assert len(set(picture.convert("RGB").resize((64, 64)).get_flattened_data())) > 10
    assert not (tmp_path / "out.training").exists()


def test_json_lines(videos, tiny, tmp_path):
    options = "--model", tiny, "--out", tmp_path / "out", "--steps", 3, "--batch-size", 2, "--log-every", 1, "--json"
    records = [json.loads(line) for line in run(videos, *options).splitlines() if line.startswith("{")]
    assert [record["step"] for record in records] == [1, 2, 3]
    expected = {"loss", "prediction_loss", "learning_rate", "weight_decay", "momentum", "gradient_norm"}
    assert expected | {"target_std", "target_effective_rank", "unusable"} <= records[0].keys()


def test_the_original_file_and_back(videos, tiny, tmp_path):
    job.pretrain(job.prepare([videos], model=tiny, changes=SHORT), tmp_path / "out", **QUICK)
    reverse_directory(tmp_path / "out", tmp_path / "latest.pt")
    file = torch.load(tmp_path / "latest.pt", weights_only=True)
    assert file.keys() == {"encoder", "predictor", "target_encoder"}
    assert all(name.startswith("module.backbone.") for part in file.values() for name in part)
    heads = {"num_attention_heads": 2, "pred_num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4}
    again = load_original(tmp_path / "latest.pt", model_class=VJEPA2ForPreTraining, **heads).state_dict()
    weights = weights_of(tmp_path / "out")
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)
    teacher = load_original(tmp_path / "latest.pt", **heads)  # as evaluations load it
    assert torch.equal(teacher.encoder.layernorm.weight, weights["teacher.layernorm.weight"])


def test_videomae(videos, tmp_path):
    vidformers.VideoMAEForPreTraining(vidformers.VideoMAEConfig(**VIDEOMAE)).save_pretrained(tmp_path / "model")
    vidformers.VideoMAEVideoProcessor(crop_size=32, num_frames=4).save_pretrained(tmp_path / "model")
    options = "--model", tmp_path / "model", "--objective", "videomae", "--set", 'masks=[{"mask_ratio": 0.5}]'
    options = *options, "--set", "frame_step=1", "--steps", 2, "--batch-size", 2, "--out", tmp_path / "out"
    output = run(videos, *options)
    assert "VideoMAEForPreTraining" in output and "step 2: loss" in output and "targets" not in output
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path / "out")) is vidformers.VideoMAEForPreTraining


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_precision_checkpointing_and_trackers(videos, tiny, tmp_path, precision):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    logged = []

    class Tracker(pytest.importorskip("accelerate.tracking").GeneralTracker):
        name, requires_logging_directory = "kept", False

        def __init__(self):
            super().__init__(_blank=True)

        tracker = property(lambda self: logged)

        def store_init_configuration(self, values):
            logged.append(values)

        def log(self, values, step=None, **_):
            logged.append({"step": step, **values})

    task = job.prepare([videos], model=tiny, changes=SHORT)
    options = {"precision": precision, "checkpointing": True, "micro_batch": 2, "trackers": [Tracker()]}
    history = job.pretrain(task, tmp_path / "out", **QUICK, **options)
    AcceleratorState._reset_state(True)
    assert logged[0]["batch_size"] == 4 and [each["step"] for each in logged[1:]] == [1, 2, 3, 4, 5, 6]
    assert logged[-1]["loss"] == history[-1]["loss"] and np.isfinite(history[-1]["loss"])
    assert {each.dtype for each in weights_of(tmp_path / "out").values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------- stops and processes


def test_a_stopped_training_goes_on_bit_for_bit(videos, tiny, tmp_path):
    """The model drops paths, so that the state of the random numbers matters, too."""

    def go(out: str, **options: Any) -> list[dict[str, float]]:
        task = job.prepare([videos], model=tiny, changes=SHORT | options.pop("changes", {}))
        return job.pretrain(task, tmp_path / out, micro_batch=2, save_every=3, **QUICK, **options)

    def stop(record):
        if record["step"] == 5:
            raise KeyboardInterrupt

    whole = go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("out", on_record=stop)
    assert not (tmp_path / "out").exists()
    assert [each.name for each in (tmp_path / "out.training").glob("step_*")] == ["step_00000003"]
    with pytest.raises(ValueError, match="Pass --resume to go on"):
        go("out")
    with pytest.raises(ValueError, match="of another task: recipe was"):
        go("out", resume=True, changes={"learning_rate": 2e-3})
    (tmp_path / "out.training/.vidformers-unfinished-killed").mkdir()  # a checkpoint that was not finished
    torch.manual_seed(99)
    resumed = go("out", resume=True)
    assert numbers_of(resumed) == numbers_of(whole)
    expected, actual = weights_of(tmp_path / "whole"), weights_of(tmp_path / "out")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert not (tmp_path / "out.training").exists()


KILLED = """
import json, os, signal, sys
from vidformers.commands.cli import main

read, write = os.pipe()
child = os.fork()
if not child:
    os.dup2(write, 1)
    main()
os.close(write)
with open(read) as lines:
    while json.loads(lines.readline())["step"] < 4:
        pass
    os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_killed_training_goes_on(videos, tiny, tmp_path):
    """By the command, with workers; the process gets no chance to clean up."""
    options = "--model", tiny, "--steps", 6, "--batch-size", 4, "--set", "frame_step=1", "--log-every", 1
    options = *options, "--save-every", 3, "--json"
    succeed_afresh(KILLED, "pretrain", videos, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
    run(videos, "--out", tmp_path / "out", *options, "--resume")
    run(videos, "--out", tmp_path / "whole", *options)
    expected, actual = weights_of(tmp_path / "whole"), weights_of(tmp_path / "out")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def work(rank: int, port: str, videos: str, model: str, out: str) -> None:
    """One of two processes of a training."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    task = job.prepare([videos], model=model, changes=SHORT | {"batch_size": 8})
    job.pretrain(task, out, micro_batch=2, save_every=2, **QUICK)


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.skipif(sys.platform == "win32", reason="needs gloo")
def test_two_processes_compute_what_one_does(videos, tmp_path):
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**VJEPA2 | {"drop_path_rate": 0.0})).save_pretrained(tmp_path / "model")
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(tmp_path / "model")
    task = job.prepare([videos], model=tmp_path / "model", changes=SHORT | {"batch_size": 8})
    one = job.pretrain(task, tmp_path / "one", micro_batch=2, **QUICK)
    port = 20000 + os.getpid() % 20000
    run_in_two_processes(work, port, videos, tmp_path / "model", tmp_path / "two")
    two = json.loads((tmp_path / "two/training.json").read_text())["history"]
    assert len(one) == len(two) == 6
    for mine, theirs in zip(numbers_of(one), numbers_of(two), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    expected, actual = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-5)


def share_out(rank: int, folder: str) -> None:
    """One of two processes of a training with sharded parameters; writes how far it is from one that isn't sharded."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    context, target = torch.arange(8).expand(2, -1), torch.arange(8, 32).expand(2, -1)
    weights = []
    for sharded in (False, True):
        torch.manual_seed(0)
        model = VJEPA2ForPreTraining(VJEPA2Config(**VJEPA2 | {"drop_path_rate": 0.0})).train()
        if sharded:
            for block in model.modules():
                if isinstance(block, GradientCheckpointingLayer):
                    fully_shard(block, mesh=init_device_mesh("cpu", (2,)))
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        optimizer = torch.optim.AdamW(model.parameter_groups(0.04), lr=1e-3)
        for _ in range(3):
            model(clips, context, target).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.update_teacher(0.9)
        weights.append(
            {name: getattr(each, "full_tensor", lambda e=each: e)() for name, each in model.state_dict().items()}
        )
    furthest = max((weights[0][name] - each).abs().max().item() for name, each in weights[1].items())
    Path(folder, f"{rank}.json").write_text(json.dumps(furthest))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets through a file here")
def test_a_sharded_teacher_follows(tmp_path):
    """FSDP2 as accelerate applies it, which does so on accelerators alone."""
    run_in_two_processes(share_out, tmp_path)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) <= 1e-6 for rank in range(2)] == [True, True]


def test_a_loss_that_is_no_number(videos, tiny, tmp_path, monkeypatch):
    read, clips = ClipReader.__call__, []

    def spoil(self, video):
        clips.append(video.name)
        return read(self, video) * (torch.nan if len(clips) == 11 else 1.0)

    monkeypatch.setattr(ClipReader, "__call__", spoil)
    task = job.prepare([videos], model=tiny, changes=SHORT)
    with pytest.raises(DivergedError, match="In step 3 loss and gradient_norm came out as nan and nan"):
        job.pretrain(task, tmp_path / "out", **QUICK)
    (state,) = (tmp_path / "out.training").glob("step_*")
    kept = json.loads((state / "progress.json").read_text())
    assert kept["step"] == 2 and kept["videos"] == clips[8:12] and len(kept["history"]) == 2
    assert all(value.isfinite().all() for value in weights_of(state).values())
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------------- bad input


def refused(tmp_path, *arguments) -> str:
    output = run(*arguments, "--out", tmp_path / "out", expect=1)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.training").exists()
    return " ".join(output.split())


def test_sources_that_are_none(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no video" in refused(tmp_path, tmp_path / "empty", "--model", tiny)
    assert "there is no such file" in refused(tmp_path, tmp_path / "absent.csv", "--model", tiny)
    (tmp_path / "list.csv").touch()
    assert "got no line" in refused(tmp_path, tmp_path / "list.csv", "--model", tiny)


def test_settings_that_cannot_be(videos, tiny, tmp_path):
    def message(*options) -> str:
        return refused(tmp_path, videos, "--model", tiny, *options)

    assert "`momentum`, the share that the teacher keeps of itself, from 0 to 1, got 1.5" in message("--momentum", 1.5)
    assert "A recipe has no rate to set. It has anneal_steps, batch_size" in message("--set", "rate=1")
    assert "Expected FIELD=VALUE" in message("--set", "rate")
    assert "There is no recipe 'vjepa3'. There are vjepa2-vitl-cooldown" in message("--recipe", "vjepa3")
    assert "Expected a weight for each of 1 sources" in message("--weight", 0.5, "--weight", 0.5)
    assert "`schedule` to be one of warmup_cosine" in message("--set", "schedule=linear")
    masks = '[{"num_blocks": 1, "spatial_scale": [1.0, 1.0], "aspect_ratio": [1.0, 1.0]}]'
    assert "leave no context: lower `spatial_scale`" in message("--set", f"masks={masks}")
    assert "No model to" not in message("--set", "fps=4", "--set", "frame_step=4")
    assert "Say what to train" in refused(tmp_path, videos)
    assert "This recipe goes on from a model" in refused(tmp_path, videos, "--objective", "vjepa2")
    task = job.prepare([videos], model=tiny, changes=SHORT)
    with pytest.raises(ValueError, match="a multiple of the clips that 1 processes take at once \\(3 each\\), got 4"):
        job.pretrain(task, tmp_path / "out", micro_batch=3)


def test_models_of_other_families(videos, tiny, tmp_path):
    text = refused(tmp_path, videos, "--model", tiny, "--objective", "videomae")
    assert f"the objective videomae is of videomae; the model {tiny} is of vjepa2" in text
    recipe = "--recipe", "videomae-base-k400-1600e"
    assert "is of vjepa2" in refused(tmp_path, videos, "--model", tiny, *recipe)
    config = vidformers.VideoPrismTextConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    config.save_pretrained(tmp_path / "text")
    text = refused(tmp_path, videos, "--model", tmp_path / "text")
    assert "can be pre-trained here; those of vjepa2, videomae can" in text
    assert "Expected an objective among vjepa2, videomae" in refused(tmp_path, videos, "--objective", "clip")


def test_few_unusable_videos_are_passed_over(videos, tiny, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/broken.mp4").write_text("no video")
    write_video(tmp_path / "videos/short.mp4", num_frames=3, height=40, width=48)
    told = []
    task = job.prepare([tmp_path / "videos"], model=tiny, changes=SHORT)
    history = job.pretrain(task, tmp_path / "out", on_unusable=told.append, **QUICK)
    assert history[-1]["unusable"] == len(told) > 4
    assert any("short.mp4: has 3 frames, fewer than the 4 of a clip" in reason for reason in told)
    assert any("broken.mp4" in reason for reason in told)


def test_many_unusable_videos_end_it(videos, tiny, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/broken.mp4").write_text("no video")
    task = job.prepare([tmp_path / "videos"], model=tiny, changes=SHORT | {"steps": 30})
    with pytest.raises(ValueError, match="Of 5. videos that were tried .* cannot be used, more than the share of 0.1"):
        job.pretrain(task, tmp_path / "out", **QUICK)


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_frames": 20}, "fewer than the 20"), ({"fps": 60}, "`fps`=60")]
)
def test_videos_of_which_none_is_long_or_fast_enough(videos, tiny, tmp_path, changes, message):
    task = job.prepare([videos], model=tiny, changes=SHORT | {"frame_step": None, "fps": 25} | changes)
    with pytest.raises(ValueError, match=f"None of 10 videos that were tried.*\n.*{message}"):
        job.pretrain(task, tmp_path / "out", **QUICK)


# ------------------------------------------------------------------------------------------------------------- sources


def test_lists_of_the_originals(tmp_path):
    (tmp_path / "list.csv").write_text("a b.mp4 0\n/videos/c.mp4 3\n")
    expected = [Clip(str(file), 0, file) for file in (tmp_path / "a b.mp4", Path("/videos/c.mp4"))]
    assert find_unlabeled(tmp_path / "list.csv") == expected
    (tmp_path / "list.csv").write_text("a b.mp4\n/videos/c.mp4\n")
    assert find_unlabeled(tmp_path / "list.csv") == expected
    (tmp_path / "list.csv").write_text("label,path\n0,a b.mp4\n1,/videos/c.mp4\n")
    assert find_unlabeled(tmp_path / "list.csv") == expected


def test_data_sets(videos, tmp_path, monkeypatch):
    files = sorted(videos.glob("*.mp4"))
    fake = fake_datasets(files)
    rows = fake.load_dataset("someone/clips", "validation")
    type(rows).__len__ = lambda self: len(files)
    fake.DatasetDict, fake.load_from_disk = dict, lambda folder: {"train": rows}
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (tmp_path / "dataset_dict.json").touch()
    for source in ("someone/clips:validation", tmp_path):
        clips = find_unlabeled(source)
        assert len(clips) == 5 and clips[3].open() == files[3].read_bytes()
        assert clips[3].name == f"{source}[3]"


# ------------------------------------------------------------------------------------------------------------- batches


class Numbers:
    """Makes batches of numbers and a random one, in the place of a model's collator."""

    step = 0

    def model_inputs(self, samples):
        numbers = [int(sample["pixel_values_videos"]) for sample in samples]
        return {"numbers": numbers, "drawn": torch.rand(1).item(), "step": self.step}


def batches(sizes=(10,), weights=(1.0,), batch_size=4, **options) -> ClipBatches:
    sources = [
        [Clip(f"{source}/{index}", 0, 100 * source + index) for index in range(n)] for source, n in enumerate(sizes)
    ]
    return ClipBatches(sources, weights, lambda clip: torch.tensor(clip.open()), Numbers(), batch_size, **options)


def test_batches_follow_from_their_numbers():
    made = [batches()[number]["inputs"] for number in range(5)]
    again = batches()
    assert [again[number]["inputs"] for number in (4, 2, 3, 0, 1)] == [made[number] for number in (4, 2, 3, 0, 1)]
    assert len({each["drawn"] for each in made}) == 5
    numbers = [number for each in made for number in each["numbers"]]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10)) and numbers[:10] != numbers[10:]
    assert [batches(seed=1)[number]["inputs"]["numbers"] for number in range(5)] != [each["numbers"] for each in made]
    assert [batches(per_step=2)[number]["inputs"]["step"] for number in range(4)] == [0, 0, 1, 1]


def test_batches_leave_the_random_numbers_of_others():
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    batches()[3]
    assert (torch.rand(1).item(), np.random.rand()) == expected


def test_sources_have_their_shares():
    made = batches((100, 5), (0.25, 0.75))
    numbers = [number for index in range(100) for number in made[index]["inputs"]["numbers"]]
    assert np.mean([number >= 100 for number in numbers]) == pytest.approx(0.75, abs=0.06)


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.slow
def test_training_trains(shapes, tmp_path, monkeypatch):
    """A linear probe tells colors by the features of a model that has learned better than by those of a new one.

    docs/pretrain.md has the accuracies of three longer trainings.
    """
    monkeypatch.syspath_prepend(Path(shapes.__file__).parent)
    demo = import_module("pretrain")
    found = demo.compare(tmp_path / "state", seed=0, videos=1000, probed=500, steps=150, warmup_steps=20, momentum=0.9)
    assert found["after"]["color"] > found["before"]["color"] + 0.1
    assert found["history"][-1]["loss"] < found["history"][0]["loss"]
    assert found["history"][-1]["target_effective_rank"] > 10  # it has not collapsed
