"""`vidformers pretrain`: models learn from videos without labels, on one process or two, and go on after a stop."""

import copy
import json
import os
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
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
from vidformers.inference.labeled_clips import find_unlabeled
from vidformers.inference.media import IMAGES, Clip
from vidformers.models.records import ImageRecipe
from vidformers.training.batches import ClipBatches, ClipReader, ImageReader
from vidformers.training.pretraining import DivergedError, PreTrainer, share_out


VJEPA2 = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "drop_path_rate": 0.2}
VJEPA2 |= {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
VJEPA2 |= {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "pred_num_mask_tokens": 2}
LEVELS = {"use_rope_interleave": True, "interpolate_rope": True, "pred_interpolate_rope": True}
LEVELS |= {"use_modality_embeddings": True, "use_image_patch_embedder": True, "use_context_projection": True}
LEVELS |= {"hierarchical_layers": [0, 1], "num_distillation_outputs": 2, "drop_path_rate": 0.0}
SHORT = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "frame_step": 1}
QUICK = {"workers": 0, "log_every": 1}
MIXED = {"recipe": "vjepa2.1-vitl-cooldown"}
SHORT_MIXED = SHORT | {"num_frames": 4, "crop_size": 32, "images": {"batch_size": 8, "crop_size": 32}}


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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of six images, some in folders, with palettes or without colors."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, mode in enumerate(("RGB", "RGBA", "L", "P", "RGB", "CMYK")):
        pixels = np.random.default_rng(index).integers(0, 256, (30 + index, 44, 3), np.uint8)
        place = folder / ("inside" if index % 2 else ".") / f"{index}.{'jpg' if mode == 'CMYK' else 'png'}"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(place)
    return folder


@pytest.fixture(scope="module")
def tiny_2_1(tmp_path_factory) -> Path:
    """A directory of a V-JEPA 2.1."""
    folder = tmp_path_factory.mktemp("tiny21")
    torch.manual_seed(0)
    VJEPA2ForPreTraining(VJEPA2Config(**VJEPA2 | LEVELS)).save_pretrained(folder)
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
    with pytest.raises(ValueError, match="of another task: recipe.learning_rate was 0.001, now 0.002"):
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


def work(rank: int, port: str, given: str, micro_batch: str, out: str) -> None:
    """One of two processes of a training."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    job.pretrain(job.prepare(**json.loads(given)), out, micro_batch=int(micro_batch), save_every=2, **QUICK)


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.skipif(sys.platform == "win32", reason="needs gloo")
@pytest.mark.parametrize(
    ("images", "micro_batch"), [(False, 2), (True, 2), (True, 4)], ids=["clips", "images too", "a batch each"]
)
def test_two_processes_compute_what_one_does(videos, pictures, tiny_2_1, tmp_path, images, micro_batch):
    """With a batch each, one process has images and the other clips, which leave each other's parameters out."""
    given = {"sources": [str(videos)], "model": str(tmp_path / "model"), "changes": SHORT | {"batch_size": 8}}
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**VJEPA2 | {"drop_path_rate": 0.0})).save_pretrained(tmp_path / "model")
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(tmp_path / "model")
    if images:
        given |= {"model": str(tiny_2_1), "images": [str(pictures)], "changes": SHORT_MIXED, **MIXED}
    one = job.pretrain(job.prepare(**given), tmp_path / "one", micro_batch=micro_batch, **QUICK)
    port = 20000 + os.getpid() % 20000
    run_in_two_processes(work, port, json.dumps(given), micro_batch, tmp_path / "two")
    two = json.loads((tmp_path / "two/training.json").read_text())["history"]
    assert len(one) == len(two) == 6
    for mine, theirs in zip(numbers_of(one), numbers_of(two), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    expected, actual = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-5)
    states = [torch.load(tmp_path / out / "optimizer.pt", weights_only=True) for out in ("one", "two")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-5)


def shard(rank: int, folder: str) -> None:
    """One of two processes of a training with sharded parameters; writes how far it is from one that isn't sharded."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    context, target = torch.arange(8).expand(2, -1), torch.arange(8, 32).expand(2, -1)
    weights, states = [], []
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
        states.append(PreTrainer.optimizer_state(training(model, optimizer)))
    again = training(model, torch.optim.AdamW(model.parameter_groups(0.04)))
    PreTrainer._load_optimizer(again, states[1])
    states.append(PreTrainer.optimizer_state(again))
    furthest = [
        max((first[name] - each).abs().max().item() for name, each in second.items())
        for first, second in (weights, states[:2], states[1:])
    ]
    Path(folder, f"{rank}.json").write_text(json.dumps(furthest))
    dist.destroy_process_group()


def training(model: VJEPA2ForPreTraining, optimizer: torch.optim.Optimizer) -> SimpleNamespace:
    """As much of a PreTrainer as looks after its optimizer, without accelerate, which shards on accelerators alone."""
    return SimpleNamespace(bare_model=model, optimizer=optimizer, accelerator=SimpleNamespace(is_main_process=True))


@pytest.mark.slow
@pytest.mark.xdist_group("fresh")
@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets through a file here")
def test_a_sharded_teacher_follows(tmp_path):
    """And what the optimizer knows is gathered and given back. FSDP2 as accelerate applies it, which wants a GPU."""
    run_in_two_processes(shard, tmp_path)
    for rank in range(2):
        weights, states, given_back = json.loads((tmp_path / f"{rank}.json").read_text())
        assert weights <= 1e-6 and states <= 1e-6 and given_back == 0


def spoil(monkeypatch, number: int) -> list[str]:
    """Let the clip of this number be of no numbers; the names of the videos that are read from now on."""
    read, clips = ClipReader.__call__, []

    def spoiled(self, video):
        clips.append(video.name)
        return read(self, video) * (torch.nan if len(clips) == number else 1.0)

    monkeypatch.setattr(ClipReader, "__call__", spoiled)
    return clips


@pytest.mark.parametrize("save_every", [300, 2])
def test_a_loss_that_is_no_number(videos, tiny, tmp_path, monkeypatch, save_every):
    clips = spoil(monkeypatch, 11)
    task = job.prepare([videos], model=tiny, changes=SHORT)
    with pytest.raises(DivergedError, match="In step 3 loss and gradient_norm came out as nan and nan.*--skip-step"):
        job.pretrain(task, tmp_path / "out", save_every=save_every, **QUICK)
    (state,) = (tmp_path / "out.training").glob("step_*")
    kept = json.loads((state / "progress.json").read_text())
    assert kept["step"] == 2 and len(kept["history"]) == 2
    noted = json.loads((tmp_path / "out.training/diverged.json").read_text())
    assert noted == {"step": 3, "videos": clips[8:12]}
    assert all(value.isfinite().all() for value in weights_of(state).values())
    assert not (tmp_path / "out").exists()


def test_the_way_on_after_a_loss_that_is_no_number(videos, tiny, tmp_path, monkeypatch):
    def go(changes: dict[str, Any] | None = None, **options: Any) -> list[dict[str, float]]:
        task = job.prepare([videos], model=tiny, changes=SHORT | (changes or {}))
        return job.pretrain(task, tmp_path / "out", save_every=1, resume=True, **QUICK, **options)

    def stop(record):
        if record["step"] == 5:
            raise KeyboardInterrupt

    clips = spoil(monkeypatch, 11)
    with pytest.raises(DivergedError):
        job.pretrain(job.prepare([videos], model=tiny, changes=SHORT), tmp_path / "out", **QUICK)
    with pytest.raises(ValueError, match="of another task: recipe.flip was True, now False"):
        go({"flip": False, "learning_rate": 1e-4})
    clips[:] = clips[:8]  # so that it meets the same again
    with pytest.raises(DivergedError, match="In step 3 "):
        go()
    with pytest.raises(KeyboardInterrupt):
        go({"learning_rate": 1e-4}, on_record=stop)
    assert not (tmp_path / "out.training/diverged.json").exists()
    with pytest.raises(ValueError, match="recipe.learning_rate was 0.0001, now 0.001"):
        go()
    with pytest.raises(ValueError, match="There is no step to skip"):
        go({"learning_rate": 1e-4}, skip_step=True)
    history = go({"learning_rate": 1e-4})
    assert [each["learning_rate"] > 1e-4 for each in history] == [True] * 2 + [False] * 4


def test_a_step_is_skipped(videos, tiny, tmp_path, monkeypatch):
    options = "--model", tiny, "--steps", 4, "--batch-size", 4, "--log-every", 1, "--out", tmp_path / "out"
    options = *options, "--set", "frame_step=1"
    clips = spoil(monkeypatch, 11)
    assert "--skip-step" in run(videos, *options, expect=1)
    assert "is of no training that a step ended" in " ".join(
        run(videos, *options[:-4], "--out", tmp_path / "new", *options[-2:], "--skip-step", expect=1).split()
    )
    seen = len(clips)
    run(videos, *options, "--resume", "--skip-step")
    assert len(clips) == seen + 4
    history = json.loads((tmp_path / "out/training.json").read_text())["history"]
    assert [each["step"] for each in history] == [1, 2, 4]


def test_gradients_that_overflow_in_float16(videos, tiny, tmp_path, monkeypatch):
    """With accelerate's scaler, which leaves such steps out, they are no reason to stop."""
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda self, *arguments: torch.tensor(torch.inf))
    task = job.prepare([videos], model=tiny, changes=SHORT | {"steps": 1})
    accelerator = Accelerator(cpu=True)
    for scaler in (None, torch.amp.GradScaler("cpu", enabled=False)):
        accelerator.scaler = scaler
        batches = job.batches_of(task, share_out(task.recipe, None, 1))
        trainer = PreTrainer(task.model, batches, task.recipe, accelerator, tmp_path / str(scaler is None))
        if scaler is None:
            with pytest.raises(DivergedError, match="In step 1 gradient_norm came out as inf"):
                trainer.train()
        else:
            assert trainer.train()[0]["gradient_norm"] == np.inf


# ------------------------------------------------------------------------------------------- what an optimizer knew


class Later:
    """Batches from a number on."""

    def __init__(self, batches: ClipBatches, first: int):
        self.batches, self.first, self.per_step = batches, first, batches.per_step

    def __getitem__(self, number: int) -> Any:
        return self.batches[number + self.first]


def test_a_training_goes_on_with_the_optimizer_of_an_earlier_one(videos, tiny, tmp_path):
    """Two trainings, one after the other, are one of as many steps, bit for bit."""
    from accelerate import Accelerator

    constant = {"start_learning_rate": 1e-3, "final_learning_rate": 1e-3, "schedule": "warmup_cosine"}
    task = job.prepare([videos], model=tiny, changes=SHORT | constant | {"steps": 3})
    batches = job.batches_of(task, share_out(task.recipe, None, 1))
    torch.manual_seed(1)
    PreTrainer(task.model, batches, replace(task.recipe, steps=6), Accelerator(cpu=True), tmp_path).train()
    whole = {name: each.clone() for name, each in task.model.state_dict().items()}

    task = job.prepare([videos], model=tiny, changes=SHORT | constant | {"steps": 3})
    torch.manual_seed(1)
    job.pretrain(task, tmp_path / "first", **QUICK)
    after = torch.get_rng_state()
    second = job.prepare([videos], model=tmp_path / "first", changes=SHORT | constant | {"steps": 3})
    assert "The optimizer goes on" in " ".join(job.notes(second)) and second.record["optimizer"] == "goes on"
    torch.set_rng_state(after)
    trainer = PreTrainer(
        second.model,
        Later(batches, 3),
        second.recipe,
        Accelerator(cpu=True),
        tmp_path / "state",
        optimizer_state=second.optimizer_state,
    )
    trainer.train()
    assert {each.item() for name, each in trainer.optimizer_state().items() if name.endswith("/step")} == {6.0}
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_states_of_other_optimizers(videos, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model/optimizer.pt"
    name = "vjepa2.encoder.layernorm.weight"
    for state, message in (
        (
            {f"{name}/exp_avg": torch.zeros(9)},
            f"{name}/exp_avg of the shape (9,), where this one has (24,). Remove it",
        ),
        ({"head.weight/step": torch.tensor(1.0)}, "of another model, with head.weight/step"),
    ):
        torch.save(state, file)
        assert message in refused(tmp_path, videos, "--model", tmp_path / "model")
    file.write_bytes(b"no state")
    assert "cannot be read as the state of an optimizer" in refused(tmp_path, videos, "--model", tmp_path / "model")


# ---------------------------------------------------------------------------------------------- images beside videos


def mixed_task(videos, pictures, model, **changes: Any) -> job.Task:
    return job.prepare([videos], model=model, images=[pictures], changes=SHORT_MIXED | changes, **MIXED)


def test_a_step_of_clips_and_images(videos, pictures, tiny_2_1, tmp_path):
    """The mean over its batches, each with the weight of its kind for the loss of context tokens."""
    changes = {"steps": 1, "context_loss_weight": 0.25, "learning_rate": 1e-2, "batch_size": 6, "schedule_scale": 4.0}
    changes["images"] = SHORT_MIXED["images"] | {"share": 0.4, "batch_size": 4, "context_loss_weight": 0.75}
    task = mixed_task(videos, pictures, tiny_2_1, **changes)
    shares = share_out(task.recipe, 2, 1)
    assert (shares.batches, shares.image_batches, shares.images) == (3, 2, 2)
    model, batches = copy.deepcopy(task.model).train(), job.batches_of(task, shares)
    shapes, losses = [], []
    for number in range(5):
        batch = batches[number]
        weight = 0.75 if batch["of_images"] else 0.25
        losses.append(model(**batch["inputs"], context_loss_weight=weight).loss)
        shapes.append(tuple(batch["inputs"]["pixel_values_videos"].shape))
    assert shapes == [(2, 1, 3, 32, 32)] * 2 + [(2, 4, 3, 32, 32)] * 3
    (record,) = job.pretrain(task, tmp_path / "out", micro_batch=2, **QUICK)
    assert record["loss"] == pytest.approx(sum(losses).item() / 5, abs=1e-6)
    assert record["image_loss"] == pytest.approx(sum(losses[:2]).item() / 2, abs=1e-6)
    assert record["video_loss"] == pytest.approx(sum(losses[2:]).item() / 3, abs=1e-6)
    assert record["context_loss_weight"] == 0.25 and record["image_context_loss_weight"] == 0.75

    optimizer = torch.optim.AdamW(model.parameter_groups(0.04), lr=record["learning_rate"])
    (sum(losses) / 5).backward()
    optimizer.step()
    model.update_teacher(task.recipe.momentum)
    actual = weights_of(tmp_path / "out")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-5, msg=name)
    assert "pictures" not in task.record["videos"] and list(task.record["images"].values()) == [6]
    assert "| source | images |" in (tmp_path / "out/README.md").read_text()


def test_the_first_processes_have_images_as_in_the_original(videos, pictures, tiny_2_1):
    task = mixed_task(videos, pictures, tiny_2_1, images=SHORT_MIXED["images"] | {"share": 0.5})
    batches = job.batches_of(task, share_out(task.recipe, None, 4))
    assert [batches[number]["of_images"] for number in range(8)] == [True, True, False, False] * 2
    assert len({tuple(batches[number]["names"]) for number in range(8)}) > 4
    assert [batches[4]["inputs"]["context_mask"][0].shape[0] for number in (4, 6)] == [4, 4]


@pytest.mark.slow
def test_a_stopped_training_with_images_goes_on_bit_for_bit(videos, pictures, tiny_2_1, tmp_path):
    def go(out: str, **options: Any) -> list[dict[str, float]]:
        task = mixed_task(videos, pictures, tiny_2_1)
        return job.pretrain(task, tmp_path / out, micro_batch=2, save_every=3, **QUICK, **options)

    def stop(record):
        if record["step"] == 5:
            raise KeyboardInterrupt

    whole = go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("out", on_record=stop)
    assert numbers_of(go("out", resume=True)) == numbers_of(whole)
    expected, actual = weights_of(tmp_path / "whole"), weights_of(tmp_path / "out")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_images_of_another_size_than_clips(videos, pictures, tiny_2_1, tmp_path):
    """Positions are read on the grid of each, as by the original's processes."""
    task = mixed_task(videos, pictures, tiny_2_1, steps=1, images={"crop_size": 48, "batch_size": 8})
    assert task.model.config.pred_positions_from_input
    (record,) = job.pretrain(task, tmp_path / "out", **QUICK)
    assert np.isfinite(record["loss"])


def test_a_recipe_says_how_context_tokens_are_weighted(videos, tiny_2_1):
    """Whatever the model was trained with before."""
    given = {"model": tiny_2_1, "changes": {name: each for name, each in SHORT_MIXED.items() if name != "images"}}
    for recipe, weighted in (("vjepa2.1-vitl-pretrain", True), ("vjepa2.1-vitl-cooldown", False)):
        assert job.prepare([videos], recipe=recipe, **given).model.config.weight_distance_loss is weighted


def test_images_where_there_can_be_none(videos, pictures, tiny, tiny_2_1, tmp_path):
    images = "--images", pictures
    text = refused(tmp_path, videos, "--model", tiny, *images)
    assert "doesn't say how to learn from images. These do: vjepa2.1-vitb-pretrain" in text
    text = refused(tmp_path, videos, "--model", tiny, "--recipe", "vjepa2.1-vitl-cooldown", *images)
    assert "this model has no embedding of images" in text
    given = videos, "--model", tiny_2_1, "--recipe", "vjepa2.1-vitl-cooldown"
    assert "holds no images (looked for .bmp .jpeg" in refused(tmp_path, *given, "--images", videos)
    assert "for a training with images (`--images`)" in refused(tmp_path, *given, "--set", "images={}")
    small = "--batch-size", 4, "--set", "num_frames=4", "--set", "crop_size=32"
    text = refused(tmp_path, *given, *images, *small, "--micro-batch", 4, "--set", 'images={"share": 0.2}')
    assert "share of 0.2 gives 0 of images" in text


def test_images_that_cannot_be_read(videos, pictures, tiny_2_1, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    (tmp_path / "pictures/broken.png").write_bytes((pictures / "0.png").read_bytes()[:200])
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "pictures/deep.png")
    told = []
    task = mixed_task(videos, tmp_path / "pictures", tiny_2_1)
    history = job.pretrain(task, tmp_path / "out", on_unusable=told.append, most_unusable=0.5, **QUICK)
    assert history[-1]["unusable"] == len(told) > 4
    assert any("broken.png: it is no image that can be read" in reason for reason in told)
    assert any("deep.png: it has the mode I;16, not one of 8 bits" in reason for reason in told)


def test_lists_and_data_sets_of_images(pictures, tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text("a b.JPEG 0\n/images/c.png 3\n")
    expected = [str(tmp_path / "a b.JPEG"), "/images/c.png"]
    assert [clip.name for clip in find_unlabeled(tmp_path / "list.csv", IMAGES)] == expected
    files = sorted(pictures.glob("*.png"))
    fake = fake_datasets(files)
    rows = fake.load_dataset("someone/clips", "validation")
    type(rows).__len__ = lambda self: len(files)
    fake.Image, fake.load_dataset = fake.Video, lambda *arguments, **options: rows
    monkeypatch.setitem(sys.modules, "datasets", fake)
    clips = find_unlabeled("someone/pictures", IMAGES)
    assert [clip.open() for clip in clips] == [file.read_bytes() for file in files]
    reader = ImageReader(job.recipes()["vjepa2.1-vitl-cooldown"][1], ImageRecipe(0.5, 1, 32, ()))
    assert reader(clips[0]).shape == (1, 3, 32, 32)


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
    assert any(
        "short.mp4': its frames cannot be chosen (it has 3 frames, fewer than the 4 of a clip)" in reason
        for reason in told
    )
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
    found = demo.compare(tmp_path / "state", seed=0, videos=500, probed=300, steps=100, warmup_steps=20, momentum=0.9)
    assert found["after"]["color"] > found["before"]["color"] + 0.1
    assert found["history"][-1]["loss"] < found["history"][0]["loss"]
    assert found["history"][-1]["target_effective_rank"] > 10  # it has not collapsed
