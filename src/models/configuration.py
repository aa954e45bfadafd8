"""What the configurations of models with towers share."""

from transformers import PreTrainedConfig


def build_towers(config: PreTrainedConfig) -> None:
    """Turn the fields of `config.sub_configs` into configurations: dictionaries, and what was left out, by default."""
    for name, config_class in config.sub_configs.items():
        given = getattr(config, name)
        if not isinstance(given, PreTrainedConfig):
            setattr(config, name, config_class(**(given or {})))
