"""The speed parts of `gpu.py`: full-size models with random weights in bfloat16, beside transformers' own.

Both libraries have the same weights; `distance` in a record tells how far their outputs are apart. Where transformers
has several ways to compute attention, all that may be its best are timed.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import torch
import transformers
from gpu_timing import Call, Setting, count_operations, distance, extra_mib, interleave, sample, summary
from torch import nn

import vidformers
from vidformers.layers import block, patchify, rope
from vidformers.models.videomae.presets import VIDEOMAE_SIZES
from vidformers.models.videoprism.presets import VIDEOPRISM_SIZES
from vidformers.models.vjepa2.presets import VJEPA2_SIZES


DTYPE = torch.bfloat16
SLOWEST_CALL = 4.0
"""Seconds; larger batches aren't tried after a call that took longer."""


@dataclass(frozen=True)
class Bench:
    """Calls that are timed in turns.

    Attributes:
        calls: by label, "vidformers" first; each returns the tensor that is compared.
        tokens: that one call processes.
        models: the module behind a label, for what is done to it before the call.
    """

    calls: Mapping[str, Call]
    tokens: int
    models: Mapping[str, nn.Module] = field(default_factory=dict)


Maker = Callable[[Setting], Bench]


def build(model_class: type, config: Any, setting: Setting) -> nn.Module:
    """A model in evaluation mode, made on the device."""
    with torch.device(setting.device):
        model = model_class(config)
    return model.to(setting.device, DTYPE).eval().requires_grad_(False)


def both(
    name: str, config: str, fields: Mapping[str, Any], setting: Setting, theirs: str = "sdpa"
) -> dict[str, nn.Module]:
    """A class in both libraries with the same weights."""
    models = {}
    for label, package, attention in (("vidformers", vidformers, "sdpa"), ("transformers", transformers, theirs)):
        made = getattr(package, config)(**fields, attn_implementation=attention)
        models[label] = build(getattr(package, name), made, setting)
    models["transformers"].load_state_dict(models["vidformers"].state_dict(), strict=False)
    return models


def video(setting: Setting, batch: int, frames: int, side: int) -> torch.Tensor:
    """Random input (B, T, 3, H, W)."""
    return torch.randn(batch, frames, 3, side, side, device=setting.device, dtype=DTYPE)


def vjepa2(size: str, frames: int, crop: int, batch: int, context: float | None, setting: Setting) -> Bench:
    """V-JEPA 2's encoder; `context` is the share of the tokens that ours sees, where transformers encodes all."""
    fields = {**VJEPA2_SIZES[size], "crop_size": crop, "frames_per_clip": frames, "use_predictor": True}
    if setting.tiny:
        fields |= {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "crop_size": 32}
        fields |= {"frames_per_clip": 4, "mlp_ratio": 4.0}
    fields |= {"pred_num_hidden_layers": 1}
    ours = vidformers.VJEPA2Config(**fields, attn_implementation="sdpa")
    fields.pop("use_predictor")
    models = both("VJEPA2Model", "VJEPA2Config", fields, setting)
    pixels = video(setting, batch, ours.frames_per_clip, ours.crop_size)
    tokens = ours.frames_per_clip // ours.tubelet_size * (ours.crop_size // ours.patch_size) ** 2
    options: dict[str, Any] = {"skip_predictor": True}
    calls = {name: lambda model=model: model(pixels, **options).last_hidden_state for name, model in models.items()}
    if context is not None:
        kept = torch.stack([torch.randperm(tokens, device=setting.device)[: int(context * tokens)] for _ in pixels])
        calls = {"vidformers": lambda: models["vidformers"](pixels, context_mask=kept, **options).last_hidden_state}
        tokens = kept.shape[1]
    return Bench(calls, batch * tokens, models)


def videoprism(size: str, frames: int, name: str, batch: int, setting: Setting) -> Bench:
    """VideoPrism's encoder or video tower; transformers has eager and flex attention for it."""
    fields = {**VIDEOPRISM_SIZES[size], "num_frames": frames, "image_size": 288}
    if setting.tiny:
        fields |= {"hidden_size": 64, "num_attention_heads": 2, "num_spatial_layers": 1, "intermediate_size": 128}
        fields |= {"num_auxiliary_layers": 1, "image_size": 36, "num_frames": 4}
    models = both(name, "VideoPrismVisionConfig", fields, setting, theirs="eager")
    config = models["vidformers"].config
    pixels = torch.rand_like(video(setting, batch, config.num_frames, fields["image_size"]))
    output = "pooler_output" if name == "VideoPrismVideoModel" else "last_hidden_state"

    def run(model: nn.Module, attention: str) -> torch.Tensor:
        model.config._attn_implementation = attention  # of all blocks, at no cost
        return getattr(model(pixels), output)

    calls = {
        "vidformers": partial(run, models["vidformers"], "sdpa"),
        "transformers": partial(run, models["transformers"], "eager"),
    }
    if not setting.tiny:
        calls["transformers, flex"] = partial(run, models["transformers"], "flex_attention")
    tokens = config.num_frames * (fields["image_size"] // config.tubelet_size[1]) ** 2
    return Bench(calls, batch * tokens, models)


def _videomae_fields(size: str, setting: Setting) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    fields = dict(zip([*names, *(f"decoder_{name}" for name in names)], VIDEOMAE_SIZES[size], strict=True))
    if setting.tiny:
        fields = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
        fields |= {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    for prefix in ("", "decoder_"):
        fields[f"{prefix}intermediate_size"] = 4 * fields[f"{prefix}hidden_size"]
    return {**fields, "use_mean_pooling": False}


def videomae(size: str, batch: int, setting: Setting) -> Bench:
    """VideoMAE's encoder."""
    models = both("VideoMAEModel", "VideoMAEConfig", _videomae_fields(size, setting), setting)
    config = models["vidformers"].config
    pixels = video(setting, batch, config.num_frames, config.image_size)
    tokens = config.num_frames // config.tubelet_size * (config.image_size // config.patch_size) ** 2
    calls = {name: lambda model=model: model(pixels).last_hidden_state for name, model in models.items()}
    return Bench(calls, batch * tokens, models)


def videomae_step(size: str, batch: int, setting: Setting) -> Bench:
    """Forward and backward pass of pre-training with 90 % of the tokens masked, as numbers where ours takes them."""
    models = both("VideoMAEForPreTraining", "VideoMAEConfig", _videomae_fields(size, setting), setting)
    for model in models.values():
        model.requires_grad_(True)
    config = models["vidformers"].config
    pixels = video(setting, batch, config.num_frames, config.image_size)
    grid = config.token_grid
    mask = vidformers.tube_mask(grid, 0.5 if setting.tiny else 0.9, batch_size=batch, seed=0).to(setting.device)
    numbers = mask.nonzero()[:, 1].view(batch, -1)

    def step(model: nn.Module, masked: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            model.zero_grad()
            loss = model(pixels, bool_masked_pos=masked).loss
            loss.backward()
        return loss

    calls = {
        "vidformers": partial(step, models["vidformers"], mask),
        "transformers": partial(step, models["transformers"], mask),
    }
    calls["vidformers, masks as numbers"] = partial(step, models["vidformers"], numbers)
    return Bench(calls, batch * mask.shape[1], models)


def pe_video(counts: tuple[int, ...], setting: Setting) -> Bench:
    """PE Video's large encoder on videos of so many frames, padded to the longest. transformers' needs timm."""
    fields: dict[str, Any] = {}
    if setting.tiny:
        tower = {"architecture": "vit_pe_core_tiny_patch16_384", "num_hidden_layers": 1, "image_size": 32}
        fields = {"vision_config": tower, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = vidformers.PeVideoEncoderConfig(**fields, attn_implementation="sdpa")
    models = {"vidformers": build(vidformers.PeVideoEncoder, config, setting)}
    if not setting.tiny:
        theirs = import_module("transformers.models.pe_video.modeling_pe_video").PeVideoEncoder
        other = theirs.config_class(**vidformers.PeVideoEncoderConfig(**fields).to_dict(), attn_implementation="sdpa")
        models["transformers"] = build(theirs, other, setting)
        models["transformers"].load_state_dict(models["vidformers"].state_dict(), strict=False)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    frames = torch.tensor(counts, device=setting.device)
    real = torch.arange(max(counts), device=setting.device) < frames[:, None]
    batch = {"pixel_values_videos": video(setting, len(counts), max(counts), side) * real[..., None, None, None]}
    if len(set(counts)) > 1:
        batch["padding_mask_videos"] = real
    calls = {name: lambda model=model: model(**batch).pooler_output for name, model in models.items()}
    return Bench(calls, sum(counts) * ((side // patch) ** 2 + 1), models)


def rollout(plans: int, steps: int, setting: Setting) -> Bench:
    """Plans that V-JEPA 2-AC follows from one frame."""
    fields = {"hidden_size": 1408, "num_hidden_layers": 1, "num_attention_heads": 22, "mlp_ratio": 48 / 11}
    fields |= {"pred_hidden_size": 1024, "pred_num_hidden_layers": 24, "pred_num_attention_heads": 16}
    if setting.tiny:
        fields |= {"hidden_size": 64, "num_attention_heads": 2, "crop_size": 32, "pred_hidden_size": 64}
        fields |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "mlp_ratio": 4.0}
    config = vidformers.VJEPA2Config(**fields, attn_implementation="sdpa")
    model = build(vidformers.VJEPA2ACModel, config, setting)
    side = config.crop_size // config.patch_size
    features = torch.randn(plans, 1, side, side, config.hidden_size, device=setting.device, dtype=DTYPE)
    conditions = [torch.randn(plans, steps, config.action_embed_dim, device=setting.device) for _ in range(2)]
    return Bench(
        {"vidformers": lambda: model.rollout(features, *conditions)}, plans * steps * side**2, {"vidformers": model}
    )


MODELS: dict[str, Maker] = {
    "V-JEPA 2 ViT-L, 32 × 16 × 256²": partial(vjepa2, "vitl", 16, 256, 32, None),
    "VideoPrism base encoder, 8 × 16 × 288²": partial(videoprism, "base", 16, "VideoPrismVisionModel", 8),
    "VideoMAE ViT-B, 32 × 16 × 224²": partial(videomae, "base", 32),
    "PE Video large, 16, 8, 4, 2 × 336²": partial(pe_video, (16, 8, 4, 2)),
    "VideoPrism base video tower, 8 × 16 × 288²": partial(videoprism, "base", 16, "VideoPrismVideoModel", 8),
    "V-JEPA 2 ViT-g, 4 × 64 × 256²": partial(vjepa2, "vitg", 64, 256, 4, None),
    "VideoMAE ViT-B step, 32 × 16 × 224²": partial(videomae_step, "base", 32),
    "V-JEPA 2 ViT-L, 1 × 16 × 256²": partial(vjepa2, "vitl", 16, 256, 1, None),
    "VideoPrism base encoder, 1 × 16 × 288²": partial(videoprism, "base", 16, "VideoPrismVisionModel", 1),
    "VideoPrism base video tower, 1 × 16 × 288²": partial(videoprism, "base", 16, "VideoPrismVideoModel", 1),
    "VideoMAE ViT-B, 1 × 16 × 224²": partial(videomae, "base", 1),
    "PE Video large, 8 × 336²": partial(pe_video, (8,)),
    "V-JEPA 2 ViT-L, 32 × 16 × 256², 25 % of the tokens": partial(vjepa2, "vitl", 16, 256, 32, 0.25),
    "V-JEPA 2 ViT-L, 8 × 64 × 256²": partial(vjepa2, "vitl", 64, 256, 8, None),
    "V-JEPA 2 ViT-g, 1 × 64 × 256²": partial(vjepa2, "vitg", 64, 256, 1, None),
    "V-JEPA 2 ViT-g, 1 × 64 × 384²": partial(vjepa2, "vitg", 64, 384, 1, None),
    "V-JEPA 2 ViT-H, 16 × 16 × 256²": partial(vjepa2, "vith", 16, 256, 16, None),
    "V-JEPA 2 ViT-H, 4 × 64 × 256²": partial(vjepa2, "vith", 64, 256, 4, None),
    "V-JEPA 2 ViT-g, 16 × 16 × 256²": partial(vjepa2, "vitg", 16, 256, 16, None),
    "V-JEPA 2 ViT-g, 1 × 16 × 256²": partial(vjepa2, "vitg", 16, 256, 1, None),
    "VideoPrism large encoder, 8 × 8 × 288²": partial(videoprism, "large", 8, "VideoPrismVisionModel", 8),
    "VideoPrism large video tower, 8 × 8 × 288²": partial(videoprism, "large", 8, "VideoPrismVideoModel", 8),
    "VideoMAE ViT-L, 16 × 16 × 224²": partial(videomae, "large", 16),
    "VideoMAE ViT-H, 8 × 16 × 224²": partial(videomae, "huge", 8),
    "VideoMAE ViT-L step, 16 × 16 × 224²": partial(videomae_step, "large", 16),
    "PE Video large, 4 × 8 × 336²": partial(pe_video, (8, 8, 8, 8)),
    "V-JEPA 2-AC, 16 plans of 4 steps": partial(rollout, 16, 4),
}
"""The models beside each other, the most telling first: the batch, frames and size of a picture."""

QUICK = (
    "V-JEPA 2 ViT-L, 32 × 16 × 256²",
    "VideoPrism base encoder, 8 × 16 × 288²",
    "PE Video large, 16, 8, 4, 2 × 336²",
    "VideoMAE ViT-B step, 32 × 16 × 224²",
)


# ------------------------------------------------------------------------------------------------------------- rates


def rates(setting: Setting) -> dict[str, Call]:
    """The card's own rates: matrix products in bf16 and fp32 (without TF32), and copies."""

    def product(dtype: torch.dtype, size: int) -> dict[str, float]:
        left, right = (torch.randn(size, size, device=setting.device, dtype=dtype) for _ in range(2))
        taken = interleave({"": lambda: left @ right}, setting.device, seconds=1.0)[""]
        return {"tflops": 2 * size**3 / min(taken) / 1e12, **summary(taken)}

    def copies(count: int) -> dict[str, float]:
        source = torch.randn(count, device=setting.device)
        target = torch.empty_like(source)
        taken = interleave({"": lambda: target.copy_(source)}, setting.device, seconds=0.5)[""]
        return {"gb_per_s": 2 * source.nbytes / min(taken) / 1e9, **summary(taken)}

    size = 256 if setting.tiny else 8192
    return {
        "bf16": partial(product, torch.bfloat16, size),
        "fp16": partial(product, torch.float16, size),
        "fp32": partial(product, torch.float32, size // 2),
        "copy": partial(copies, size**2 * 8),
    }


# ------------------------------------------------------------------------------------------------------------- speed


def speed_cases(setting: Setting) -> dict[str, Call]:
    """Every model, or in a quick run a few."""
    return {
        name: partial(measure, make, setting) for name, make in MODELS.items() if not setting.quick or name in QUICK
    }


def measure(make: Maker, setting: Setting) -> dict[str, Any]:
    """Times, memory and distance of a bench's calls. A call that fails leaves the others standing."""
    torch._dynamo.reset()  # there is a limit to how often a function is compiled, transformers' flex attention too
    bench = make(setting)
    calls, failed = dict(bench.calls), {}
    with torch.no_grad():
        expected = calls["vidformers"]()
        distances = {}
        for label in list(calls)[1:]:
            try:
                distances[label] = distance(expected, calls[label]())
            except Exception as error:
                failed[label] = f"{type(error).__name__}: {error}"[:500]
                del calls[label]
    operations = count_operations(calls["vidformers"])
    memory = {label: extra_mib(call, setting.device) for label, call in calls.items()}
    taken = interleave(calls, setting.device)
    return {
        "tokens": bench.tokens,
        "tflop": operations / 1e12,
        "calls": {
            label: {**summary(samples), "extra_mib": memory[label], "distance": distances.get(label)}
            for label, samples in taken.items()
        },
        **({"failed_calls": failed} if failed else {}),
    }


def compiled_cases(setting: Setting) -> dict[str, Call]:
    """`torch.compile` of a few models, both libraries', and CUDA graphs at batch 1."""
    names = {
        "V-JEPA 2 ViT-L, 32 × 16 × 256²": ("default",),
        "VideoPrism base encoder, 8 × 16 × 288²": ("default",),
        "VideoMAE ViT-B, 1 × 16 × 224²": ("default", "reduce-overhead", "max-autotune"),
        "V-JEPA 2 ViT-L, 1 × 16 × 256²": ("reduce-overhead",),
        "VideoPrism base encoder, 1 × 16 × 288²": ("reduce-overhead",),
        "PE Video large, 8 × 336²": ("default",),
    }
    if setting.quick:
        names = {"VideoMAE ViT-B, 1 × 16 × 224²": ("default",)}
    return {
        f"{name}, {mode}": partial(measure_compiled, MODELS[name], mode, setting)
        for name in names
        for mode in names[name]
    }


def measure_compiled(make: Maker, mode: str, setting: Setting) -> dict[str, Any]:
    """Times of the models compiled as wholes, beside the plain ones."""
    torch._dynamo.reset()
    bench = make(setting)
    calls = {label: call for label, call in bench.calls.items() if label in bench.models}
    plain, seconds, distances, failed = dict(calls), {}, {}, {}
    for label, model in bench.models.items():
        start = time.monotonic()
        try:
            with torch.no_grad():
                expected = plain[label]().clone()
                model.forward = torch.compile(model.forward, mode=None if mode == "default" else mode)
                distances[label] = distance(expected, plain[label]())
                compiled = model.forward
        except Exception as error:
            failed[label] = f"{type(error).__name__}: {error}"[:1000]
            del model.forward
            continue
        seconds[label] = round(time.monotonic() - start, 1)
        del model.forward
        calls[f"{label}, compiled"] = _with_forward(model, compiled, plain[label])
    taken = interleave(calls, setting.device)
    return {
        "tokens": bench.tokens,
        "calls": {
            label: {
                **summary(samples),
                "distance": distances.get(label.removesuffix(", compiled")) if "compiled" in label else None,
            }
            for label, samples in taken.items()
        },
        "compile_seconds": seconds,
        **({"failed_calls": failed} if failed else {}),
    }


def _with_forward(model: nn.Module, forward: Callable, call: Call) -> Call:
    """The call with another `forward` in the place of the model's."""

    def run() -> Any:
        model.forward = forward
        try:
            return call()
        finally:
            del model.forward

    return run


# ------------------------------------------------------------------------------------------------------------ pieces


def piece_cases(setting: Setting) -> dict[str, Call]:
    """What a GPU computes in another way than the layers say, beside what they say."""
    return {name: partial(time_piece, make, setting) for name, make in PIECES.items()}


def time_piece(make: Callable[[Setting], dict[str, Call]], setting: Setting) -> dict[str, Any]:
    """Times and memory of the ways to compute one thing."""
    calls = make(setting)
    taken = interleave(calls, setting.device, seconds=0.7)
    return {
        "calls": {
            name: {**summary(samples), "extra_mib": extra_mib(calls[name], setting.device)}
            for name, samples in taken.items()
        }
    }


def rotation(table_dtype: torch.dtype, setting: Setting) -> dict[str, Call]:
    """Rotary positions of ViT-L's queries; a copy is what it could take at best."""
    batch, tokens, heads, width = (1, 64, 2, 16) if setting.tiny else (32, 2048, 16, 64)
    x = torch.randn(batch, tokens, heads, width, device=setting.device, dtype=DTYPE)
    place = torch.arange(tokens, device=setting.device)[None]
    table = rope.rotary_table((place, place, place), width, pairing="tiled", dtype=table_dtype)
    calls: dict[str, Call] = {"vidformers": lambda: rope.apply_rotary(x, table), "a copy": x.clone}
    if not setting.tiny:
        compiled = torch.compile(rope.apply_rotary, dynamic=False)
        calls |= {"compiled": lambda: compiled(x, table), "operations": lambda: rope._turn(x, table)}
    return calls


def transformation(tokens: int, width: int, setting: Setting) -> dict[str, Call]:
    """An MLP as it chooses, and by its layers one after the other."""
    tokens, width = (512, 64) if setting.tiny else (tokens, width)
    with torch.device(setting.device):
        mlp, x = block.Mlp(width, 4 * width, "gelu").to(DTYPE), torch.randn(tokens, width, dtype=DTYPE)
    return {"vidformers": lambda: mlp(x), "its layers": lambda: mlp.fc2(mlp.activation(mlp.fc1(x)))}


def embedding(setting: Setting) -> dict[str, Call]:
    """Tubelets of ViT-L."""
    batch, width = (1, 64) if setting.tiny else (32, 1024)
    with torch.device(setting.device):
        projection = nn.Conv3d(3, width, (2, 16, 16), stride=(2, 16, 16)).to(DTYPE)
    pixels = video(setting, batch, 4 if setting.tiny else 16, 32 if setting.tiny else 256)
    return {
        "vidformers": lambda: patchify.embed_video(projection, pixels),
        "convolution": lambda: projection(pixels.transpose(1, 2)),
    }


PIECES: dict[str, Callable[[Setting], dict[str, Call]]] = {
    "rotary positions, 32 × 2048 × 16 × 64": partial(rotation, DTYPE),
    "rotary positions with float32 tables": partial(rotation, torch.float32),
    "MLP, 65536 × 1024": partial(transformation, 65536, 1024),
    "MLP, 32768 × 768": partial(transformation, 32768, 768),
    "tubelets, 32 × 16 × 256²": embedding,
}


# ----------------------------------------------------------------------------------------------------------- profile


def profile_cases(setting: Setting) -> dict[str, Call]:
    """Where the time of a few models goes."""
    names = (
        QUICK
        if setting.quick
        else (*QUICK, "V-JEPA 2 ViT-g, 4 × 64 × 256²", "VideoPrism base video tower, 8 × 16 × 288²")
    )
    return {name: partial(profiled, MODELS[name], setting) for name in names}


def profiled(make: Maker, setting: Setting) -> dict[str, Any]:
    """The kernels that one call spends most in: name, milliseconds, launches."""
    from torch.profiler import ProfilerActivity, profile

    bench = make(setting)
    call, cuda = bench.calls["vidformers"], setting.device.type == "cuda"
    with torch.no_grad():
        call()
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
            call()
            if cuda:
                torch.cuda.synchronize()
    field_name = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, field_name))
    total = sum(getattr(event, field_name) for event in events)
    rows = [[event.key[:140], round(getattr(event, field_name) / 1e3, 3), event.count] for event in events[:18]]
    return {"total_ms": total / 1e3, "launches": sum(event.count for event in events), "kernels": rows}


# ---------------------------------------------------------------------------------------------------------- original


def original_cases(setting: Setting) -> dict[str, Call]:
    """VideoPrism's original code under `jax.jit`, where a checkout is given."""
    if setting.original is None:
        return {}
    models = {"base encoder": "VideoPrismVisionModel", "base video tower": "VideoPrismVideoModel"}
    return {
        f"VideoPrism {name}, 8 × 16 × 288²": partial(original, name, model, setting) for name, model in models.items()
    }


def original(name: str, model: str, setting: Setting) -> dict[str, Any]:
    """The compiled original in bfloat16 with random weights, timed with the host's clock."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = import_module("jax")
    importable = import_module("vidformers.conversion.originals").importable
    parameters = import_module("vidformers.conversion.videoprism.original")
    config = vidformers.VideoPrismVisionConfig(**VIDEOPRISM_SIZES["base"], num_frames=16, image_size=288)
    batch, half = 8, jax.numpy.bfloat16
    if setting.tiny:
        batch, small = 1, {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
        config = vidformers.VideoPrismVisionConfig(**small, num_spatial_layers=1, num_frames=4, image_size=36)
    with importable(setting.original, ("videoprism",)):
        encoders = import_module("videoprism.encoders")
        if model == "VideoPrismVisionModel":
            network = encoders.FactorizedEncoder(**parameters.encoder_parameters(config, scan=True), fprop_dtype=half)
        else:
            network = encoders.FactorizedVideoCLIP(**parameters.clip_parameters(config, scan=True), fprop_dtype=half)
    side = config.position_grid[0] * config.tubelet_size[1]
    frames = jax.random.uniform(jax.random.key(0), (batch, config.num_frames, side, side, 3), half)
    start = time.monotonic()
    weights = jax.tree.map(lambda leaf: leaf.astype(half), jax.jit(network.init)(jax.random.key(0), frames))
    apply = jax.jit(network.apply)
    samples = []
    for _ in range(12):
        jax.block_until_ready(apply(weights, frames))
        samples.append(time.monotonic())
    taken = [later - earlier for earlier, later in zip(samples[1:-1], samples[2:], strict=True)]
    return {"calls": {"original": summary(taken)}, "compile_seconds": {"original": round(samples[0] - start, 1)}}


# ----------------------------------------------------------------------------------------------------------- largest


def largest_cases(setting: Setting) -> dict[str, Call]:
    """The largest batch that the card holds, doubled from 16."""
    makers: dict[str, Callable[[int], Maker]] = {
        "VideoPrism base video tower, 16 × 288²": lambda batch: partial(
            videoprism, "base", 16, "VideoPrismVideoModel", batch
        ),
        "V-JEPA 2 ViT-L, 16 × 256²": lambda batch: partial(vjepa2, "vitl", 16, 256, batch, None),
        "VideoMAE ViT-B step, 16 × 224²": lambda batch: partial(videomae_step, "base", batch),
    }
    names = list(makers)[: 1 if setting.quick else None]
    labels = ("vidformers", "transformers")
    return {f"{name}, {label}": partial(largest, makers[name], label, setting) for name in names for label in labels}


def largest(make: Callable[[int], Maker], label: str, setting: Setting) -> dict[str, Any]:
    """The last batch that went through, its time, and why the next one wasn't tried."""
    batch, done, reason = 2 if setting.tiny else 16, {}, "the batch is large enough"
    while batch <= (4 if setting.tiny else 1024):
        try:
            bench = make(batch)(setting)
            call = bench.calls[label]
            with torch.no_grad():
                call()
                seconds = sample(call, 1, setting.device)
            done = {"batch": batch, "ms": 1e3 * seconds, "ms_per_video": 1e3 * seconds / batch}
        except torch.OutOfMemoryError:
            reason = f"out of memory with {batch}"
            break
        finally:
            bench = call = None
            if setting.device.type == "cuda":
                torch.cuda.empty_cache()
        if seconds > SLOWEST_CALL:
            reason = f"a call takes more than {SLOWEST_CALL:.0f} s"
            break
        batch *= 2
    return {**done, "until": reason}
