"""The Auto classes give ours, from a configuration and from a directory, whichever package is imported first."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import transformers
from transformers import AutoImageProcessor, AutoModelForMaskedLM, AutoProcessor
from transformers.models.auto import auto_factory, modeling_auto
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

import vidformers

from .compare import assert_close
from .family_spec import FamilySpec, ModelSpec, all_states
from .family_test import FamilyTest, over
from .fresh import IMPORTS, succeed_afresh
from .tolerances import EXACT


# Argument 1 is a directory, then come pairs of an Auto class and the class that it must give.
CHECK = """
import sys
directory, *pairs = sys.argv[1:]
for auto, expected in zip(pairs[::2], pairs[1::2]):
    found = type(getattr(transformers, auto).from_pretrained(directory))
    assert found is getattr(vidformers, expected), (auto, found)
"""


def auto_models(spec: FamilySpec) -> list[tuple[str, ModelSpec]]:
    """The Auto classes of a family and of its parts, each with the model that it gives, but for those tested apart."""
    named = {model.name: model for model in spec.models}
    records = (spec.family, *spec.family.parts)
    found = [item for record in records for item in record.auto_models.items() if item[1] not in spec.tested_apart]
    return [(auto, named[name]) for auto, name in found]


def auto_classes() -> Iterator[type]:
    """The Auto classes of models."""
    for value in vars(modeling_auto).values():
        if isinstance(value, type) and issubclass(value, auto_factory._BaseAutoModelClass) and value._model_mapping:
            yield value


class AutoMixin(FamilyTest):
    """Tests of the registration with the Auto classes."""

    @over(auto_models)
    def test_auto_model(self, auto: str, model: ModelSpec):
        folder = self.temporary_folder()
        auto_class, built = getattr(transformers, auto), self.spec.build(model)
        built.save_pretrained(folder)

        assert type(auto_class.from_config(self.spec.config(model))) is model.model_class
        loaded = auto_class.from_pretrained(folder, attn_implementation="eager")
        assert type(loaded) is model.model_class
        inputs = self.spec.inputs(model)
        assert_close(f"loaded by {auto}", all_states(built, inputs), all_states(loaded, inputs), EXACT)

    def test_auto_config(self):
        assert self.spec.family.model_type == self.spec.config_class.model_type
        assert type(transformers.AutoConfig.for_model(self.spec.family.model_type)) is self.spec.config_class

    def test_auto_video_processor(self):
        folder = self.temporary_folder()
        self.spec.config().save_pretrained(folder)
        self.spec.processor_class(**self.spec.processor.arguments).save_pretrained(folder)
        assert type(AutoVideoProcessor.from_pretrained(folder)) is self.spec.processor_class

    def test_processors_without_a_configuration(self):
        """What a directory's settings name is found where nothing else says whose they are."""
        folder = self.temporary_folder()
        self.spec.processor_class(**self.spec.processor.arguments).save_pretrained(folder)
        for auto_class in (AutoVideoProcessor, AutoProcessor):
            assert type(auto_class.from_pretrained(folder)) is self.spec.processor_class
        if self.spec.family.image_processor_class:
            folder = self.temporary_folder()
            image_class = getattr(vidformers, self.spec.family.image_processor_class)
            image_class().save_pretrained(folder)
            assert type(AutoVideoProcessor.from_pretrained(folder)) is self.spec.processor_class
            for auto_class in (AutoImageProcessor, AutoProcessor):
                assert type(auto_class.from_pretrained(folder)) is image_class

    def test_no_model_of_transformers_is_built(self):
        """By any Auto class, from a configuration of ours."""
        for config_class in self.spec.config_classes():
            found = {
                auto_class.__name__: auto_class._model_mapping[config_class]
                for auto_class in auto_classes()
                if config_class in auto_class._model_mapping
            }
            assert found
            theirs = [name for name, model in found.items() if not model.__module__.startswith("vidformers.")]
            assert not theirs, f"{config_class.__name__}: {theirs} give classes of transformers"

    def test_tasks_without_a_model_are_refused(self):
        """Where transformers has a model for a task: another version of it may."""
        folder = self.temporary_folder()
        self.spec.config().save_pretrained(folder)
        mapping, model_type = AutoModelForMaskedLM._model_mapping, self.spec.family.model_type
        names = {self.spec.config_class.__name__: model_type}
        with (
            patch.dict(mapping._model_mapping, {model_type: "BertForMaskedLM"}),
            patch.dict(mapping._reverse_config_mapping, names),
            patch.dict(mapping._extra_content),
        ):
            vidformers.register()
            for build in (
                lambda: AutoModelForMaskedLM.from_pretrained(folder),
                lambda: AutoModelForMaskedLM.from_config(self.spec.config()),
            ):
                with pytest.raises(ValueError, match=rf"no AutoModelForMaskedLM for .*'{model_type}'.* AutoModel \("):
                    build()

    @pytest.mark.slow
    @pytest.mark.xdist_group("fresh")
    @over(IMPORTS)
    def test_import_orders(self, order: str):
        folder, family = self.temporary_folder(), self.spec.family
        self.spec.build(auto_models(self.spec)[0][1]).save_pretrained(folder)
        self.spec.processor_class(**self.spec.processor.arguments).save_pretrained(folder)
        pairs = {
            **family.auto_models,
            "AutoConfig": family.config_class,
            "AutoVideoProcessor": family.video_processor_class,
        }
        succeed_afresh(CHECK, folder, *sum(pairs.items(), ()), order=order)

    def test_every_class_has_a_spec(self):
        names = [*(model.name for model in self.spec.models), *self.spec.tested_apart]
        assert sorted(names) == sorted(self.spec.family.model_classes)
