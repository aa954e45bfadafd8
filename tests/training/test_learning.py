"""Metrics, losses, labels and the sampler: the original's numbers, and what holds for all."""

import math

import pytest
import torch

from tests.goldens_of_training import case, cases
from vidformers.training import ClassMeanRecall, WeightedSampler, feature_spread, sigmoid_focal_loss, unify_labels


@pytest.mark.parametrize("name", cases("c4_metrics"))
def test_metrics_of_the_original(name):
    given = case(name)
    sizes = given.hyperparameters
    meters = {"5": ClassMeanRecall(sizes["num_classes"]), "3_valid": ClassMeanRecall(sizes["num_classes"], k=3)}
    for number in range(sizes["batches"]):
        logits, labels = (given.inputs[f"b{number}_{kind}"] for kind in ("logits", "labels"))
        for kind, meter in meters.items():
            meter.update(logits, labels, sizes["valid_classes"] if "valid" in kind else None)
            for metric, value in meter.compute().items():
                assert value == pytest.approx(given.outputs[f"b{number}_{metric}{kind}"].item(), abs=1e-4)
    assert torch.equal(meters["5"].hits, given.outputs["TP"])
    assert torch.equal(meters["5"].misses, given.outputs["FN"])


@pytest.mark.parametrize("name", cases("c4_metrics"))
def test_focal_losses_of_the_original(name):
    given = case(name)
    checked = 0
    for key, expected in given.outputs.items():
        batch, *settings = key.split("_")
        if len(settings) != 4 or not settings[0].startswith("focal"):
            continue
        kind, alpha, gamma, reduction = settings
        logits = given.inputs[f"{batch}_logits"].clone().requires_grad_()
        loss = sigmoid_focal_loss(logits, given.inputs[f"{batch}_labels"], float(alpha), float(gamma), reduction)
        loss.backward()
        torch.testing.assert_close(logits.grad if kind == "focalgrad" else loss, expected, rtol=1e-5, atol=1e-5)
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("name", cases("c4_ek100"))
def test_labels_of_the_original(name):
    given = case(name)
    tables = {
        part: [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        for part, table in (("train", given.train_csv), ("val", given.val_csv))
    }
    everything = {row["video_id"] for rows in tables.values() for row in rows}
    labels = unify_labels(tables["train"], tables["val"], everything - set(given.missing_files))
    assert labels.verbs == dict(given.verbs)
    assert labels.nouns == dict(given.nouns)
    theirs = {(verb, noun): number for verb, noun, number in given.actions}
    assert labels.actions.keys() == theirs.keys()
    assert sorted(labels.actions.values()) == list(range(len(theirs)))
    assert (labels.val_verbs, labels.val_nouns) == (set(given.val_verbs), set(given.val_nouns))
    names = {number: pair for pair, number in labels.actions.items()}
    assert {theirs[names[number]] for number in labels.val_actions} == set(given.val_actions)
    for part in ("train", "val"):
        recorded = getattr(given, part)
        expected = [row for video in recorded["order"] for row in recorded["rows"][video]]
        assert [list(row.values()) for row in labels[part]] == expected


@pytest.mark.parametrize("name", cases("c8_weighted"))
def test_samples_of_the_original(name):
    given = case(name)
    sizes = given.hyperparameters
    for key, expected in given.outputs.items():
        epoch, rank = (int(text.strip("epochrank")) for text in key.split("_"))
        sampler = WeightedSampler(
            sizes["sizes"], sizes["datasets_weights"], sizes["world_size"], rank, seed=sizes["seed"]
        )
        sampler.set_epoch(epoch)
        assert list(sampler) == expected.tolist()
        assert len(sampler) == len(expected)


@pytest.mark.parametrize("sizes", [[1], [3, 4], [5, 0, 2], [1000, 10]])
@pytest.mark.parametrize("replicas", [1, 3])
def test_shares_of_data_sets(sizes, replicas):
    weights = [1.0] * len(sizes)
    drawn = [list(WeightedSampler(sizes, weights, replicas, rank)) for rank in range(replicas)]
    assert {len(each) for each in drawn} == {math.ceil(sum(sizes) / replicas)}
    assert all(0 <= index < sum(sizes) for each in drawn for index in each)
    if sizes == [1000, 10]:
        share = sum(index < 1000 for each in drawn for index in each) / sum(map(len, drawn))
        assert share == pytest.approx(0.5, abs=0.1)


def test_samplers_that_cannot_be():
    with pytest.raises(ValueError, match="weight of each"):
        WeightedSampler([1, 2], [1.0])
    with pytest.raises(ValueError, match="`rank`"):
        WeightedSampler([1], [1.0], 2, 2)
    with pytest.raises(ValueError, match="No data set"):
        WeightedSampler([0, 3], [1.0, 0.0])


def test_metrics_of_few_classes():
    meter = ClassMeanRecall(2)
    with pytest.raises(ValueError, match="No video"):
        meter.compute()
    meter.update(torch.zeros(3, 2), torch.tensor([1, 1, 1]))
    assert meter.compute() == {"recall": 100.0, "accuracy": 100.0}
    with pytest.raises(ValueError, match=r"\(batch, 2\)"):
        meter.update(torch.zeros(3, 4), torch.zeros(3))


@pytest.mark.parametrize("change", [{"verb_class": "run"}, {"start_frame": None}])
def test_rows_that_are_none(change):
    row = {"video_id": "a", "start_frame": "3", "stop_frame": 5, "verb_class": "1", "noun_class": 2}
    assert unify_labels([row], []).actions == {(1, 2): 0}
    with pytest.raises(ValueError, match="whole numbers"):
        unify_labels([{**row, **change}], [])
    with pytest.raises(ValueError, match="lacks video_id"):
        unify_labels([{key: value for key, value in row.items() if key != "video_id"}], [])
    with pytest.raises(ValueError, match="no annotation"):
        unify_labels([], [row])


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_the_spread_of_features(directions):
    axes = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q[:directions]
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * directions).reshape(-1, directions)
    spread = feature_spread(5 + signs @ axes)
    assert spread["effective_rank"].item() == pytest.approx(directions, rel=1e-4)
    scaled = feature_spread(3 * signs @ axes)
    assert scaled["std"] == pytest.approx(3 * spread["std"]) and spread["std"] > 0


def test_features_that_have_collapsed():
    spread = feature_spread(torch.full((6000, 4), 2.0))
    assert spread["std"] == 0 and spread["effective_rank"] == 1
    assert feature_spread(torch.full((9, 4), torch.nan))["std"].isnan()
