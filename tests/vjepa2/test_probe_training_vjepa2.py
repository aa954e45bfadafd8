"""Training of V-JEPA 2's probes: the original's iterations, and what a trainer promises."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.goldens_of_training import case, cases, part
from vidformers import VJEPA2Config, VJEPA2ForActionAnticipation, VJEPA2ForVideoClassification, load_original
from vidformers.training import ClassMeanRecall, ProbeTrainer


AFTER_STEPS = 5e-5
TINY = {
    "patch_size": 8,
    "crop_size": 16,
    "frames_per_clip": 2,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_pooler_layers": 1,
    "pooler_num_attention_heads": 2,
    "num_labels": 3,
    "initializer_range": 0.2,
}


def original_models(given: Any, tmp_path: Path) -> list[Any]:
    """The model of a case, with each of its heads, out of files as the original writes them."""
    sizes = given.hyperparameters
    checkpoint = {"target_encoder": part(given.weights, "encoder."), "predictor": part(given.weights, "predictor.")}
    heads = [part(given.weights, f"head{number}.") for number in range(len(given.heads))]
    prefixed = {
        name: {f"module.backbone.{key}": each for key, each in tensors.items()} for name, tensors in checkpoint.items()
    }
    torch.save({name: tensors for name, tensors in prefixed.items() if tensors}, tmp_path / "checkpoint.pt")
    torch.save(
        {"classifiers": [{f"module.{key}": each for key, each in head.items()} for head in heads]},
        tmp_path / "probe.pt",
    )
    fields = {
        "num_attention_heads": sizes["num_heads"],
        "pooler_num_attention_heads": sizes["probe_heads"],
        "crop_size": sizes["img_size"],
        "frames_per_clip": sizes["frames"],
    }
    if "out_layers" in sizes:
        fields["out_layers"] = sizes["out_layers"]
    if "pred_frames" in sizes:
        fields |= {"pred_num_attention_heads": sizes["num_heads"], "anticipation_frames_per_second": sizes["fps"]}
    return [
        load_original(tmp_path / "checkpoint.pt", probe=tmp_path / "probe.pt", probe_index=number, **fields)
        for number in range(len(heads))
    ]


def head_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: each for name, each in model.state_dict().items() if not name.startswith("vjepa2.")}


def trainer_of(models: list[Any], given: Any, **options: Any) -> ProbeTrainer:
    return ProbeTrainer(
        models[0],
        [head_of(model) for model in models],
        given.heads,
        iterations_per_epoch=2,
        num_epochs=given.hyperparameters["epochs"],
        **options,
    )


def check_heads(given: Any, trainer: ProbeTrainer) -> None:
    """Compare the heads after training, without biases of keys."""
    from vidformers.conversion.load import form_of
    from vidformers.conversion.rules import reverse

    rules = [
        rule for rule in form_of(trainer.model).rules(trainer.model.config) if rule.theirs[0].startswith("probe/")
    ]
    for number, head in enumerate(trainer.heads):
        actual = {name.removeprefix("probe/"): each for name, each in reverse(rules, head.state_dict().__getitem__)}
        expected = part(given.outputs, f"final.head{number}.")
        assert not expected or expected.keys() == actual.keys()
        for name, value in expected.items():
            ours = actual[name]
            if name.endswith("attn.qkv.bias"):
                value, ours = (each.unflatten(0, (3, -1))[[0, 2]] for each in (value, ours))
            if name.endswith("xattn.kv.bias"):
                value, ours = (each.chunk(2)[1] for each in (value, ours))
            torch.testing.assert_close(
                ours, value, rtol=0, atol=AFTER_STEPS, msg=lambda text, name=name: f"{name}: {text}"
            )


def check_rates(given: Any, trainer: ProbeTrainer, step: int) -> None:
    count = len(trainer.heads)
    for entry in given.optimizer_log[step * count : (step + 1) * count]:
        (group,) = trainer.optimizers[entry["head"]].param_groups
        assert (group["lr"], group["weight_decay"]) == pytest.approx((entry["lr"], entry["wd"]))


@pytest.mark.parametrize("name", cases("c5_probe"))
def test_classifiers_of_the_original(name, tmp_path):
    given = case(name)
    sizes = given.hyperparameters
    trainer = trainer_of(original_models(given, tmp_path), given)
    for step in range(2):
        segments = [given.inputs[f"train{step}_seg{index}"].transpose(1, 2) for index in range(sizes["segments"])]
        losses = trainer.train_step(
            pixel_values_videos=torch.stack(segments, dim=1), labels=given.inputs[f"train{step}_labels"]
        )
        torch.testing.assert_close(losses, given.outputs["train_losses"][step], rtol=0, atol=1e-5)
        check_rates(given, trainer, step)
    check_heads(given, trainer)
    views = [
        torch.stack(
            [given.inputs[f"val0_seg{index}_view{view}"].transpose(1, 2) for index in range(sizes["segments"])], dim=1
        )
        for view in range(sizes["views"])
    ]
    outputs = trainer.predict(pixel_values_videos=torch.stack(views, dim=1))
    for number, output in enumerate(outputs):
        expected = given.outputs[f"val0_head{number}_logits"].transpose(0, 1)
        torch.testing.assert_close(output.view_logits, expected, rtol=0, atol=AFTER_STEPS)
        probabilities = given.outputs.get(f"val0_head{number}_probs")
        torch.testing.assert_close(output.logits.softmax(-1), probabilities, rtol=0, atol=AFTER_STEPS)


@pytest.mark.parametrize("name", cases("c6_anticipation"))
def test_anticipation_of_the_original(name, tmp_path):
    given = case(name)
    trainer = trainer_of(
        original_models(given, tmp_path), given, loss="focal" if given.hyperparameters["focal"] else "cross_entropy"
    )
    numbers = {(verb, noun): number for verb, noun, number in given.actions}

    def batch(start: str) -> dict[str, torch.Tensor]:
        verbs, nouns = (given.inputs[f"{start}_{kind}"] for kind in ("verb", "noun"))
        pairs = zip(verbs.tolist(), nouns.tolist(), strict=True)
        return {
            "pixel_values_videos": given.inputs[f"{start}_clip"].transpose(1, 2),
            "anticipation_times": given.inputs[f"{start}_anticipation_time"],
            "labels": torch.tensor([numbers[pair] for pair in pairs]),
            "verb_labels": verbs,
            "noun_labels": nouns,
        }

    for step in range(2):
        losses = trainer.train_step(**batch(f"train{step}"))
        torch.testing.assert_close(losses, given.outputs["train_losses"][step].sum(0), rtol=1e-5, atol=1e-5)
        check_rates(given, trainer, step)
    check_heads(given, trainer)
    validation = batch("val0")
    outputs = trainer.predict(**validation)
    torch.testing.assert_close(outputs[0].last_hidden_state, given.outputs["val0_tokens"], rtol=0, atol=1e-5)
    best = {"accuracy": 0.0, "recall": 0.0}
    for number, output in enumerate(outputs):
        for kind, logits in (("verb", output.verb_logits), ("noun", output.noun_logits), ("action", output.logits)):
            torch.testing.assert_close(logits, given.outputs[f"val0_head{number}_{kind}"], rtol=0, atol=AFTER_STEPS)
        meter = ClassMeanRecall(output.logits.shape[1])
        meter.update(output.logits, validation["labels"])
        best = {metric: max(value, best[metric]) for metric, value in meter.compute().items()}
    assert best == pytest.approx(given.val_metrics["action"], abs=1e-4)


@pytest.mark.parametrize("name", cases("c7_image"))
def test_image_classifiers_of_the_original(name, tmp_path):
    given = case(name)
    trainer = trainer_of(original_models(given, tmp_path), given)

    def still(index: int) -> torch.Tensor:
        return given.inputs[f"b{index}_images"][:, None].expand(-1, given.hyperparameters["frames"], -1, -1, -1)

    for step in range(2):
        trainer.train_step(pixel_values_videos=still(step), labels=given.inputs[f"b{step}_labels"])
        check_rates(given, trainer, step)
    for number, output in enumerate(trainer.predict(pixel_values_videos=still(0))):
        torch.testing.assert_close(output.logits, given.outputs[f"head{number}_logits"], rtol=0, atol=AFTER_STEPS)


# ------------------------------------------------------------------------------------------------ what always holds

SETTING = {"ref_wd": 0.1, "final_wd": 0.1, "start_lr": 1e-3, "ref_lr": 1e-3, "final_lr": 0.0, "warmup": 0.0}


def build(kind: type = VJEPA2ForVideoClassification, **fields: Any) -> Any:
    torch.manual_seed(0)
    return kind(VJEPA2Config(**{**TINY, **fields}))


def test_heads_learn_as_if_each_were_alone():
    model = build()
    heads = [head_of(model), head_of(build(initializer_range=0.4))]
    settings = [SETTING, {**SETTING, "ref_lr": 1e-2, "warmup": 1.0}]
    numbers = {"iterations_per_epoch": 2, "num_epochs": 2}
    batch = {"pixel_values_videos": torch.randn(3, 2, 3, 16, 16), "labels": torch.tensor([0, 1, 2])}
    together = ProbeTrainer(model, heads, settings, **numbers)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    for _ in range(2):
        losses = together.train_step(**batch)
    for number in range(2):
        alone = ProbeTrainer(build(), [heads[number]], [settings[number]], **numbers)
        for _ in range(2):
            loss = alone.train_step(**batch)
        torch.testing.assert_close(losses[number], loss[0])
        actual, expected = together.heads[number].state_dict(), alone.heads[0].state_dict()
        assert actual.keys() == heads[number].keys()
        torch.testing.assert_close(actual, expected)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_losses_of_views_add_up():
    model, views = build(), torch.randn(2, 3, 1, 2, 3, 16, 16)
    labels, numbers = torch.tensor([0, 2]), {"iterations_per_epoch": 1, "num_epochs": 1}
    all_views = ProbeTrainer(model, [head_of(model)], [SETTING], **numbers).train_step(
        pixel_values_videos=views, labels=labels
    )
    apart = [
        ProbeTrainer(model, [head_of(model)], [SETTING], **numbers).train_step(
            pixel_values_videos=views[:, index], labels=labels
        )
        for index in range(3)
    ]
    torch.testing.assert_close(all_views, torch.stack(apart).sum(0))


def test_actions_without_verbs():
    model = build(
        VJEPA2ForActionAnticipation, pred_hidden_size=12, pred_num_attention_heads=2, pred_num_hidden_layers=1
    )
    trainer = ProbeTrainer(model, [head_of(model)], [SETTING], iterations_per_epoch=1, num_epochs=1, loss="focal")
    inputs = {"pixel_values_videos": torch.randn(2, 2, 3, 16, 16), "anticipation_times": torch.ones(2)}
    assert trainer.train_step(**inputs, labels=torch.tensor([0, 1])).shape == (1,)
    assert trainer.predict(**inputs)[0].verb_logits is None
    with pytest.raises(ValueError, match="labels"):
        trainer.train_step(**inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "cross_entropy, focal.*'hinge'"),
        ({"settings": []}, "as many settings"),
        ({"settings": [{"ref_lr": 1.0}]}, "as many settings"),
        ({"num_epochs": 0}, "`num_epochs`"),
    ],
)
def test_trainers_that_cannot_be(change, message):
    model = build()
    given = {"settings": [SETTING], "iterations_per_epoch": 1, "num_epochs": 1, **change}
    with pytest.raises(ValueError, match=message):
        ProbeTrainer(model, [head_of(model)], **given)
