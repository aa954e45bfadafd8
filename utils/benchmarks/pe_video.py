"""PE Video beside transformers' built-in port: seconds and memory of a forward pass of the large encoder.

One video of 8 frames, and a batch of videos of 16, 8, 4 and 2 frames, padded. transformers' model needs timm; where
timm cannot be imported, vidformers is measured alone.

python utils/benchmarks/pe_video.py
python utils/benchmarks/pe_video.py --only "one video" --dtype bf16 --rounds 3
"""

from functools import partial
from importlib.util import find_spec

import torch
from side_by_side import LIBRARIES, Call, Comparison, Options, Table, compare, memory_table, run
from transformers.models.pe_video.modeling_pe_video import PeVideoEncoder as TransformersEncoder

from vidformers import PeVideoEncoder, PeVideoEncoderConfig


CASES = {"one video": (8,), "padded videos": (16, 8, 4, 2)}
"""Frames of the videos of a batch."""
CLASSES = {"transformers": TransformersEncoder, "vidformers": PeVideoEncoder}
TEMPORAL_LAYERS = 4
TINY_TOWER = {"architecture": "vit_pe_core_tiny_patch16_384", "num_hidden_layers": 1, "image_size": 32}


def libraries() -> list[str]:
    """What can be measured."""
    return [library for library in LIBRARIES if library == "vidformers" or find_spec("timm")]


def build(library: str, options: Options, dtype: torch.dtype) -> torch.nn.Module:
    """The encoder with random weights."""
    fields = {"vision_config": TINY_TOWER, "hidden_size": 64, "num_attention_heads": 2} if options.quick else {}
    config = PeVideoEncoderConfig(num_hidden_layers=TEMPORAL_LAYERS, **fields)
    if library == "transformers":
        config = TransformersEncoder.config_class(**config.to_dict())
    config._attn_implementation = "sdpa"
    return CLASSES[library](config).to(options.device, dtype).eval()


def inputs(case: str, options: Options, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Videos of a case, padded with zeros, and their mask where there is padding."""
    side = TINY_TOWER["image_size"] if options.quick else PeVideoEncoderConfig().vision_config.image_size
    counts = torch.tensor(CASES[case])
    real = torch.arange(int(counts.max())) < counts[:, None]
    video = torch.randn(*real.shape, 3, side, side) * real[..., None, None, None]
    batch = {"pixel_values_videos": video.to(options.device, dtype)}
    return batch if real.all() else {**batch, "padding_mask_videos": real.to(options.device)}


def num_operations(config: PeVideoEncoderConfig, case: str) -> float:
    """Floating-point operations of the matrix products that the frames of a case need, without pooler and embedder."""
    tower, counts = config.vision_config, CASES[case]
    patches = (tower.image_size // tower.patch_size) ** 2
    width, tokens = tower.hidden_size, patches + 1
    per_token = 2 * width * (4 * width + 2 * tower.intermediate_size)
    frame = tower.num_hidden_layers * tokens * (per_token + 4 * width * tokens)
    frame += 2 * patches * tower.num_channels * tower.patch_size**2 * width
    width = config.hidden_size
    per_token = 2 * width * (4 * width + 3 * config.intermediate_size)
    videos = [config.num_hidden_layers * (count + 1) * (per_token + 4 * width * (count + 1)) for count in counts]
    return sum(counts) * frame + sum(videos)


def calls(case: str, options: Options, dtype: torch.dtype) -> Comparison:
    """Both encoders with the same weights."""
    built = {library: build(library, options, dtype) for library in libraries()}
    if "transformers" in built:
        built["transformers"].load_state_dict(built["vidformers"].state_dict(), assign=True)
    config = built["vidformers"].config
    tower = config.vision_config
    batch = inputs(case, options, dtype)
    frame_tokens = (tower.image_size // tower.patch_size) ** 2 + 1
    return Comparison(
        calls={library: lambda module=module: module(**batch) for library, module in built.items()},
        widest=(8 * frame_tokens, tower.hidden_size, tower.intermediate_size),
        operations={"vidformers": num_operations(config, case)},
    )


def forward(case: str, options: Options) -> Table:
    """Seconds of a forward pass."""
    frames = ", ".join(map(str, CASES[case]))
    # In bfloat16 the padded batch would take transformers minutes, and tell nothing more.
    rounds = {"fp32": 3, "bf16": 3} if case == "one video" else {"fp32": 3}
    title = f"PE Video large, encoder, {frames} × 336², `sdpa`"
    return compare(title, lambda dtype: calls(case, options, dtype), options, rounds)


def memory(options: Options) -> Table:
    """Peak memory of a forward pass."""
    cases = [f"{case}, {library}" for case in CASES for library in libraries()]
    return memory_table("PE Video large, memory of a forward pass in float32", cases, options)


def peak(case: str, library: str, options: Options) -> Call:
    """A forward pass."""
    built = build(library, options, torch.float32)
    batch = inputs(case, options, torch.float32)
    return lambda: built(**batch)


TABLES = {**{case: partial(forward, case) for case in CASES}, "memory": memory}
PEAKS = {f"{case}, {library}": partial(peak, case, library) for case in CASES for library in libraries()}

if __name__ == "__main__":
    run(TABLES, PEAKS)
