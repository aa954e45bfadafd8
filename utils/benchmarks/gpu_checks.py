"""The parts of `gpu.py` that ask whether results are right, and whether a forward pass waits for the device.

Models and inputs are those of the tests, and so are the tolerances. Results are compared with those of eager attention
in float32 on the CPU, single attention calls with float64.
"""

import json
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from gpu_timing import Call, Setting, distance, extra_mib, interleave, summary
from safetensors.torch import load_file
from torch import nn

from tests.harness.compare import compare
from tests.harness.family_spec import FamilySpec, GoldenCase, GoldenRun, ModelSpec, all_states, to_device, to_dtype
from tests.harness.tolerances import DTYPE_GRADIENTS, DTYPES, Tolerance
from tests.specs import SPECS
from vidformers import load_original
from vidformers.layers.attention import Inputs, _by_query_blocks, _eager, attention
from vidformers.layers.cpu import attention_in_blocks


GOLDENS = Path(__file__).parents[2] / "tests/goldens"
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
HEAD_DIMS = (64, 88, 80, 72)
SOFTCAP = 50.0


def backends() -> tuple[str, ...]:
    """What can compute attention here."""
    return ("eager", "sdpa", "flex_attention", *(name for name, package in FLASH.items() if find_spec(package)))


# --------------------------------------------------------------------------------------------------------- attention


class Layer(nn.Module):
    """What `attention` reads of an attention layer."""

    is_causal = False

    def __init__(self, backend: str, training: bool = False):
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=backend)
        self.train(training)


def bounded_cases(setting: Setting) -> dict[str, Call]:
    """Times of bounded attention at VideoPrism's shapes."""
    shapes = {"whole video": (8, 12, 4096, 64), "through time": (2048, 12, 16, 64), "every frame": (128, 12, 256, 64)}
    shapes |= {"every frame, one video": (16, 12, 256, 64), "whole video, one": (1, 12, 4096, 64)}
    if setting.tiny:
        shapes = {"every frame": (2, 2, 64, 16)}
    names = list(shapes)[: 2 if setting.quick else None]
    return {name: partial(time_bounded, shapes[name], setting) for name in names}


def number_cases(setting: Setting) -> dict[str, Call]:
    """The numbers of every backend at real widths of heads."""
    cases, dims = {}, HEAD_DIMS[: 1 if setting.quick or setting.tiny else None]
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for width in dims:
            names = [name for name in backends() if name != "flex_attention"]
            cases[f"{width} channels, {_name(dtype)}"] = partial(check_attention, names, width, dtype, setting)
    if not setting.tiny:
        for width, dtype in (*((width, torch.bfloat16) for width in dims), (64, torch.float32)):
            name = f"flex_attention, {width} channels, {_name(dtype)}"
            cases[name] = partial(check_attention, ["flex_attention"], width, dtype, setting)
    return cases


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def draw(shape: tuple[int, ...], dtype: torch.dtype, setting: Setting, spread: float = 1.0) -> list[torch.Tensor]:
    """Query, key and value, as projections make them: (B, heads, N, head_dim) with heads next to channels."""
    batch, heads, tokens, width = shape
    size = (batch, tokens, heads, width)
    return [(spread * torch.randn(size, device=setting.device)).to(dtype).transpose(1, 2) for _ in range(3)]


def exact(*states: torch.Tensor, softcap: float | None, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention as its formula says, in the dtype of the states: (B, N, heads·head_dim)."""
    query, key, value = states
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def time_bounded(shape: tuple[int, ...], setting: Setting) -> dict[str, Any]:
    """Bounded attention in bfloat16: `attention` as it chooses, and every way that it could choose."""
    states = draw(shape, torch.bfloat16, setting)
    leaves = [part.detach().clone().requires_grad_() for part in states]
    scaling = shape[-1] ** -0.5

    def inputs(*parts: torch.Tensor) -> Inputs:
        return Inputs(*parts, None, scaling, SOFTCAP, 0.0)

    inference: dict[str, Callable] = {
        "ours": lambda *parts: attention(Layer("sdpa"), *parts, scaling=scaling, softcap=SOFTCAP)[0],
        "blocks": lambda *parts: attention_in_blocks(inputs(*parts)),
    }
    training = {"ours, step": inference["ours"], "blocks, step": lambda *parts: _by_query_blocks(inputs(*parts))}
    if not setting.tiny:
        eager = torch.compile(_eager, dynamic=False)
        inference["eager, compiled"] = lambda *parts: eager(inputs(*parts))[0]
    calls = {name: partial(way, *states) for name, way in inference.items()}
    calls |= {name: partial(_step, way, leaves) for name, way in training.items()}
    failed = {}
    for name in list(calls):
        try:
            with torch.no_grad():
                calls[name]()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:300]
            del calls[name]
    found = {}
    for name, samples in interleave(calls, setting.device, seconds=1.0).items():
        found[name] = {**summary(samples), "extra_mib": extra_mib(calls[name], setting.device)}
    return {"shape": list(shape), "calls": found, "failed_calls": failed}


def _step(way: Callable, leaves: list[torch.Tensor]) -> torch.Tensor:
    """Forward and backward pass."""
    with torch.enable_grad():
        output = way(*leaves)
        output.backward(torch.ones_like(output))
    return output


LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest ‖difference‖ / ‖expected‖ of a single attention call and its gradients: a few times the dtype's rounding."""


def check_attention(names: list[str], width: int, dtype: torch.dtype, setting: Setting) -> dict[str, Any]:
    """Distances to float64, forward and gradients, with and without bound and mask."""
    torch._dynamo.reset()  # forget other widths: there is a limit to how often a function is compiled
    states = draw((2, 3, 320, width), dtype, setting, spread=1.5)
    mask = torch.rand(2, 1, 320, 320, device=setting.device) < 0.7
    mask[..., 0] = True
    weight = torch.randn(2, 320, 3 * width, device=setting.device)
    found, missed = {}, []
    for softcap, allowed in ((None, None), (5.0, None), (None, mask), (5.0, mask)):
        kind = {(0, 0): "plain", (1, 0): "bound", (0, 1): "mask", (1, 1): "both"}[
            softcap is not None, allowed is not None
        ]
        expected = _with_gradients(partial(exact, softcap=softcap, mask=allowed), states, weight, torch.float64)
        for name in names:
            if dtype == torch.float32 and name in FLASH:
                continue
            way = partial(_attended, name, softcap, allowed)
            try:
                actual = _with_gradients(way, states, weight, dtype)
                with torch.no_grad():
                    actual["inference"] = way(*states)
            except Exception as error:
                missed.append(f"{name}, {kind}: {type(error).__name__}: {error}"[:300])
                continue
            references = {**expected, "inference": expected["forward"]}
            distances = {part: distance(references[part], value) for part, value in actual.items()}
            found[f"{name}, {kind}"] = distances
            missed += [
                f"{name}, {kind}, {part}: {value:.1e}"
                for part, value in distances.items()
                if not value <= LIMITS[dtype]
            ]
    worst = max((value for entry in found.values() for value in entry.values()), default=None)
    return {"worst": worst, "limit": LIMITS[dtype], "missed": missed, "distances": found}


def _attended(backend: str, softcap: float | None, mask: torch.Tensor | None, *states: torch.Tensor) -> torch.Tensor:
    """What `attention` gives, (B, N, heads·head_dim)."""
    scaling = states[0].shape[-1] ** -0.5
    return attention(Layer(backend), *states, scaling=scaling, softcap=softcap, mask=mask)[0]


def _with_gradients(
    way: Callable[..., torch.Tensor], states: list[torch.Tensor], weight: torch.Tensor, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """What a computation gives, and the gradients of a weighted sum of it."""
    leaves = [part.detach().to(dtype).requires_grad_() for part in states]
    with torch.enable_grad():
        output = way(*leaves)
        gradients = torch.autograd.grad((output * weight.to(dtype)).sum(), leaves)
    return {"forward": output.detach(), **dict(zip(("query", "key", "value"), gradients, strict=True))}


# ------------------------------------------------------------------------------------------------------------- waits


def wait_cases(setting: Setting) -> dict[str, Call]:
    """Every model class."""
    return {model.label: partial(waits, spec, model, setting) for spec, model in all_models(setting)}


def all_models(setting: Setting) -> Iterator[tuple[FamilySpec, ModelSpec]]:
    """Every model class of every family; in a quick run each family's first two."""
    for spec in SPECS:
        for model in spec.models[: 2 if setting.quick else None]:
            yield spec, model


def waits(spec: FamilySpec, model: ModelSpec, setting: Setting) -> dict[str, list[str]]:
    """Where calls of a model wait for the device, by the line of the package: each way to call it, and training."""
    built = spec.build(model, attention="sdpa").to(setting.device)
    config = built.config
    ways = {"default": {}, **{name: call(config, 2, spec.size) for name, call in model.calls.items()}}
    found = {}
    for name, more in ways.items():
        inputs = to_device({**spec.inputs(model), **more}, setting.device)
        with torch.no_grad(), recorded_waits(setting) as places:
            built(**inputs)
        found[name] = _counted(places)
    inputs = to_device({**spec.inputs(model), **model.training_inputs(config, 2)}, setting.device)
    with torch.device(setting.device), recorded_waits(setting) as places:
        model.loss(built.train()(**inputs)).backward()
    found["training"] = _counted(places)
    return found


def _counted(places: list[str]) -> list[str]:
    return [f"{place} ({count}×)" for place, count in Counter(places).items()]


@contextmanager
def recorded_waits(setting: Setting) -> Iterator[list[str]]:
    """Collects the places in the package that synchronize with the device; nothing on a CPU."""
    places: list[str] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "called a synchronizing" not in str(message):
            return
        frames = [frame for frame in traceback.extract_stack() if "utils/benchmarks" not in frame.filename]
        ours = [
            frame for frame in frames if any(part in frame.filename for part in ("/vidformers/", "/src/", "/tests/"))
        ]
        frame = (ours or frames)[-1]
        places.append(f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if setting.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------------------------------------------- correctness


def model_cases(setting: Setting) -> dict[str, Call]:
    """Every model class in every backend and dtype; then one of each family compiled."""
    cases = {model.label: partial(check_model, spec, model, setting) for spec, model in all_models(setting)}
    modes = ("default",) if setting.quick or setting.tiny else ("default", "reduce-overhead")
    compiled = {
        f"{spec.models[0].label}, compiled, {mode}": partial(check_compiled, spec, mode, setting)
        for mode in modes
        for spec in SPECS
    }
    return cases | (dict(list(compiled.items())[:1]) if setting.quick or setting.tiny else compiled)


def check_model(spec: FamilySpec, model: ModelSpec, setting: Setting) -> dict[str, Any]:
    """The worst share of the tolerance that each backend and dtype takes, forward and backward."""
    torch.compiler.reset()
    inputs, device = spec.inputs(model), setting.device
    reference = spec.build(model)
    expected = all_states(reference, inputs)
    terms = model.terms(reference, expected)
    training = {**inputs, **model.training_inputs(reference.config, 2)}
    slopes = gradients(reference.train(), model, training, torch.device("cpu"))
    shares, missed = {}, []
    for backend in backends():
        for dtype in DTYPES:
            if backend in FLASH and dtype == torch.float32:
                continue
            name = f"{backend} {_name(dtype)}"
            try:
                built = spec.build(model, attention=backend).to(device, dtype)
                with torch.compiler.set_stance("force_eager" if backend == "flex_attention" else "default"):
                    actual = all_states(built, to_device(to_dtype(inputs, dtype), device))
                    shares[name] = share(expected, actual, DTYPES[dtype], terms)
                    actual = gradients(built.train(), model, to_device(to_dtype(training, dtype), device), device)
                    shares[f"{name} backward"] = share(slopes, actual, DTYPE_GRADIENTS[dtype])
            except Exception as error:
                missed.append(f"{name}: {type(error).__name__}: {error}"[:400])
    missed += [f"{name}: {value:.2f} of the tolerance" for name, value in shares.items() if not value <= 1]
    return {"worst": max(shares.values(), default=None), "limit": 1.0, "missed": missed, "shares": shares}


def share(
    expected: Mapping[str, torch.Tensor],
    actual: Mapping[str, torch.Tensor | None],
    tolerance: Tolerance,
    terms: Mapping[str, float] | None = None,
) -> float:
    """The largest difference over what the tolerance allows."""
    actual = {name: value.cpu() for name, value in actual.items() if value is not None}
    report = compare(
        "", {name: value for name, value in expected.items() if value is not None}, actual, tolerance, terms
    )
    return max(stage.max_abs / stage.limit if stage.limit else float(stage.max_abs > 0) for stage in report.stages)


def gradients(
    model: nn.Module, spec: ModelSpec, inputs: dict[str, Any], device: torch.device
) -> dict[str, torch.Tensor | None]:
    """Gradients of one training step."""
    model.zero_grad()
    with torch.device(device):
        spec.loss(model(**inputs)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if name not in spec.idle}


def check_compiled(spec: FamilySpec, mode: str, setting: Setting) -> dict[str, Any]:
    """A shallow model of the family, compiled, beside itself in eager mode; called twice, as CUDA graphs need."""
    torch._dynamo.reset()
    model = spec.models[0]
    built = spec.build(model, attention="sdpa", **model.shallow).to(setting.device)
    inputs = to_device(spec.inputs(model, **model.shallow), setting.device)
    expected = {name: value.cpu() for name, value in all_states(built, inputs).items()}
    compiled = torch.compile(built, mode=None if mode == "default" else mode)
    shares = []
    for _ in range(3):
        shares.append(share(expected, all_states(compiled, inputs), DTYPES[torch.float32]))
    missed = [f"call {index}: {value:.2f} of the tolerance" for index, value in enumerate(shares) if not value <= 1]
    return {"worst": max(shares), "limit": 1.0, "missed": missed}


def golden_cases(setting: Setting) -> dict[str, Call]:
    """The recordings of the original implementations that the repository holds."""
    return {
        f"{spec.family.title}, {case.folder} {run.label}".strip(): partial(check_golden, spec, case, run, setting)
        for spec in SPECS
        for case in [case for case in spec.goldens if case.committed][: 1 if setting.quick or setting.tiny else None]
        for run in case.runs
    }


def check_golden(spec: FamilySpec, case: GoldenCase, run: GoldenRun, setting: Setting) -> dict[str, Any]:
    """A converted model in float32 on the device beside what the original gave."""
    folder = GOLDENS / spec.family.model_type / case.folder
    values = json.loads((folder / "case.json").read_text("utf-8"))["hyperparameters"]
    inputs, recorded = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    model = load_original(**run.arguments(folder, values)).to(setting.device)
    with torch.no_grad(), torch.device(setting.device):
        actual = run.outputs(model, to_device(inputs, setting.device))
    shares = {}
    for name, value in actual.items():
        kept = case.counted[name](inputs) if name in case.counted else slice(None)
        shares[name] = share({name: recorded[name][kept]}, {name: value.cpu()[kept]}, case.tolerance)
    missed = [f"{name}: {value:.2f} of the tolerance" for name, value in shares.items() if not value <= 1]
    return {"worst": max(shares.values()), "limit": 1.0, "missed": missed, "shares": shares}
