"""The Auto classes give ours, from a configuration and from a directory, whichever package is imported first."""

import pytest
import transformers
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

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
    """The Auto classes of a family and of its parts, each with the model that it gives."""
    named = {model.name: model for model in spec.models}
    records = (spec.family, *spec.family.parts)
    return [(auto, named[name]) for record in records for auto, name in record.auto_models.items()]


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
        assert sorted(model.name for model in self.spec.models) == sorted(self.spec.family.model_classes)
