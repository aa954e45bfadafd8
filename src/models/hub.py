"""Arguments of `from_pretrained` that say where a directory of the Hub is. Importing it loads no torch."""

from collections.abc import Mapping
from typing import Any


HUB_ARGUMENTS = "cache_dir force_download local_files_only proxies revision subfolder token".split()


def hub_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments of `from_pretrained` that say where a directory of the Hub is."""
    return {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
