"""Forms of original files: complete, exactly invertible, never mistaken, and every tensor in its place counts."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from transformers import PreTrainedModel

from vidformers.conversion import ConversionError, load, load_original, reverse_directory
from vidformers.conversion import rules as conversion_rules
from vidformers.conversion.load import Plan, Request, plan_of, planned
from vidformers.conversion.rules import (
    Bounded,
    Form,
    Rule,
    check_ours,
    check_theirs,
    convert,
    forms_of,
    reverse,
    their_shapes,
)
from vidformers.conversion.verify import compare_stage

from .compare import assert_close
from .family_spec import FamilySpec, GoldenCase, GoldenRun, ModelSpec
from .family_test import FamilyTest, goldens, models, over
from .parity import counted, find_case, load_arguments, parity, recorded, run_outputs
from .tolerances import EXACT


Shape = tuple[int, ...]


def forms(spec: FamilySpec, model: ModelSpec) -> list[tuple[Form, list[Rule]]]:
    """The forms whose rules make exactly the tensors of the tiny model, with these rules."""
    config, names = spec.config(model), list(spec.build(model).state_dict())
    found, problems = [], []
    for form in forms_of(spec.family.model_type):
        if form.architecture == model.name:
            rules = list(form.rules(config))
            held = [name for name in names if name.partition(".")[0] not in form.new_modules]
            if Counter(name for entry in rules for name in entry.ours) == Counter(held):
                found.append((form, rules))
            problems += [f"{form.title}: {problem}" for problem in check_ours(rules, held)]
    assert found, f"no form makes the tensors of {model.name}: " + "; ".join(problems)
    return found


class ConversionMixin(FamilyTest):
    """Tests of a family's forms, with tiny models and with the checkpoints of golden cases.

    Attributes:
        may_lack: patterns of original tensors without which a file is one of another model of the same form, with
            the reason; nobody can know then that it is damaged.
    """

    may_lack: ClassVar[dict[str, str]] = {}

    def test_every_class_has_a_form(self):
        made = {form.architecture for form in forms_of(self.spec.family.model_type)}
        assert made == set(self.spec.family.model_classes)
        titles = {form.title: form.architecture for form in forms_of(self.spec.family.model_type)}
        assert len(titles) == len(forms_of(self.spec.family.model_type))
        files, presets = self.spec.family.original_files, self.spec.family.presets.values()
        assert {titles[title]: title for title in files.values()} == files
        assert set(files) == {preset.architecture for preset in presets}

    @over(models)
    def test_every_tensor_has_one_rule(self, model: ModelSpec):
        for form, rules in forms(self.spec, model):
            read = Counter(name for entry in rules for name in entry.theirs)
            twice = [name for name, count in read.items() if count > 1]
            assert not twice, f"{form.title}: more than one rule reads {twice}"
            assert not form.new_modules or form.on_request

    @over(models)
    def test_round_trip(self, model: ModelSpec):
        """Ours → original → ours, bit for bit."""
        ours = self.spec.build(model).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in ours.items()}
        for form, rules in forms(self.spec, model):
            original = dict(reverse(rules, ours.__getitem__))
            found = {name: tuple(tensor.shape) for name, tensor in original.items()}
            assert not any(check_theirs(rules, found, shapes).values()), form.title
            back = dict(convert(rules, original.__getitem__))
            assert set(ours) == set(back) | {name for name in ours if name.partition(".")[0] in form.new_modules}
            assert_close("there and back", {name: ours[name] for name in back}, back, EXACT)

    @over(models)
    def test_round_trip_through_files(self, model: ModelSpec):
        """A saved model, reversed to the original's files, loads as the same model."""
        built, folder = self.spec.build(model), self.temporary_folder()
        built.save_pretrained(folder / "ours")
        probe = folder / "probe.pt" if "probe" in load.form_of(built).files else None
        reverse_directory(folder / "ours", folder / "original.pt", probe_out=probe)
        loaded = load_original(
            folder / "original.pt", probe=probe, model_class=model.model_class, **_fields(self.spec, model)
        )
        assert type(loaded) is model.model_class
        assert_close("through files", built.state_dict(), loaded.state_dict(), EXACT)

    @over(models)
    def test_damaged_files_are_noticed(self, model: ModelSpec):
        """Without a tensor, with another name or shape of it: an error, or another size; never another class.

        Of tensors that differ in numbers alone one is damaged, in one of the ways.
        """
        self._check_damages(model, one_of_each_kind=True)

    @pytest.mark.slow
    @over(models)
    def test_every_damage_is_noticed(self, model: ModelSpec):
        """The same for each tensor and each way."""
        self._check_damages(model, one_of_each_kind=False)

    def _check_damages(self, model: ModelSpec, one_of_each_kind: bool) -> None:
        made_once = [(load, "target"), (load, "shapes_of"), (conversion_rules, "their_shapes")]
        with ExitStack() as stack:
            for module, name in made_once:
                stack.enter_context(_made_once(module, name))
            for form, rules in forms(self.spec, model):
                whole = _original_shapes(self.spec, model, rules)
                request = _request(self.spec, model, form, whole)
                plan = _plan_of_shapes(form, whole, request)
                assert plan.form is form and type(plan.model) is model.model_class
                kinds = {re.sub(r"\d+", "", name) if one_of_each_kind else name: name for name in whole}
                read = {name for entry in rules if entry.ours for name in entry.theirs}
                for number, name in enumerate(kinds.values()):
                    damages = list(self._damaged(whole, name, name in read))
                    for what, shapes in damages[number % len(damages) :][:1] if one_of_each_kind else damages:
                        try:
                            other = _plan_of_shapes(form, shapes, request)
                        except ConversionError:
                            continue
                        said = f"{form.title}: {what} of {name} is not noticed"
                        assert what == "another size" and other.form is form, said
                        assert type(other.model) is type(plan.model), said
                        assert other.model.config.to_dict() != plan.model.config.to_dict(), said

    def _damaged(self, whole: dict[str, Shape], name: str, is_read: bool) -> Iterator[tuple[str, dict[str, Shape]]]:
        """What a damage of a tensor is, and the shapes of the file with it."""
        yield "another name", {f"{key}_" if key == name else key: shape for key, shape in whole.items()}
        if is_read:
            if not any(fnmatch(name, pattern) for pattern in self.may_lack):
                yield "lack", {key: shape for key, shape in whole.items() if key != name}
            yield "one more axis", {**whole, name: (*whole[name], 2)}
            for axis, size in enumerate(whole[name]):
                shape = (*whole[name][:axis], size + 1, *whole[name][axis + 1 :])
                yield "another size", {**whole, name: shape}

    @over(goldens)
    def test_golden_files_come_back(self, golden: GoldenCase):
        """An original file → ours → original, bit for bit but for what is left out."""
        folder = find_case(self.spec, golden)
        for run in golden.runs:
            with _plan(load_arguments(run, folder)) as plan:
                model = load_original(**load_arguments(run, folder))
                kept = [name for entry in plan.rules if entry.ours for name in entry.theirs]
                expected = {name: plan.found.read(name) for name in kept}
                back = dict(reverse(plan.rules, model.state_dict().__getitem__))
                assert set(back) == set(kept)
                assert_close(golden.folder, expected, back, EXACT)

    @pytest.mark.slow
    @over(goldens)
    def test_parity_notices_every_tensor(self, golden: GoldenCase):
        """A change of any one tensor of the original file shows in the recorded outputs."""
        folder = find_case(self.spec, golden)
        by_all: list[str] | None = None
        for run in golden.runs:
            with _plan(load_arguments(run, folder)) as plan:
                model = load_original(**load_arguments(run, folder))
                assert parity(golden, run, model, folder).first_diverging is None
                shows = _watch(golden, run, model, folder)
                by_all = sorted(_unnoticed(plan, model, shows, among=by_all))
        excused = [*golden.blind, *golden.faint]
        unexplained = [name for name in by_all if not any(_is_called(name, end) for end in excused)]
        assert not unexplained, "no recorded output shows a change of " + ", ".join(unexplained)
        noticed = [end for end in golden.blind if not any(_is_called(name, end) for name in by_all)]
        assert not noticed, "the spec calls these blind, but a change shows: " + ", ".join(noticed)


# ----------------------------------------------------------------------------------------------- files of shapes alone


def _fields(spec: FamilySpec, model: ModelSpec) -> dict[str, Any]:
    """The fields of a tiny model."""
    return dict(model.config) if model.config_class else {**spec.tiny, **model.config}


def _original_shapes(spec: FamilySpec, model: ModelSpec, rules: list[Rule]) -> dict[str, Shape]:
    """Shapes of the tiny model's original tensors, in the form's namespace; what is left out is there, too."""
    ours = {name: tuple(tensor.shape) for name, tensor in spec.build(model).state_dict().items()}
    left_out = {name: (1,) for entry in rules if not entry.ours for name in entry.theirs}
    return {**their_shapes(rules, ours), **left_out}


def _request(spec: FamilySpec, model: ModelSpec, form: Form, whole: dict[str, Shape]) -> Request:
    """A request that gives what no shape tells, and no more."""
    fields, model_class = _fields(spec, model), model.model_class if form.on_request else None
    fixed = form.config_from(
        _plan_of_shapes(form, whole, Request(model_class=model.model_class, **fields)).found.shapes
    )
    return Request(model_class=model_class, **_without(fields, fixed))


def _without(fields: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """Nested fields without those that are fixed; of what is bounded, the given value counts."""
    kept = {name: value for name, value in fields.items() if isinstance(fixed.get(name, {}), (dict, Bounded))}
    nested = {name for name in kept if isinstance(fixed.get(name), dict)}
    return {name: _without(value, fixed[name]) if name in nested else value for name, value in kept.items()}


def _plan_of_shapes(form: Form, shapes: dict[str, Shape], request: Request) -> Plan:
    """What conversion plans for files that hold tensors of these shapes, and what makes a whole of a tower."""
    tensors: dict[str, dict[str, Any]] = {file: {} for file in form.files}
    whole = dict.fromkeys(form.fingerprint, (1,)) if form.on_request else {}
    for name, shape in {**whole, **shapes}.items():
        key, _, bare = name.partition("/")
        entry, bare = (form.entries[key], bare) if key in form.entries else (form.entries[""], name)
        place = entry.places[0].replace("{index}", "0")
        full = "/".join(filter(None, [place, entry.prefix + bare]))
        tensors[entry.file][full] = SimpleNamespace(shape=shape, dtype=torch.float32)
    files = {file: SimpleNamespace(path=Path(f"{file}.pt"), tensors=held) for file, held in tensors.items()}
    return plan_of(files, request)


def _made_once(module: ModuleType, name: str) -> AbstractContextManager:
    """A function of a module that keeps what it returned, with the arguments by which it does."""
    made: dict[str, Any] = {}
    function = getattr(module, name)

    def once(*arguments: Any) -> Any:
        key = "; ".join(repr(each) if isinstance(each, dict) else str(id(each)) for each in arguments)
        if key not in made:
            made[key] = function(*arguments), arguments
        return made[key][0]

    return mock.patch.object(module, name, once)


# -------------------------------------------------------------------------------------------------- files of goldens


def _plan(arguments: dict):
    """What conversion plans for the arguments of `load_original`."""
    arguments = dict(arguments)
    return planned(arguments.pop("path"), arguments.pop("probe", None), Request(**arguments))


def _is_called(name: str, end: str) -> bool:
    """Whether a tensor has a name, or one that ends with it."""
    return name == end or name.endswith((f"/{end}", f".{end}"))


def _unnoticed(
    plan: Plan, model: PreTrainedModel, shows: Callable[[], bool], among: Collection[str] | None
) -> Iterator[str]:
    """Original tensors, all or some, that can change without any recorded output leaving its tolerance."""
    parameters = dict(model.named_parameters())
    for entry in plan.rules:
        for name in entry.theirs if entry.ours else ():
            if among is None or name in among:
                changed = dict(convert([entry], _perturbed(plan.found.read, name)))
                if not _with_replaced(parameters, changed, shows):
                    yield name


def _with_replaced(
    parameters: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], call: Callable[[], bool]
) -> bool:
    """What a call returns while some parameters have other values."""
    before = {name: parameters[name].detach().clone() for name in tensors}
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
        try:
            return call()
        finally:
            for name, tensor in before.items():
                parameters[name].copy_(tensor)


def _watch(case: GoldenCase, run: GoldenRun, model: PreTrainedModel, folder: Path) -> Callable[[], bool]:
    """A call that tells whether an output of the model leaves the tolerance of what is recorded."""
    inputs, expected = recorded(folder)
    expected = counted(case, inputs, {name: expected[name] for name in run_outputs(run, model, inputs)})
    limits = {name: case.tolerance.limit(tensor) for name, tensor in expected.items()}

    def shows() -> bool:
        actual = counted(case, inputs, run_outputs(run, model, inputs))
        return not all(compare_stage(name, expected[name], actual[name], limits[name]).passed for name in expected)

    return shows


def _perturbed(read: Callable[[str], torch.Tensor], changed: str) -> Callable[[str], torch.Tensor]:
    """A reader that returns one tensor with noise of a tenth of its own size."""

    def read_perturbed(name: str) -> torch.Tensor:
        tensor = read(name).float()
        if name != changed:
            return tensor
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        return tensor + 0.1 * tensor.abs().mean().clamp_min(1e-2) * noise

    return read_perturbed
