"""What was done in a study, in sentences, in whichever way it was done."""

from dataclasses import replace
from typing import get_args

from ifguide.config.io import with_values
from ifguide.config.presets import PRESETS, apply_preset
from ifguide.config.suppression import SuppressConfig
from ifguide.study.stage_table import STAGES
from ifguide.ui.report.summary import what_was_done
from tests.app.fake_study import write_study


def test_every_preset_and_every_way_to_suppress_is_told_as_it_was(tmp_path):
    study = write_study(tmp_path)
    usual = with_values(study.config, {"scores.probe": True, "scores.own_loss": True, "scores.position": False})

    def told(config) -> str:
        return " ".join(what_was_done(replace(study, config=config), {*STAGES}))

    for name in PRESETS:
        text = told(apply_preset(usual, name))
        assert ("gradients" in text, "trained again from the same start" in text) == (name != "quick",) * 2, text
    methods = get_args(SuppressConfig.__annotations__["method"])
    texts = {told(with_values(usual, {"suppress.method": method})) for method in methods}
    assert len(texts) == len(methods) > 3
