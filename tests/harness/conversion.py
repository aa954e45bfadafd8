"""Checkpoint maps: complete, exactly invertible, and every tensor in its place counts."""

from collections import Counter
from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedModel

from vidformers.conversion import load_original, reverse_directory
from vidformers.conversion.core import Layout, Pair, check_sources, convert, expand, lookup, reverse
from vidformers.conversion.load import Plan, Request, planned
from vidformers.conversion.rooms import family_map

from .compare import assert_close
from .family_spec import FamilySpec, GoldenCase, GoldenRun, ModelSpec
from .family_test import FamilyTest, goldens, models, over
from .parity import find_case, load_arguments, parity
from .tolerances import EXACT


def layout_of(spec: FamilySpec, model: ModelSpec) -> Layout:
    """The map's layout of a model class."""
    return next(layout for layout in family_map(spec.family.model_type).layouts if layout.architecture == model.name)


def pairs_by_part(spec: FamilySpec, model: ModelSpec) -> dict[str, list[Pair]]:
    """The map written out for the tiny model, by part of the original files."""
    layout, config, maps = layout_of(spec, model), spec.config(model), family_map(spec.family.model_type)
    parts = {name: (maps.parts[name], layout.config_of(name, config)) for name in layout.parts}
    return {
        name: expand(part.rules, part_config, layout.parts[name])
        for name, (part, part_config) in parts.items()
        if part.presence is None or lookup(part_config, part.presence)
    }


class ConversionMixin(FamilyTest):
    """Tests of a family's map, with tiny models and with the checkpoints of golden cases."""

    def test_every_class_has_a_layout(self):
        layouts = {layout.architecture for layout in family_map(self.spec.family.model_type).layouts}
        assert layouts == set(self.spec.family.model_classes)

    @over(models)
    def test_every_tensor_has_one_rule(self, model: ModelSpec):
        pairs = [pair for part in pairs_by_part(self.spec, model).values() for pair in part]
        made = Counter(name for pair in pairs for name in pair.targets)
        assert made == Counter(list(self.spec.build(model).state_dict()))
        for name, part in pairs_by_part(self.spec, model).items():
            read = Counter(source for pair in part for source in pair.sources)
            twice = [source for source, count in read.items() if count > 1]
            assert not twice, f"{name}: more than one rule reads {twice}"

    @over(models)
    def test_round_trip(self, model: ModelSpec):
        """Ours → original → ours, bit for bit."""
        ours = self.spec.build(model).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in ours.items()}
        back = {}
        for name, pairs in pairs_by_part(self.spec, model).items():
            original = dict(reverse(pairs, ours.__getitem__))
            found = {source: tuple(tensor.shape) for source, tensor in original.items()}
            assert not check_sources(pairs, found, shapes), name
            back |= dict(convert(pairs, original.__getitem__))
        assert set(back) == set(ours)
        assert_close("there and back", ours, back, EXACT)

    @over(models)
    def test_round_trip_through_files(self, model: ModelSpec):
        folder = self.temporary_folder()
        """A saved model, reversed to the original's files, loads as the same model."""
        built = self.spec.build(model)
        built.save_pretrained(folder / "ours")
        parts = family_map(self.spec.family.model_type).parts
        files = {parts[name].file for name in layout_of(self.spec, model).parts}
        probe = folder / "probe.pt" if "probe" in files else None
        reverse_directory(folder / "ours", folder / "original.pt", probe_out=probe)
        fields = model.config if model.config_class else {**self.spec.tiny, **model.config}
        loaded = load_original(folder / "original.pt", probe=probe, model_class=model.model_class, **fields)
        assert type(loaded) is model.model_class
        assert_close("through files", built.state_dict(), loaded.state_dict(), EXACT)

    @over(goldens)
    def test_golden_files_come_back(self, golden: GoldenCase):
        """An original file → ours → original, bit for bit but for what the map drops."""
        folder = find_case(self.spec, golden)
        for run in golden.runs:
            with _plan(load_arguments(run, folder)) as plan:
                model = load_original(**load_arguments(run, folder))
                for name, pairs in plan.pairs.items():
                    kept = [source for pair in pairs if not pair.is_optional for source in pair.sources]
                    expected = {source: plan.found[name].read(source) for source in kept}
                    back = dict(reverse(pairs, model.state_dict().__getitem__))
                    assert set(back) == set(kept)
                    assert_close(f"{name} of {golden.folder}", expected, back, EXACT)

    @over(goldens)
    def test_parity_notices_every_tensor(self, golden: GoldenCase):
        """A change of any one tensor of the original file shows in the recorded outputs."""
        folder = find_case(self.spec, golden)
        unnoticed: list[set[str]] = []
        for run in golden.runs:
            with _plan(load_arguments(run, folder)) as plan:
                model = load_original(**load_arguments(run, folder))
                assert parity(golden, run, model, folder).first_diverging is None
                unnoticed.append(set(_unnoticed(plan, model, golden, run, folder)))
        by_all = sorted(set.intersection(*unnoticed))
        unexplained = [name for name in by_all if name not in {*golden.blind, *golden.faint}]
        assert not unexplained, "no recorded output shows a change of " + ", ".join(unexplained)
        noticed = sorted(set(golden.blind) - set(by_all))
        assert not noticed, "the spec calls these blind, but a change shows: " + ", ".join(noticed)


def _plan(arguments: dict):
    """What conversion plans for the arguments of `load_original`."""
    arguments = dict(arguments)
    path, probe, index = arguments.pop("path"), arguments.pop("probe", None), arguments.pop("probe_index", 0)
    model_class = arguments.pop("model_class", None)
    return planned(path, probe, Request(probe_index=index, model_class=model_class, overrides=arguments))


def _unnoticed(plan: Plan, model: PreTrainedModel, case: GoldenCase, run: GoldenRun, folder) -> Iterator[str]:
    """Original tensors that can change without any recorded output leaving its tolerance."""
    for part, pairs in plan.pairs.items():
        for pair in pairs:
            for source in pair.sources if not pair.is_optional else ():
                changed = dict(convert([pair], _perturbed(plan.found[part].read, source)))
                if _replaced_parity(model, changed, case, run, folder) is None:
                    yield source


def _replaced_parity(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], case: GoldenCase, run: GoldenRun, folder
) -> str | None:
    """The first recorded output that diverges while some of the model's tensors are others."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in tensors}
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
        try:
            return parity(case, run, model, folder).first_diverging
        finally:
            for name, tensor in before.items():
                parameters[name].copy_(tensor)


def _perturbed(read: Callable[[str], torch.Tensor], source: str) -> Callable[[str], torch.Tensor]:
    """A reader that returns one tensor with noise of a tenth of its own size."""

    def read_perturbed(name: str) -> torch.Tensor:
        tensor = read(name).float()
        if name != source:
            return tensor
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        return tensor + 0.1 * tensor.abs().mean().clamp_min(1e-2) * noise

    return read_perturbed
