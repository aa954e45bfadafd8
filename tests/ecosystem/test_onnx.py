"""ONNX: every model class is exported and gives the same in onnxruntime, for other batches and frames too."""

import onnxruntime
import pytest
import torch

from tests.harness.compare import assert_close, stages
from tests.harness.family_spec import Export
from tests.harness.tolerances import REORDERED

from .every_model import build, every_model


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]


@every_model
def test_export(spec, model, tmp_path):
    assert isinstance(model.export, Export)
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
