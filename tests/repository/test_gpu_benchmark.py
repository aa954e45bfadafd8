"""The run on a GPU, with tiny models on the CPU: every part works, failures are recorded, and a run resumes."""

import json
import sys
from pathlib import Path

import pytest
import torch


FOLDER = Path(__file__).parents[2] / "utils/benchmarks"
sys.path.insert(0, str(FOLDER))

import gpu  # noqa: E402
import gpu_report  # noqa: E402
import gpu_speed  # noqa: E402
from gpu_timing import Setting, interleave  # noqa: E402


TINY = Setting(torch.device("cpu"), quick=True)
# One that looks at every model, or compiles one.
SLOW = ("correctness", "compiled", "speed")


def records(part: str, names: list[str]) -> dict:
    """What the named cases of a part record, as read from a file."""
    cases = gpu.PARTS[part].cases(TINY)
    return {name: {"result": json.loads(json.dumps(cases[name]()))} for name in names}


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.slow] * (part in SLOW)) for part in gpu.PARTS if part != "original"]
)
def test_first_case_of_a_part(part, tmp_path):
    name = next(iter(gpu.PARTS[part].cases(TINY)))
    found = {part: records(part, [name])}

    assert gpu_report.line(found[part][name]["result"])
    page = gpu_report.markdown({"parts": found, "machine": "a machine", "date": "today"})
    assert name.removesuffix(", vidformers") in page
    gpu_report.plots(found, tmp_path)


@pytest.mark.parametrize("name", ["PE Video large, 16, 8, 4, 2 × 336²", "V-JEPA 2-AC, 16 plans of 4 steps"])
def test_models_that_are_called_in_another_way(name):
    result = gpu_speed.measure(gpu_speed.MODELS[name], TINY)
    assert result["tflop"] > 0
    assert result["calls"]["vidformers"]["ms"] > 0


def test_both_libraries_compute_the_same():
    result = gpu_speed.measure(gpu_speed.MODELS["VideoMAE ViT-B, 1 × 16 × 224²"], TINY)
    assert 0 <= result["calls"]["transformers"]["distance"] < 0.02  # 0 where both call the same kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", {make.func: name for name, make in gpu_speed.MODELS.items()}.values())
def test_a_model_of_each_kind(name):
    """Sizes differ on a GPU alone."""
    gpu_speed.measure(gpu_speed.MODELS[name], TINY)


def test_a_run_goes_on_after_a_failure_and_resumes(monkeypatch, tmp_path):
    ran = []

    def case(name: str):
        def run() -> dict:
            ran.append(name)
            if name == "broken" and ran.count(name) == 1:
                raise ValueError("out of paper")
            return {"worst": 0.5, "limit": 1.0, "missed": []}

        return run

    parts = {"recordings": gpu.Part(lambda setting: {name: case(name) for name in ("broken", "whole")}, 10)}
    parts["numbers"] = gpu.Part(lambda setting: 1 / 0, 10)
    monkeypatch.setattr(gpu, "PARTS", parts)
    command = ["--out", str(tmp_path), "--device", "cpu"]

    first = gpu.main(command).records
    assert first["recordings"]["broken"]["failed"] == "ValueError: out of paper"
    assert first["recordings"]["whole"]["result"]["worst"] == 0.5
    assert "division by zero" in first["numbers"]["the part itself"]["failed"]
    assert "out of paper" in (tmp_path / "tables.md").read_text("utf-8")

    again = gpu.main(command).records
    assert ran == ["broken", "whole", "broken"]
    assert "failed" not in again["recordings"]["broken"]
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["parts"] == json.loads(json.dumps(again))


def test_nothing_is_begun_when_time_is_up(tmp_path):
    run = gpu.main(["--out", str(tmp_path), "--device", "cpu", "--minutes", "0", "--only", "rates"])
    assert run.records == {"rates": {}}


def test_results_of_another_machine_are_left_alone(tmp_path):
    (tmp_path / "results.json").write_text('{"machine": "another", "parts": {}}', "utf-8")
    with pytest.raises(SystemExit, match="another machine"):
        gpu.main(["--out", str(tmp_path), "--device", "cpu", "--only", "rates"])


def test_rounds_take_turns():
    calls = []
    samples = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, torch.device("cpu"))
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    assert [len(values) for values in samples.values()] == [3, 3]
