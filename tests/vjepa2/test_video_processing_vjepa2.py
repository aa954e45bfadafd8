"""The video processor of V-JEPA 2 has nothing beyond what all families' processors have."""

import unittest

from tests.harness.processing import ProcessingMixin
from tests.vjepa2.spec import SPEC


class VJEPA2VideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC
