"""V-JEPA 2 in pre-training: the original's steps, the teacher, and what a Trainer needs."""

import copy
import unittest
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.goldens_of_training import case, cases, part
from tests.harness.modeling import ClassifierMixin, DeviceMixin, OutputMixin, StorageMixin, TrainingMixin
from tests.vjepa2.spec import SPEC_TRAINING
from vidformers import VJEPA2Config, VJEPA2ForPreTraining, VJEPA2Model, load_original
from vidformers.conversion import ConversionError, reverse_directory
from vidformers.training import (
    cosine_decay_schedule,
    linear_decay_schedule,
    momentum_schedule,
    warmup_cosine_schedule,
)


class TrainingModelTest(StorageMixin, OutputMixin, ClassifierMixin, DeviceMixin, TrainingMixin, unittest.TestCase):
    """The models with losses, of V-JEPA 2 and 2-AC. What other mixins ask holds for the models that they are made of.

    Graphs, positions and attention are those models' own, and tools for modules see encoder and predictor called
    once for each mask, and the frozen one without gradients.
    """

    spec = SPEC_TRAINING


TOLERANCE = 1e-5
AFTER_STEPS = 5e-5
TINY = {
    "patch_size": 8,
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pred_hidden_size": 12,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 2,
    "initializer_range": 0.2,
}
LEVELS = {
    "use_rope_interleave": True,
    "interpolate_rope": True,
    "pred_interpolate_rope": True,
    "use_modality_embeddings": True,
    "use_image_patch_embedder": True,
    "hierarchical_layers": [0, 2],
    "num_distillation_outputs": 2,
    "use_context_projection": True,
}


def original_file(tmp_path: Path, given: Any, teacher: dict[str, torch.Tensor] | None = None) -> Path:
    """The weights of a case as a file of the original."""
    encoder = part(given.weights, "encoder.")
    sections = {
        "encoder": encoder,
        "predictor": part(given.weights, "predictor."),
        "target_encoder": teacher or encoder,
    }
    file = {name: {f"module.backbone.{key}": each for key, each in part.items()} for name, part in sections.items()}
    path = tmp_path / "latest.pt"
    torch.save({**file, "epoch": 1}, path)
    return path


def loaded(tmp_path: Path, given: Any) -> VJEPA2ForPreTraining:
    sizes = given.hyperparameters
    loss = sizes.get("loss", {})
    return VJEPA2ForPreTraining.from_original(
        original_file(tmp_path, given),
        num_attention_heads=sizes["num_heads"],
        pred_num_attention_heads=sizes["pred_num_heads"],
        crop_size=sizes["img_size"],
        frames_per_clip=max(sizes["dataset_fpcs"]),
        loss_exp=loss.get("loss_exp", 1.0),
        weight_distance_loss=loss.get("weight_distance_loss", False),
    )


def inputs_of(given: Any, step: int) -> dict[str, Any]:
    """The arguments of a recorded step."""
    groups, masks = len(set(given.hyperparameters["dataset_fpcs"])), len(given.hyperparameters["masks"])
    return {
        "pixel_values_videos": [
            given.inputs[f"step{step}_group{group}_clip"].transpose(1, 2) for group in range(groups)
        ],
        **{
            name: [
                [given.inputs[f"step{step}_group{group}_mask{mask}_{kind}"] for mask in range(masks)]
                for group in range(groups)
            ]
            for name, kind in (("context_mask", "enc"), ("target_mask", "pred"))
        },
    }


def original_names(model: VJEPA2ForPreTraining, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of ours under the original's names, in the sections of its file."""
    from vidformers.conversion.load import form_of
    from vidformers.conversion.rules import reverse

    rules = [rule for rule in form_of(model).rules(model.config) if all(name in tensors for name in rule.ours)]
    return {name.replace("/", "."): each for name, each in reverse(rules, tensors.__getitem__)}


def compared(given: Any, expected: dict[str, torch.Tensor], actual: dict[str, torch.Tensor], tolerance: float) -> int:
    """Compare what was recorded, but mask tokens of no length and biases of keys; the number of tensors."""
    unused = range(len(set(given.hyperparameters["dataset_fpcs"])), 100)
    for name, value in expected.items():
        if any(name.endswith(f"mask_tokens.{number}") for number in unused):
            continue
        ours = actual[name]
        if name.endswith("attn.qkv.bias"):
            value, ours = (each.unflatten(0, (3, -1))[[0, 2]] for each in (value, ours))
        torch.testing.assert_close(ours, value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")
    return len(expected)


def schedules(given: Any, step: int) -> tuple[float, float, float]:
    """Learning rate, weight decay and momentum of a recorded step, one iteration an epoch."""
    sizes, steps = given.hyperparameters["optimization"], given.hyperparameters["steps"]
    total = int(sizes["ipe_scale"] * steps)
    rates = {"ref": sizes["lr"], "final": sizes["final_lr"]}
    if sizes.get("is_anneal"):
        rate = linear_decay_schedule(step, **rates, total_steps=total)
    else:
        rate = warmup_cosine_schedule(
            step, start=sizes["start_lr"], **rates, warmup_steps=int(sizes["warmup"]), total_steps=total
        )
    decay = cosine_decay_schedule(
        step, ref=sizes["weight_decay"], final=sizes["final_weight_decay"], total_steps=total
    )
    start, final = sizes["ema"]
    return rate, decay, momentum_schedule(step, start=start, final=final, total_steps=steps * sizes["ipe_scale"])


@pytest.mark.parametrize("name", cases("a5_train") + cases("a6_train"))
def test_training_of_the_original(name, tmp_path):
    given = case(name)
    model = loaded(tmp_path, given)
    model.train()
    settings = given.hyperparameters["optimization"]
    optimizer = torch.optim.AdamW(
        model.parameter_groups(0.04), betas=settings.get("betas", (0.9, 0.999)), eps=settings.get("eps", 1e-8)
    )
    weight = given.hyperparameters.get("model", {}).get("lambda_value_vid")
    for step in range(given.hyperparameters["steps"]):
        rate, decay, momentum = schedules(given, step)
        for group, (expected_rate, expected_decay) in zip(
            optimizer.param_groups, given.lr_wd_per_group_per_step[step], strict=True
        ):
            group["lr"] = rate
            group["weight_decay"] = decay if group["weight_decay"] else 0.0
            assert group["lr"] == pytest.approx(expected_rate)
            assert group["weight_decay"] == pytest.approx(expected_decay)
        output = model(**inputs_of(given, step), context_loss_weight=weight)
        assert output.loss.item() == pytest.approx(given.losses[step], abs=TOLERANCE)
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            check_first_step(given, model, output)
        optimizer.step()
        model.update_teacher(momentum)
        after = original_names(model, {name: each.detach() for name, each in model.state_dict().items()})
        for section, ours in (("encoder", "encoder"), ("predictor", "predictor"), ("target_encoder", "teacher")):
            compared(given, part(given.outputs, f"step{step}.{section}."), part(after, f"{ours}."), AFTER_STEPS)
    assert part(given.outputs, f"step{step}.target_encoder.") or part(given.outputs, f"step{step}.encoder.")


def check_first_step(given: Any, model: VJEPA2ForPreTraining, output: Any) -> None:
    """Features, predictions and gradients of a case's first step."""
    found = 0
    for group in range(len(output.target_hidden_states)):
        place = f"_group{group}" if f"step0.target_group{group}" in given.outputs else ""
        recorded = {f"step0.target{place}": output.target_hidden_states[group]}
        for mask, predicted in enumerate(output.predicted_hidden_states[group]):
            recorded[f"step0.pred{place}_mask{mask}"] = predicted
            if output.context_predictions is not None:
                recorded[f"step0.context{place}_mask{mask}"] = output.context_predictions[group][mask]
        for name, value in recorded.items():
            if name in given.outputs:
                found += 1
                torch.testing.assert_close(value, given.outputs[name], rtol=0, atol=TOLERANCE)
    assert found >= 2
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    expected = part(given.outputs, "step0.grad.")
    assert compared(given, expected, original_names(model, gradients), AFTER_STEPS) > 30


# ----------------------------------------------------------------------------------------------------- what it is


def build(**fields: Any) -> VJEPA2ForPreTraining:
    torch.manual_seed(0)
    return VJEPA2ForPreTraining(VJEPA2Config(**{**TINY, **fields}))


def example(batch: int = 2, frames: int = 4, size: tuple[int, int] = (32, 32), counts=((5, 3), (7, 2))) -> dict:
    generator = torch.Generator().manual_seed(batch)
    tokens = max(frames // 2, 1) * (size[0] // 8) * (size[1] // 8)
    order = [torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)]) for _ in counts]
    return {
        "pixel_values_videos": torch.randn(batch, frames, 3, *size, generator=generator),
        "context_mask": [row[:, :k] for row, (k, _) in zip(order, counts, strict=True)],
        "target_mask": [row[:, k : k + n] for row, (k, n) in zip(order, counts, strict=True)],
    }


@pytest.mark.parametrize(
    "fields", [{}, LEVELS, {**LEVELS, "weight_distance_loss": True}], ids=["2", "2.1", "weighted"]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("counts", [((5, 3),), ((1, 1), (6, 4), (2, 9))], ids=["one mask", "three masks"])
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_any_batch_grid_and_number_of_masks(fields, batch, counts, size):
    model, given = build(**fields, pred_positions_from_input=True), example(batch, 4, size, counts)
    output = model(**given)
    assert torch.isfinite(output.loss)
    assert [tuple(each.shape[:2]) for each in output.predicted_hidden_states[0]] == [(batch, n) for _, n in counts]
    alone = [
        model(given["pixel_values_videos"], [context], [target]).loss
        for context, target in zip(given["context_mask"], given["target_mask"], strict=True)
    ]
    torch.testing.assert_close(output.loss, torch.stack(alone).mean())
    output.loss.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_a_length_has_the_mask_token_of_its_place():
    model = build(pred_zero_init_mask_tokens=False)
    first, second = example(2, 4), example(1, 2)
    both = {name: [first[name], second[name]] for name in first}
    output = model(**both)
    alone = model(**first)
    torch.testing.assert_close(output.predicted_hidden_states[0][0], alone.predicted_hidden_states[0][0])
    asked = model.vjepa2(
        second["pixel_values_videos"], second["context_mask"][1], second["target_mask"][1], mask_index=1
    ).predictor_output.last_hidden_state
    torch.testing.assert_close(output.predicted_hidden_states[1][1], asked)
    expected = (2 * alone.loss + 2 * (2 * output.loss - alone.loss)) / 4
    torch.testing.assert_close(output.loss, expected)


def test_images_have_their_own_embedding():
    model = build(**LEVELS)
    loss = model(**example(2, 1, counts=((5, 3),))).loss
    loss.backward()
    embeddings = model.vjepa2.encoder.embeddings
    assert embeddings.patch_embeddings.proj.weight.grad is None
    assert embeddings.patch_embeddings_img.proj.weight.grad.abs().max() > 0


def test_the_teacher_begins_as_the_encoder_and_follows():
    model = build()
    encoder, teacher = model.vjepa2.encoder.state_dict(), model.teacher.state_dict()
    assert all(torch.equal(encoder[name], teacher[name]) for name in encoder)
    before = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in model.vjepa2.encoder.parameters():
            parameter.add_(1.0)
    model.update_teacher(0.75)
    for name, value in model.teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25)
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    assert not model.train().teacher.training


def test_groups_hold_every_learned_parameter_once():
    model = build(**LEVELS)
    groups = model.parameter_groups(0.04)
    assert [group["weight_decay"] for group in groups] == [0.04, 0.04, 0.0, 0.0]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    learned = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(learned)
    assert all(parameter.ndim > 1 for group in groups[:2] for parameter in group["params"])


def test_directories_keep_the_teacher(tmp_path):
    model = build()
    with torch.no_grad():
        model.teacher.layernorm.weight.add_(1.0)
    model.save_pretrained(tmp_path)
    again = VJEPA2ForPreTraining.from_pretrained(tmp_path)
    expected, actual = model.state_dict(), again.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert not any(parameter.requires_grad for parameter in again.teacher.parameters())
    features = again.features_model()
    video = example()["pixel_values_videos"]
    with torch.no_grad():
        torch.testing.assert_close(features.get_feature_map(video), again.get_feature_map(video))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_teacher_stays_in_single_precision(tmp_path, dtype):
    build().save_pretrained(tmp_path)
    model = VJEPA2ForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    assert {each.dtype for each in model.vjepa2.parameters()} == {dtype}
    assert {each.dtype for each in model.teacher.parameters()} == {torch.float32}
    before = model.teacher.layernorm.weight.clone()
    with torch.no_grad():
        model.vjepa2.encoder.layernorm.weight.add_(1.0)
    model.update_teacher(0.99925)
    torch.testing.assert_close(model.teacher.layernorm.weight, before + 0.00075)
    assert model(**example()).loss.isfinite()


def test_a_directory_without_a_teacher_gives_its_encoder(tmp_path):
    torch.manual_seed(1)
    VJEPA2Model(VJEPA2Config(**TINY)).save_pretrained(tmp_path)
    model, plain = VJEPA2ForPreTraining.from_pretrained(tmp_path), VJEPA2Model.from_pretrained(tmp_path)
    for name, value in plain.encoder.state_dict().items():
        assert torch.equal(model.vjepa2.encoder.state_dict()[name], value)
        assert torch.equal(model.teacher.state_dict()[name], value)


@pytest.mark.parametrize("name", cases("a5_train_v2_two") + cases("a6_train_v21_image"))
def test_files_come_back(name, tmp_path):
    given = case(name)
    encoder = part(given.weights, "encoder.")
    teacher = {key: value + 1 for key, value in encoder.items()}
    path = original_file(tmp_path, given, teacher)
    sizes = given.hyperparameters
    fields = {
        "num_attention_heads": sizes["num_heads"],
        "pred_num_attention_heads": sizes["pred_num_heads"],
        "crop_size": sizes["img_size"],
        "frames_per_clip": 8,
    }
    model = load_original(path, model_class=VJEPA2ForPreTraining, **fields)
    assert type(load_original(path, **fields)) is VJEPA2Model
    model.save_pretrained(tmp_path / "directory")
    reverse_directory(tmp_path / "directory", tmp_path / "back.pt")
    back, original = (torch.load(file, weights_only=True) for file in (tmp_path / "back.pt", path))
    for section in ("encoder", "predictor", "target_encoder"):
        assert back[section].keys() == original[section].keys()
        assert all(torch.equal(back[section][key], original[section][key]) for key in back[section])


def test_models_that_cannot_be_pretrained():
    with pytest.raises(ValueError, match="use_predictor"):
        build(use_predictor=False)
    with pytest.raises(ValueError, match="teacher_embed_dim"):
        build(teacher_embed_dim=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given | {"target_mask": given["target_mask"][:1]}, "pairs.*2 and 1"),
        (lambda given: given | {"context_mask": []}, "pairs"),
        (
            lambda given: given | {"pixel_values_videos": [given["pixel_values_videos"]] * 2, "context_mask": [[]]},
            "list",
        ),
        (lambda given: given | {"target_mask": [mask + 99 for mask in given["target_mask"]]}, "between 0 and 31"),
        (lambda given: given | {"pixel_values_videos": []}, "list"),
    ],
)
def test_inputs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        build()(**change(example()))


def test_files_without_a_teacher(tmp_path):
    given = case("a5_train_v2_two_lengths")
    file = original_file(tmp_path, given)
    content = torch.load(file, weights_only=True)
    del content["target_encoder"]
    torch.save(content, file)
    with pytest.raises(ConversionError, match="teacher/patch_embed.proj.weight"):
        VJEPA2ForPreTraining.from_original(file)


@pytest.mark.slow
def test_the_trainer_evaluates(tmp_path):
    from transformers import Trainer, TrainingArguments

    from vidformers.models.vjepa2 import VJEPA2MaskCollator

    collator = VJEPA2MaskCollator([{"spatial_scale": (0.3, 0.5)}], [4], crop_size=32, patch_size=8, tubelet_size=2)
    samples = [{"pixel_values_videos": torch.randn(4, 3, 32, 32)} for _ in range(3)]
    trainer = Trainer(
        model=build(),
        args=TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, remove_unused_columns=False, max_steps=1),
        data_collator=collator.model_inputs,
        train_dataset=samples,
        eval_dataset=samples,
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.slow
def test_the_trainer_follows_a_recipe(tmp_path):
    """Its steps are those of a loop with the same rates; weight decay and the weight of context tokens change, too."""
    from transformers import Trainer, TrainingArguments

    from vidformers.commands.pretrain import change, recipes
    from vidformers.training import RecipeCallback, context_weight_schedule

    recipe = change(
        recipes()["vjepa2.1-vitl-pretrain"][1],
        {"steps": 3, "warmup_steps": 2, "final_weight_decay": 0.4, "momentum": 0.5, "context_loss_steps": (0, 2)},
    )
    given, models = example(2, 4), [build(**LEVELS), build(**LEVELS)]
    optimizers = [torch.optim.AdamW(model.parameter_groups(0.04)) for model in models]
    for step, rate in enumerate((3.5e-4, 6e-4, 6e-4)):
        decay = cosine_decay_schedule(step, ref=0.04, final=0.4, total_steps=3)
        for group, decays in zip(optimizers[0].param_groups, (True, True, False, False), strict=True):
            group["lr"], group["weight_decay"] = rate, decay * decays
        weight = context_weight_schedule(step, value=0.5, start_step=0, end_step=2)
        models[0](**given, context_loss_weight=weight).loss.backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        models[0].update_teacher(0.5)
    trainer = Trainer(
        model=models[1],
        args=TrainingArguments(
            str(tmp_path),
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            max_steps=3,
            max_grad_norm=0,
            per_device_train_batch_size=2,
        ),
        data_collator=lambda samples: given,
        train_dataset=[{"number": number} for number in range(6)],
        optimizers=(optimizers[1], None),
        callbacks=[RecipeCallback(recipe)],
    )
    trainer.train()
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
