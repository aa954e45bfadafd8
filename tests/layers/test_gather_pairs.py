"""Contrastive losses over several processes: each model with texts in two gloo processes and in one."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import start_processes

from tests.harness.compare import assert_close
from tests.harness.family_spec import FamilySpec, ModelSpec
from tests.harness.tolerances import REORDERED
from tests.pe_core.spec import SPEC as PE_CORE
from tests.pe_video.spec import SPEC as PE_VIDEO
from tests.videoprism.spec import SPEC as VIDEOPRISM
from vidformers.layers.losses import gather_pairs


MODELS = {"PeCoreModel": PE_CORE, "PeVideoModel": PE_VIDEO, "VideoPrismClipModel": VIDEOPRISM}
PROCESSES, PAIRS = 2, 2


def step(family: FamilySpec, model: ModelSpec, rows: slice) -> dict[str, torch.Tensor]:
    """Loss and gradients of some pairs of a batch."""
    built = family.build(model, attention="sdpa", **model.shallow).train()
    inputs = family.inputs(model, PAIRS)
    batch = {name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    loss = built(**batch, return_loss=True).loss
    loss.backward()
    found = {name: weight.grad for name, weight in built.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **found}


def join(rank: int, folder: str) -> None:
    store = distributed.FileStore(os.path.join(folder, "store"), PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)


def work(rank: int, folder: str) -> None:
    """One pair a process, and the mean of the gradients, as data-parallel training takes it."""
    torch.set_num_threads(1)
    join(rank, folder)
    for name, family in MODELS.items():
        model = next(model for model in family.models if model.name == name)
        found = step(family, model, slice(rank, rank + 1))
        for value in found.values():
            distributed.all_reduce(value)
            value /= PROCESSES
        if rank == 0:
            torch.save(found, Path(folder) / f"{name}.pt")
    message = ""
    try:
        gather_pairs(torch.zeros(1 + rank, 2), torch.zeros(1 + rank, 2))
    except ValueError as error:
        message = str(error)
    assert "got (videos, texts) of (1, 1), (2, 2)" in message
    distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    start_processes(work, (str(tmp_path),), nprocs=PROCESSES, start_method="fork")
    for name, family in MODELS.items():
        model = next(model for model in family.models if model.name == name)
        expected, found = step(family, model, slice(None)), torch.load(tmp_path / f"{name}.pt", weights_only=True)
        alone = step(family, model, slice(0, 1))
        assert abs(alone["loss"] - expected["loss"]) > 1e-3, "the other pair changes nothing"
        assert_close(f"{name}: loss", {"loss": expected.pop("loss")}, {"loss": found.pop("loss")}, REORDERED)
        assert_close(f"{name}: gradients", expected, found, REORDERED)


def test_one_process_gathers_nothing():
    pair: tuple[Any, Any] = (torch.zeros(2, 3), torch.zeros(1, 3))
    assert all(a is b for a, b in zip(gather_pairs(*pair), pair))
