"""ONNX: models are exported and give the same in onnxruntime, for other batches and frames too.

An export takes ten seconds and more. So those classes are exported that hold all layers of all others. The shared
tests take the first half of the way, `torch.export`, with every class.
"""

import onnxruntime
import pytest
import torch

from tests.harness.compare import assert_close, stages
from tests.harness.family_spec import Export
from tests.harness.tolerances import REORDERED

from .every_model import CASES, build


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

EXPORTED = [
    *("PeCoreModel", "PeVideoModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"),
    *("VideoPrismClipModel", "VJEPA2ForActionAnticipation", "VJEPA2ACModel"),
]


def test_no_layer_is_left_out():
    """Each class can be exported, and what it is made of is part of what is."""
    layers = {model.label: {type(part) for part in build(spec, model).modules()} for spec, model in CASES}
    models = {model.model_class for _, model in CASES}
    exported = set.union(*(layers[name] for name in EXPORTED)) | models
    assert {name: found - exported for name, found in layers.items() if found - exported} == {}
    assert all(isinstance(model.export, Export) for _, model in CASES)


@pytest.mark.parametrize("name", EXPORTED)
def test_export(name, tmp_path):
    spec, model = next(case for case in CASES if case[1].label == name)
    built, (batch, size) = build(spec, model), model.export.example
    with torch.no_grad():
        program = torch.onnx.export(
            built,
            kwargs=spec.inputs(model, batch, size),
            dynamic_shapes=model.export.dynamic_shapes(),
            dynamo=True,
            verbose=False,
        )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch, size in (model.export.example, model.export.other):
        inputs = spec.inputs(model, batch, size, seed=1)
        with torch.no_grad():
            expected = stages(built(**inputs))
        arrays = {entry.name: inputs[entry.name].numpy() for entry in session.get_inputs()}
        outputs = map(torch.from_numpy, session.run(None, arrays))
        actual = dict(zip(expected, outputs, strict=True))
        assert_close(f"onnxruntime, {batch} videos of {size}", expected, actual, REORDERED)
