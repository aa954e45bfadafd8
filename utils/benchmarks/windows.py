"""Windows that overlap by three quarters: every frame encoded once, every window encoded anew, and a plain loop.

A film is cut into windows of 16 frames, every 4. VideoPrism's encoder and PE Video, which encode frames one by one,
embed them through `VideoEmbedder` with and without what they keep of a frame. The loop decodes, prepares and encodes
one window after the other, with transformers' model where it can be had (PE Video's needs timm).

python utils/benchmarks/windows.py
python utils/benchmarks/windows.py --only "PE Video" --rounds 1
"""

import tempfile
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from side_by_side import Options, Table, interleave, run, timing_row

import vidformers
from vidformers.inference.embedder import VideoEmbedder
from vidformers.inference.windows import Windows
from vidformers.video import decode_video


WINDOWS = Windows(16, 4, unit="frames", edge="drop")
NUM_FRAMES = 144
TINY_TOWER = {"architecture": "vit_pe_core_tiny_patch16_384", "num_hidden_layers": 1, "image_size": 32}
TINY_PE_VIDEO = {"vision_config": TINY_TOWER, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
TINY_VIDEOPRISM = {"image_size": 36, "num_spatial_layers": 1, "num_temporal_layers": 1}
BASE_TOWER = {"architecture": "vit_pe_core_base_patch16_224"}
FAMILIES = {
    "VideoPrism": ("VideoPrismVisionModel", "videoprism", {}, TINY_VIDEOPRISM),
    "PE Video": ("PeVideoEncoder", "pe_video", {"vision_config": BASE_TOWER}, TINY_PE_VIDEO),
}
"""Class of the model, its module in transformers, and fields of its configuration, usually and for a quick look."""


def write_film(path: Path, num_frames: int, side: int) -> Path:
    """Squares that move over noise, at 25 frames a second."""
    import av

    noise = torch.randint(0, 255, (side, side, 3), dtype=torch.uint8).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
        for number in range(num_frames):
            picture = noise.copy()
            left = number * 3 % (side - side // 4)
            picture[: side // 4, left : left + side // 4] = 2 * number % 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def build(family: str, options: Options) -> tuple[torch.nn.Module, object, torch.nn.Module | None]:
    """Our model with random weights, its video processor, and transformers' model where it can be had."""
    name, module, usual, quick = FAMILIES[family]
    config_class = getattr(vidformers, name).config_class
    config = config_class(**(quick if options.quick else usual))
    model = getattr(vidformers, name)(config).eval().to(options.device)
    side = getattr(config, "image_size", None) or config.vision_config.image_size
    side = side if isinstance(side, int) else side[0]
    record = vidformers.families.FAMILIES[module]
    processor = getattr(vidformers, record.video_processor_class)(size={"height": side, "width": side})
    if find_spec(f"transformers.models.{module}") is None or (module == "pe_video" and not find_spec("timm")):
        return model, processor, None
    theirs = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)
    other = theirs(theirs.config_class(**config.to_dict())).eval().to(options.device)
    return model, processor, other


def loop(path: Path, model: torch.nn.Module, processor: object, embedder: VideoEmbedder) -> list[torch.Tensor]:
    """The windows of a film as a script would embed them."""
    found = []
    for window in WINDOWS(vidformers.video.probe_video(path)):
        frames, _ = decode_video(path, window.frame_indices)
        pixels = processor(frames, do_sample_frames=False, return_tensors="pt")[processor.model_input_names[0]]
        hidden = model(pixels.to(embedder.model.device)).last_hidden_state
        found.append(hidden.float().flatten(1, -2).mean(1))
    return found


def windows(family: str, options: Options) -> Table:
    """Seconds of all windows of a film in each way."""
    rounds, num_frames = options.rounds_or(1), 32 if options.quick else NUM_FRAMES
    model, processor, other = build(family, options)
    embedders = {label: VideoEmbedder(model, processor, pool="mean") for label in ("once", "anew")}
    embedders["anew"]._encodes_frames = False
    with tempfile.TemporaryDirectory() as folder:
        path = write_film(Path(folder) / "film.mp4", num_frames, 64 if options.quick else 360)
        calls = {
            "every window anew": lambda: list(embedders["anew"].embed({"film": path}, WINDOWS)),
            "every frame once": lambda: list(embedders["once"].embed({"film": path}, WINDOWS)),
            "plain loop, vidformers": lambda: loop(path, model, processor, embedders["once"]),
        }
        if other is not None:
            calls["plain loop, transformers"] = lambda: loop(path, other, processor, embedders["once"])
        embedders["once"].waiting.seconds = 0.0
        seconds = interleave(calls, rounds, options.device)
    count = (num_frames - 16) // 4 + 1
    title = f"{family}: {count} windows of 16 frames, every 4, of {num_frames} frames, {rounds} round(s)"
    table = Table(title, ("way", "median s", "min–max s", "ratio"), [])
    base = seconds["every window anew"]
    table.rows.extend(timing_row(label, values, base) for label, values in seconds.items())
    once = seconds["every frame once"]
    waited = embedders["once"].waiting.seconds / (rounds + 1) / median(once)
    table.notes.append(
        f"Every frame once: {num_frames / median(once):.3g} frames a second from file to features, "
        f"{waited:.0%} of the time waiting for frames."
    )
    return table


if __name__ == "__main__":
    run({family: partial(windows, family) for family in FAMILIES})
