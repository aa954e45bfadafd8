"""The Auto classes give ours, from a configuration and from a directory, whichever package is imported first."""

import os
import subprocess
import sys

import pytest
import transformers
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .compare import assert_close
from .family_spec import FamilySpec, ModelSpec, all_states
from .tolerances import EXACT


# Run in a fresh process: argument 1 is a directory, then come pairs of an Auto class and the class it must give.
CHECK = """
import sys
{imports}
directory, *pairs = sys.argv[1:]
for auto, expected in zip(pairs[::2], pairs[1::2]):
    found = type(getattr(transformers, auto).from_pretrained(directory))
    assert found is getattr(vidformers, expected), (auto, found)
"""
IMPORTS = {
    "transformers first": "import transformers\nfrom transformers import AutoModel, AutoConfig\nimport vidformers",
    "vidformers first": "import vidformers\nimport transformers",
}


class AutoMixin:
    """Tests of the registration with the Auto classes."""

    def test_auto_models(self, spec: FamilySpec, tmp_path):
        records = (spec.family, *spec.family.parts)
        for auto, name in [entry for record in records for entry in record.auto_models.items()]:
            auto_class, model = getattr(transformers, auto), self._model(spec, name)
            built = spec.build(model)
            built.save_pretrained(tmp_path / name)

            assert type(auto_class.from_config(spec.config(model))) is model.model_class
            loaded = auto_class.from_pretrained(tmp_path / name, attn_implementation="eager")
            assert type(loaded) is model.model_class
            inputs = spec.inputs(model)
            assert_close(f"loaded by {auto}", all_states(built, inputs), all_states(loaded, inputs), EXACT)

    def test_auto_config(self, spec: FamilySpec):
        assert spec.family.model_type == spec.config_class.model_type
        assert type(transformers.AutoConfig.for_model(spec.family.model_type)) is spec.config_class

    def test_auto_video_processor(self, spec: FamilySpec, tmp_path):
        spec.config().save_pretrained(tmp_path)
        spec.processor_class(**spec.processor.arguments).save_pretrained(tmp_path)
        assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is spec.processor_class

    @pytest.mark.parametrize("order", IMPORTS)
    def test_import_orders(self, spec: FamilySpec, order: str, tmp_path):
        family, model = spec.family, self._model(spec, next(iter(spec.family.auto_models.values())))
        spec.build(model).save_pretrained(tmp_path)
        spec.processor_class(**spec.processor.arguments).save_pretrained(tmp_path)
        pairs = {
            **family.auto_models,
            "AutoConfig": family.config_class,
            "AutoVideoProcessor": family.video_processor_class,
        }
        done = subprocess.run(
            [sys.executable, "-c", CHECK.format(imports=IMPORTS[order]), tmp_path, *sum(pairs.items(), ())],
            env={name: value for name, value in os.environ.items() if name != "VIDFORMERS_AUTO"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr

    def test_every_class_has_a_spec(self, spec: FamilySpec):
        assert sorted(model.name for model in spec.models) == sorted(spec.family.model_classes)

    @staticmethod
    def _model(spec: FamilySpec, name: str) -> ModelSpec:
        return next(model for model in spec.models if model.name == name)
