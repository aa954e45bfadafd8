"""The video processor of PE core has nothing beyond what all families' processors have."""

import unittest

from tests.harness.processing import ProcessingMixin
from tests.pe_core.spec import SPEC


class PeCoreVideoProcessingTest(ProcessingMixin, unittest.TestCase):
    spec = SPEC
