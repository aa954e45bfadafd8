"""V-JEPA 2 for the shared tests."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import vidformers
from tests.harness.family_spec import (
    Called,
    Export,
    FamilySpec,
    GoldenCase,
    GoldenRun,
    ModelSpec,
    OffSize,
    ProcessorSpec,
    Stock,
    Tower,
    VideoSize,
)
from tests.original_files import encoder_shapes, prefixed, random_tensors, v2_1_encoder_shapes
from vidformers.layers.patchify import Grid
from vidformers.models.vjepa2.record import FAMILY as VJEPA2


# Widths, depths and head counts all differ, so that one in the place of another shows. Heads of 20 channels leave two
# unrotated.
TINY = {
    "patch_size": 8,
    "tubelet_size": 2,
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "mlp_ratio": 2.0,
    "pred_hidden_size": 60,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 3,
    "pred_mlp_ratio": 3.0,
    "pred_num_mask_tokens": 3,
    "num_pooler_layers": 2,
    "pooler_num_attention_heads": 2,
    "num_labels": 5,
    "initializer_range": 0.2,
}
SIZE = VideoSize(4, 32, 32)
NUMBER_OF = {"num_verb_labels": 4, "num_noun_labels": 6}


def _grid(config: Any, size: VideoSize) -> tuple[int, int, int]:
    frames = config.tubelet_size if size.frames == 1 else size.frames
    return frames // config.tubelet_size, size.height // config.patch_size, size.width // config.patch_size


def _num_tokens(config: Any, size: VideoSize) -> int:
    time, rows, columns = _grid(config, size)
    return time * rows * columns


def _video(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, size.frames, config.in_chans, size.height, size.width)
    return {"pixel_values_videos": torch.randn(shape, generator=generator)}


def _anticipation(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, torch.Tensor]:
    times = torch.tensor([0.25, 1.0, 0.5, 1.5]).repeat(batch)[:batch]
    return {**_video(config, batch, size, seed), "anticipation_times": times}


def _robot(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    widths = {"actions": config.action_embed_dim, "states": config.action_embed_dim}
    if config.use_extrinsics:
        widths["extrinsics"] = config.action_embed_dim - 1
    conditions = {name: torch.randn(batch, size.frames, width, generator=generator) for name, width in widths.items()}
    return {**_video(config, batch, size, seed), **conditions}


def _masks(config: Any, batch: int, size: VideoSize) -> tuple[torch.Tensor, torch.Tensor]:
    """Context (B, 7) and target (B, 5) tokens, another choice for every video, in no order."""
    generator = torch.Generator().manual_seed(batch)
    order = torch.stack([torch.randperm(_num_tokens(config, size), generator=generator) for _ in range(batch)])
    return order[:, :7], order[:, 7:12]


def _masked(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    context, target = _masks(config, batch, size)
    return {"context_mask": context, "target_mask": target}


def _two_masks(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    first, second = (mask[:, :5] for mask in _masks(config, batch, size))
    return {"context_mask": [first, second], "target_mask": [second, first], "mask_index": 2}


def _features_and_predictions(output: Any) -> torch.Tensor:
    return output.last_hidden_state.square().mean() + output.predictor_output.last_hidden_state.square().mean()


def _labels(config: Any, batch: int, **counts: str) -> dict[str, torch.Tensor]:
    return {name: torch.arange(batch) % getattr(config, field) for name, field in counts.items()}


ENCODER = Tower("", "num_hidden_layers", "hidden_size", "num_attention_heads", _num_tokens)
PREDICTOR = Tower(
    "predictor_output",
    "pred_num_hidden_layers",
    "pred_hidden_size",
    "pred_num_attention_heads",
    lambda config, size: 2 * _num_tokens(config, size),  # all as context, all as targets
)
OFF_SIZES = (
    OffSize(VideoSize(4, 24, 40)),
    OffSize(VideoSize(10, 48, 16)),
    OffSize(VideoSize(2, 8, 8)),
    OffSize(VideoSize(5, 32, 32), kept=VideoSize(4, 32, 32)),
    OffSize(VideoSize(4, 37, 31), kept=VideoSize(4, 32, 24)),
)
ANTICIPATION_SIZES = tuple(off for off in OFF_SIZES if (off.kept or off.size)[1:] == SIZE[1:])
SHALLOW = {"num_hidden_layers": 1, "pred_num_hidden_layers": 1, "num_pooler_layers": 1}
EXAMPLE, OTHER = (2, VideoSize(4, 32, 32)), (3, VideoSize(8, 32, 32))


def _dynamic_video(**more: Any) -> dict[str, Any]:
    steps = torch.export.Dim("steps", max=64)
    return {"pixel_values_videos": {0: torch.export.Dim("batch", max=64), 1: TINY["tubelet_size"] * steps}, **more}


DROP_PATH = Called("*drop_path", "one module drops both branches of a block", lambda config, size: [1, 1])
PREDICTOR_AT_REST = Called("predictor*", "features alone are asked for", lambda config, size: [], call="features")
TWO_MASKS = (
    Called("*drop_path", "both branches of a block, for both masks", lambda config, size: [2, 2], call="two masks"),
    *(
        Called(modules, "every mask leaves a sequence of each video", lambda config, size: [2], call="two masks")
        for modules in ("encoder.embeddings.*.proj", "encoder.layer*", "predictor*")
    ),
)

MODEL = ModelSpec(
    name="VJEPA2Model",
    called=(PREDICTOR_AT_REST, *TWO_MASKS, DROP_PATH),
    shallow=SHALLOW,
    inputs=_video,
    output="last_hidden_state",
    output_shape=lambda config, batch, size: (batch, _num_tokens(config, size), config.hidden_size),
    towers=(ENCODER, PREDICTOR),
    loss=_features_and_predictions,
    calls={
        "features": lambda config, batch, size: {
            "skip_predictor": True,
            "out_layers": sorted({0, config.num_hidden_layers - 1}),
        },
        "masks": _masked,
        "two masks": _two_masks,
        "targets": lambda config, batch, size: {"target_mask": _masks(config, batch, size)[1]},
    },
    stock=Stock("VJEPA2Config", "VJEPA2Model", lacks=("hierarchical_layers",)),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
CLASSIFIER = ModelSpec(
    name="VJEPA2ForVideoClassification",
    called=(DROP_PATH,),
    shallow=SHALLOW,
    inputs=_video,
    output="logits",
    output_shape=lambda config, batch, size: (batch, config.num_labels),
    towers=(ENCODER,),
    training_inputs=partial(_labels, labels="num_labels"),
    stock=Stock(
        "VJEPA2Config",
        "VJEPA2ForVideoClassification",
        config={"pooler_num_attention_heads": TINY["num_attention_heads"], "pooler_layer_norm_eps": 1e-6},
        only_theirs={"vjepa2.predictor.": "classifiers of transformers carry a predictor that they never run"},
    ),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
ANTICIPATION = ModelSpec(
    name="VJEPA2ForActionAnticipation",
    called=(DROP_PATH,),
    shallow=SHALLOW,
    inputs=_anticipation,
    config=NUMBER_OF,
    output="logits",
    output_shape=lambda config, batch, size: (batch, config.num_labels),
    towers=(ENCODER,),
    training_inputs=partial(
        _labels, labels="num_labels", verb_labels="num_verb_labels", noun_labels="num_noun_labels"
    ),
    stock="transformers has no model for action anticipation",
    export=Export(lambda: _dynamic_video(anticipation_times={0: torch.export.Dim("batch", max=64)}), EXAMPLE, OTHER),
    off_sizes=ANTICIPATION_SIZES,
)

FIELDS_2_1 = {
    "num_hidden_layers": 12,
    "use_rope_interleave": True,
    "interpolate_rope": True,
    "use_modality_embeddings": True,
    "use_image_patch_embedder": True,
    "hierarchical_layers": [2, 5, 8, 11],
    "use_context_projection": True,
}
FOUR_LEVELS = replace(
    MODEL,
    variant="four levels",
    config={**FIELDS_2_1, "num_distillation_outputs": 4},
    shallow={**SHALLOW, "num_hidden_layers": 4, "hierarchical_layers": [0, 1, 2, 3]},
    stock="transformers has no V-JEPA 2.1",
    calls={},
    called=(DROP_PATH, Called("*patch_embeddings_img*", "they are for images alone", lambda config, size: [])),
)
DISTILLED = replace(FOUR_LEVELS, variant="distilled", config={**FIELDS_2_1, "teacher_embed_dim": 100})


def _num_patches(config: Any, size: VideoSize) -> int:
    return size.frames * (size.height // config.patch_size) * (size.width // config.patch_size)


def _dynamic_robot() -> dict[str, Any]:
    axes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("frames", max=64)}
    return dict.fromkeys(("pixel_values_videos", "actions", "states", "extrinsics"), axes)


ACTION_CONDITIONED = ModelSpec(
    name="VJEPA2ACModel",
    called=(
        replace(DROP_PATH, modules="encoder*drop_path", rows=lambda config, size: [size.frames] * 2),
        DROP_PATH,
        Called("encoder*", "the encoder sees frames one by one", lambda config, size: [size.frames]),
    ),
    shallow=SHALLOW,
    inputs=_robot,
    config={"use_extrinsics": True},
    output="predictor_output.last_hidden_state",
    output_shape=lambda config, batch, size: (batch, _num_patches(config, size), config.hidden_size),
    towers=(
        Tower(
            "predictor_output",
            "pred_num_hidden_layers",
            "pred_hidden_size",
            "pred_num_attention_heads",
            lambda config, size: _num_patches(config, size) + 3 * size.frames,
        ),
    ),
    loss=_features_and_predictions,
    stock="transformers has no action-conditioned model",
    export=Export(_dynamic_robot, (2, VideoSize(3, 32, 32)), (3, VideoSize(5, 32, 32))),
    off_sizes=(
        OffSize(VideoSize(3, 24, 40)),
        OffSize(VideoSize(1, 48, 16)),
        OffSize(VideoSize(2, 8, 8)),
        OffSize(VideoSize(4, 37, 31), kept=VideoSize(4, 32, 24)),
    ),
)


def _arguments(folder: Path, values: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What `load_original` needs beside the file: what no shape tells."""
    fields = {
        "num_attention_heads": values["num_heads"],
        "crop_size": values["img_size"],
        "frames_per_clip": values["num_frames"],
    }
    if "pred_num_heads" in values:
        fields["pred_num_attention_heads"] = values["pred_num_heads"]
    if "probe_num_heads" in values:
        fields["pooler_num_attention_heads"] = values["probe_num_heads"]
        fields["probe"] = folder / "probe.pt"
    if "out_layers" in values:
        fields["out_layers"] = values["out_layers"]
    if "frames_per_second" in values:
        fields["anticipation_frames_per_second"] = values["frames_per_second"]
        fields["anticipation_num_output_frames"] = values["num_output_frames"]
    if "use_extrinsics" in values:
        fields["use_extrinsics"] = values["use_extrinsics"]
    return {"path": folder / "checkpoint.pt", **fields, **settings}


SCRATCH = TemporaryDirectory(prefix="vidformers-goldens-")
ENCODERS = {"encoder": encoder_shapes(patch=8, stray=False), "target_encoder": v2_1_encoder_shapes(width=24)}


@cache
def _with_encoder(folder: Path, entry: str) -> Path:
    """The checkpoint of a case that was recorded from a predictor alone, beside an encoder of random numbers."""
    tree = torch.load(folder / "checkpoint.pt", weights_only=True)
    prefix = "module." if entry == "encoder" else "module.backbone."
    path = Path(SCRATCH.name) / f"{folder.name}.pt"
    torch.save({**tree, entry: prefixed(prefix, random_tensors(ENCODERS[entry], 0))}, path)
    return path


def _predictor_arguments(entry: str, folder: Path, values: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """`_arguments` of such a case; it records the encoder's heads under no name."""
    heads = {"pred_num_heads": values["pred_num_heads"], "num_heads": 1}
    return _arguments(folder, {**values, **heads}, path=_with_encoder(folder, entry), **settings)


def _run(
    outputs: Callable[[Any, Mapping[str, torch.Tensor]], dict[str, torch.Tensor]], label: str = "", **settings: Any
) -> GoldenRun:
    return GoldenRun(label, partial(_arguments, **settings), outputs)


def _frames_first(video: torch.Tensor) -> torch.Tensor:
    """The original's (B, C, T, H, W) as ours (B, T, C, H, W)."""
    return video.transpose(1, 2)


def _native(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = model(_frames_first(inputs["video"]), out_layers=[0, 1])
    layers = output.out_layer_hidden_states
    return {"last": output.last_hidden_state, "layer_0": layers[0], "layer_1": layers[1]}


def _sizes(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"last_{i}": model.get_vision_features(_frames_first(inputs[f"video_{i}"])) for i in range(3)}


def _encoder_masks(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, other = _frames_first(inputs["video"]), _frames_first(inputs["video_ns"])
    masks = [inputs["mask_0"], inputs["mask_1"]]
    return {
        "one_mask": model(video, context_mask=masks[0], skip_predictor=True).last_hidden_state,
        "two_masks": model(video, context_mask=masks, skip_predictor=True).last_hidden_state,
        "ns_mask": model(other, context_mask=[inputs["mask_ns"]], skip_predictor=True).last_hidden_state,
    }


def _predictions(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, context, target = _frames_first(inputs["video"]), inputs["mask_x"], inputs["mask_y"]

    def predict(*masks: Any, **options: Any) -> torch.Tensor:
        return model(video, *masks, **options).predictor_output.last_hidden_state

    return {
        "context": model(video, context, skip_predictor=True).last_hidden_state,
        **{f"pred_index{i}": predict([context], [target], mask_index=i) for i in (0, 1, 3, 5)},
        "pred_unsorted": predict(context.flip(1), target.flip(1)),
        "pred_all_tokens_sorted": predict(context, target, return_all_tokens=True),
    }


def _full_prediction(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"pred_full": model(_frames_first(inputs["video"])).predictor_output.last_hidden_state}


def _views(model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of each view, and probabilities, of two segments under two views."""
    clips = [
        torch.stack([_frames_first(inputs[f"clip_seg{segment}_view{view}"]) for segment in (0, 1)], 1)
        for view in (0, 1)
    ]
    output = model(torch.stack(clips, 1))  # (B, views, segments, T, C, H, W)
    return output.view_logits.transpose(0, 1), output.logits.softmax(-1)


def _probe(head: int, model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    clip = _frames_first(inputs["clip_seg0_view0"])
    tokens = model.vjepa2.get_vision_features(clip)
    logits, probabilities = _views(model, inputs)
    outputs = {
        f"pooled_single_c{head}": model.pooler(tokens),
        f"logits_single_c{head}": model(clip).logits,
        f"logits_views_c{head}": logits,
        f"prob_c{head}": probabilities,
    }
    if head == 0:
        outputs["tokens_single"] = tokens
        outputs["logits_small_c0"] = model.classifier(model.pooler(inputs["tokens_small"])[:, 0])
    return outputs


def _multilevel_probe(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    clip = _frames_first(inputs["clip_seg0_view0"])
    levels = model.vjepa2(clip, out_layers=model.config.out_layers).out_layer_hidden_states
    logits, probabilities = _views(model, inputs)
    return {
        "tokens_single": torch.cat(levels, dim=1),
        "logits_single": model(clip).logits,
        "logits_views": logits,
        "prob": probabilities,
    }


def _anticipated(steps: int, model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = model(_frames_first(inputs["video"]), inputs["anticipation_times"])
    return {
        f"tokens_steps{steps}": output.last_hidden_state,
        f"verb_steps{steps}": output.verb_logits,
        f"noun_steps{steps}": output.noun_logits,
        f"action_steps{steps}": output.logits,
    }


def _predicted_alone(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"tokens_noenc": model(_frames_first(inputs["video"]), inputs["anticipation_times"]).last_hidden_state}


def _actions(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    conditions = {name: inputs[name] for name in ("actions", "states")}
    first = {name: given[:, :1] for name, given in conditions.items()}
    output = model(_frames_first(inputs["frames"]), **conditions)
    features = model.encode_frames(_frames_first(inputs["frames"]))
    return {
        "tokens": output.last_hidden_state,
        "pred": output.predictor_output.last_hidden_state,
        "pred_T1": model(features=features[:, :1], **first).predictor_output.last_hidden_state,
        "rollout": model.rollout(features[:, :1], **conditions).flatten(1, 3),
    }


def _extrinsics(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    features = inputs["tokens"].unflatten(1, (-1, 4, 4))  # (B, T, h, w, D)
    conditions = {name: inputs[name] for name in ("actions", "states", "extrinsics")}
    return {"pred": model(features=features, **conditions).predictor_output.last_hidden_state}


def _levels(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = model(_frames_first(inputs["video"]), out_layers=[2, 8, 11])
    layers = zip((2, 8, 11), output.out_layer_hidden_states, strict=True)
    return {"video_last": output.last_hidden_state, **{f"video_out_{i}": layer for i, layer in layers}}


def _other_inputs(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, masks = _frames_first(inputs["video"]), [inputs["mask_0"], inputs["mask_1"]]
    others = ("image", "video_ns", "image_ns")
    return {
        **{f"{name}_last": model(_frames_first(inputs[name])).last_hidden_state for name in others},
        "video_masked": model(video, context_mask=masks).last_hidden_state,
        "video_hier": model.get_vision_features(video),
    }


def _predictor_2_1(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The predictor as the hub builds it."""
    features, context, target = inputs["tokens"], inputs["mask_x"], inputs["mask_y"]
    outputs = {}
    for modality in ("video", "image"):
        for index in (0, 1, 4):
            predicted = model.predictor(features, context, target, Grid(2, 4, 4), index, image=modality == "image")
            outputs[f"{modality}_index{index}_pred"] = predicted.last_hidden_state
            outputs[f"{modality}_index{index}_context"] = predicted.context_predictions
    images = (inputs[name] for name in ("tokens_img", "mask_x_img", "mask_y_img"))
    outputs["image1_pred"] = model.predictor(*images, Grid(1, 4, 4), image=True).last_hidden_state
    return outputs


def _predictor_in_training(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    masked = (inputs[name] for name in ("tokens", "mask_x", "mask_y"))
    return {"video_interp_rope_pred": model.predictor(*masked, Grid(2, 4, 4)).last_hidden_state}


PREDICTOR_2_1 = (
    GoldenRun(
        "as in training",
        partial(_predictor_arguments, "target_encoder", pred_interpolate_rope=True),
        _predictor_in_training,
    ),
    GoldenRun("as from the hub", partial(_predictor_arguments, "target_encoder"), _predictor_2_1),
)


def _predictor_alone(entry: str, *unused_mask_tokens: int) -> dict[str, str]:
    return {
        **dict.fromkeys(ENCODERS[entry], "the case was recorded from the predictor alone"),
        **{f"mask_tokens.{index}": "no recorded call chooses this mask token" for index in unused_mask_tokens},
    }


# Of several runs the quickest comes first: tests of single tensors go on with what it doesn't notice.
GOLDENS = (
    GoldenCase("a_encoder_native", (_run(_native),)),
    GoldenCase("b_encoder_other_square", (_run(_sizes),)),
    GoldenCase("c_encoder_nonsquare", (_run(_sizes),), committed=True),
    GoldenCase("d_encoder_masks", (_run(_encoder_masks),)),
    GoldenCase(
        "e_predictor",
        (_run(_full_prediction, "of everything"), _run(_predictions, "with masks")),
        committed=True,
        blind={"mask_tokens.2": "no recorded call chooses this mask token (its index modulo 4 is 2)"},
    ),
    GoldenCase("f1_probe", tuple(_run(partial(_probe, head), f"head {head}", probe_index=head) for head in (0, 1))),
    GoldenCase("f2_probe_multilevel", (_run(_multilevel_probe),)),
    GoldenCase(
        "f3_action_anticipation",
        (
            _run(partial(_anticipated, 1), "one step"),
            _run(partial(_anticipated, 2), "two steps", anticipation_num_steps=2),
            _run(_predicted_alone, "predicted alone", anticipation_use_encoder_tokens=False),
        ),
        committed=True,
        blind={
            f"mask_tokens.{index}": "action anticipation always predicts with the mask token of index 1"
            for index in (0, 2)
        },
    ),
    GoldenCase(
        "g1_ac",
        (_run(_actions),),
        blind={
            f"extrinsics_encoder.{leaf}": "the model was built to ignore extrinsics" for leaf in ("weight", "bias")
        },
    ),
    GoldenCase(
        "g2_ac_extrinsics",
        (GoldenRun("", partial(_predictor_arguments, "encoder"), _extrinsics),),
        committed=True,
        blind=_predictor_alone("encoder"),
    ),
    GoldenCase("h1_v21_encoder", (_run(_levels, "levels"), _run(_other_inputs, "other inputs"))),
    GoldenCase("h2_v21_predictor_hier4", PREDICTOR_2_1, blind=_predictor_alone("target_encoder", 2)),
    GoldenCase(
        "h3_v21_predictor_distilled",
        PREDICTOR_2_1,
        committed=True,
        blind=_predictor_alone("target_encoder", 2, 3, 5, 6, 7),
    ),
)


def _normalized(values: tuple[int, int, int]) -> tuple[float, float, float]:
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
    return tuple((value / 255 - mean[i]) / deviation[i] for i, value in enumerate(values))


SPEC = FamilySpec(
    family=VJEPA2,
    tiny=TINY,
    size=SIZE,
    models=(MODEL, CLASSIFIER, ANTICIPATION, ACTION_CONDITIONED),
    processor=ProcessorSpec(
        arguments={"crop_size": 32},
        output="pixel_values_videos",
        frame_shape=(3, 32, 32),
        normalized=_normalized,
    ),
    tested_apart={
        "VJEPA2ForPreTraining": "made of models above, it records no states: SPEC_TRAINING",
        "VJEPA2ACForPreTraining": "likewise",
    },
    goldens=GOLDENS,
    unused_sizes={"crop_size": 64, "frames_per_clip": 32},
    many_frames=VideoSize(640, 8, 8),
    machine_code=True,
)


def _pretraining(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    return {**_video(config, batch, size, seed), **_masked(config, batch, size)}


def _driven(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, torch.Tensor]:
    inputs = _robot(config, batch, size, seed)
    return inputs | {"actions": inputs["actions"][:, :-1]}


def _frozen(name: str, part: str, reason: str, **fields: Any) -> dict[str, str]:
    """The parameters of a part that no training changes."""
    with torch.device("meta"):
        model = getattr(vidformers, name)(vidformers.VJEPA2Config(**TINY, **fields))
    return {key: reason for key, _ in model.named_parameters() if key.startswith(f"{part}.")}


PRETRAINING = ModelSpec(
    name="VJEPA2ForPreTraining",
    inputs=_pretraining,
    output="predicted_hidden_states.0.0",
    output_shape=lambda config, batch, size: (batch, 5, config.hidden_size),
    stock="transformers has no pre-training of V-JEPA 2",
    export="it returns losses, which are no use without a backward pass",
    idle=_frozen("VJEPA2ForPreTraining", "teacher", "it follows the encoder"),
    shallow=SHALLOW,
)
DRIVEN = ModelSpec(
    name="VJEPA2ACForPreTraining",
    inputs=_driven,
    output="predicted_hidden_states",
    output_shape=lambda config, batch, size: (batch, size.frames - 1, 4, 4, config.hidden_size),
    config={"use_extrinsics": True},
    stock="transformers has no action-conditioned model",
    export=PRETRAINING.export,
    idle=_frozen("VJEPA2ACForPreTraining", "encoder", "it stays as it is", use_extrinsics=True),
    shallow=SHALLOW,
)
NO_STATES = "it records no states (`records_states`); the models that it is made of do, and are tested for it"
FROZEN_BLOCKS = "the blocks of its frozen encoder run without gradients, so that nothing of them is computed again"
SPEC_TRAINING = replace(
    SPEC,
    models=(PRETRAINING, DRIVEN),
    machine_code=False,
    skips={
        "test_hidden_states_and_attentions": NO_STATES,
        "test_records_can_be_configured": NO_STATES,
        "test_gradient_checkpointing": FROZEN_BLOCKS,
    },
)
SPEC_2_1 = replace(
    SPEC,
    models=(FOUR_LEVELS, DISTILLED),
    machine_code=False,
    skips={"test_adapters_learn": "no single call trains what is for images and what is for videos"},
)
