"""FSDP2 on two processes: the same loss and gradients as the whole model in one."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from tests.harness.fresh import run_in_two_processes
from tests.harness.modeling import gradients, training_inputs
from tests.harness.tolerances import GRADIENTS

from .every_model import CASES, build


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow, pytest.mark.xdist_group("fsdp")]

PROCESSES = 2


def work(rank: int, folder: str) -> None:
    """Shard and train every model; what is wrong with each goes into a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    mesh, found = init_device_mesh("cpu", (PROCESSES,)), {}
    for spec, model in CASES:
        try:
            found[model.label] = faults(spec, model, mesh)
        except Exception as error:  # to be told with the model's name
            found[model.label] = [f"{type(error).__name__}: {error}"]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def faults(spec, model, mesh) -> list[str]:
    inputs = training_inputs(spec, model)
    expected = gradients(build(spec, model).train(), model, inputs)
    sharded = build(spec, model).train()
    for block in sharded.modules():
        if isinstance(block, GradientCheckpointingLayer):
            fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    halves = [parameter for parameter in sharded.parameters() if parameter.to_local().numel() < parameter.numel()]
    wrong = [] if halves else ["nothing is sharded"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # outputs in which FSDP finds no tensors, for one
        warnings.filterwarnings("ignore", ".*returned a view tensor")  # fine for who changes no output in place
        actual = gradients(sharded, model, inputs)
    for name, gradient in expected.items():
        if (gradient is None) != (actual[name] is None):
            wrong.append(f"{name}: a gradient on one side alone")
        elif gradient is not None:
            difference = (actual[name].full_tensor() - gradient).abs().max().item()
            if not difference <= GRADIENTS.limit(gradient):
                wrong.append(f"{name}: off by {difference}")
    return wrong


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    run_in_two_processes(work, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets through a file here")
@pytest.mark.parametrize("label", [model.label for _, model in CASES])
def test_fully_shard(found, label):
    assert [wrong[label] for wrong in found] == [[], []]
