"""The presets of `ifguide new`."""

import pytest

from ifguide.config.presets import PRESETS, apply_preset, preset_settings
from ifguide.config.schema import StudyConfig
from ifguide.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_what_it_names_and_nothing_else(name):
    usual, made = StudyConfig(), apply_preset(StudyConfig(), name)
    named = preset_settings(name, "finetune")
    for section, values in vars(made).items():
        for key, value in vars(values).items() if hasattr(values, "__dict__") else ():
            expected = named.get(f"{section}.{key}", getattr(getattr(usual, section), key))
            assert value == (tuple(expected) if isinstance(expected, list) else expected), f"{section}.{key}"


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="expected one of quick, balanced, thorough"):
        apply_preset(StudyConfig(), "fast")
