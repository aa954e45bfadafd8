"""The kernel of rotary positions, which Triton interprets on a CPU.

Triton has a folder of its own: where PyTorch finds it, it loads it.
"""

import os
import subprocess
import sys
from textwrap import dedent

import pytest


pytestmark = pytest.mark.ecosystem


def test_it_turns_as_the_operations_do():
    """Rows of several sequences that lie in a wider tensor, tables of one sequence and of each, odd widths."""
    script = """
        import torch
        from vidformers.layers import rope
        from vidformers.layers.rope_kernel import turn

        sizes = [(2, 7, 3, 16, 1), (2, 7, 3, 16, 2), (1, 5, 2, 72, 1), (3, 4, 22, 64, 1)]
        for batch, tokens, heads, width, tables in sizes:
            wide = torch.randn(batch, tokens, 3 * heads * width)
            x = wide[..., heads * width : 2 * heads * width].unflatten(-1, (heads, width))
            places = torch.arange(tokens)[None] + 3 * torch.arange(tables)[:, None]
            places = (places, 2 * places, 5 - places)
            table = rope.rotary_table(places, width, pairing="tiled", dtype=torch.float32)
            for dtype in (torch.float32, torch.bfloat16):
                turned = turn(x.to(dtype), table.own, table.neighbor)
                assert turned.dtype == dtype and turned.is_contiguous()
                expected = rope.apply_rotary(x.to(dtype), table)
                torch.testing.assert_close(turned, expected, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-6)
    """
    path = os.pathsep.join([f"{sys.prefix}/triton", *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", dedent(script)], check=True, env=environment)
