"""PE Video and the Perception Encoder under it: the parts and models of `pe_av.py` and `pe_core.py`."""

from ..core import FamilyMap
from . import pe_av, pe_core


MAP = FamilyMap(
    parts={**pe_core.PARTS, **pe_av.PARTS},
    layouts=(*pe_av.LAYOUTS, *pe_core.LAYOUTS),
    left_out=pe_av.LEFT_OUT,
    required=(),
    processor={"size": "image_size"},
    companion=pe_av.companion,
)
