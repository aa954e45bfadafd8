"""The families that there are: the records of the rooms in `models`, collected."""

from .models.pe_core.record import PE_CORE
from .models.pe_video.record import PE_VIDEO
from .models.records import Family
from .models.videomae.record import VIDEOMAE
from .models.videoprism.record import VIDEOPRISM
from .models.vjepa2.record import VJEPA2


FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (VJEPA2, VIDEOPRISM, VIDEOMAE, PE_VIDEO, PE_CORE)
}


def public_modules() -> dict[str, str]:
    """For each public name of all families, the module that defines it, relative to `vidformers`."""
    return {
        name: f".models.{family.model_type}{module}"
        for family in FAMILIES.values()
        for name, module in family.modules.items()
    }
