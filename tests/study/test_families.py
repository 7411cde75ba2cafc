"""Every decoder family from `ifguide new` to an evaluated suppressed model, with a tiny random model of each."""

import gc
import json

import numpy as np
import pytest
import torch

from benchmarks.models import measure
from ifguide.data.packing import pack_rows
from ifguide.errors import ConfigError
from ifguide.models.loading import load_model
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import create_study
from ifguide.study.planning.model_facts import describe_model
from tests.one_case import for_each
from tests.tiny import EXPERTS, FAMILIES, tiny_model
from tests.tiny_study import save_tiny_model, tiny_config, write_tiny_inputs
from tests.training.test_training_rows import row_loss

PLAIN = ("llama", "gpt2", *EXPERTS)
"""Run each time; the others are thorough."""
SEE_EACH_OTHER = {"opt", "bloom", "mpt", "gpt_oss", "mamba"}
"""Families in which Transformers lets packed documents see each other."""
CASES = [pytest.param(kind, marks=[] if kind in PLAIN else pytest.mark.thorough) for kind in FAMILIES]


@pytest.mark.parametrize("kind", CASES)
def test_a_study_runs_from_new_to_an_evaluated_suppressed_model(kind, tmp_path):
    gc.freeze()  # each stage collects garbage, which with all of the suite's modules takes a second
    found = measure(kind, tmp_path)
    gc.unfreeze()
    assert found.facts.tracked_share > (0.75 if kind == "mamba" else 0.95)
    assert found.judge == ("half-step" if kind == "bloom" else "jvp")
    assert found.correlation > 0.9999 and found.error < 0.02 and found.position < 1e-3
    assert found.facts.packs == (kind not in SEE_EACH_OTHER)
    lines = {line.partition(":")[0] for line in found.refused}
    assert ("training.packing" in lines) == (kind in SEE_EACH_OTHER) == (not (tmp_path / "packed").exists())
    folders = found.study.folder(Unit("suppress", "default")) / "final", found.study.config.model.source
    trained = [load_model(str(folder)) for folder in folders]
    moved = [torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in trained), strict=True)]
    assert np.mean(moved) < 0.5
    metrics = json.loads((found.study.folder(Unit("evaluate", "default")) / "metrics.json").read_text())
    assert 0 <= metrics["emt"] <= 1


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - SEE_EACH_OTHER))
def test_packed_documents_do_not_see_each_other_in_training(kind):
    ids, offsets = np.arange(1, 31, dtype=np.int32), np.array([0, 9, 14, 30])
    model = tiny_model(kind, dtype=torch.float32, attention=None)  # as it is trained
    apart, together = (pack_rows(ids, offsets, length, 0, pack=length > 20) for length in (17, 40))
    assert len(apart) == 3 and len(together) == 1
    assert row_loss(model, list(together)) == pytest.approx(row_loss(model, list(apart)), rel=1e-5)


@for_each(
    "kind, setting, said",
    [
        (
            "mamba",
            "model.mode=asis",
            r"dt_proj without calling the layer; .*model\.modules='\(in_proj\|x_proj\|out_proj\)\$'",
        ),
        (
            "llama",
            "model.modules=conv1d",
            r"no linear layer to track in LlamaForCausalLM matches model\.modules = 'conv1d'",
        ),
    ],
)
def test_layers_that_cannot_be_tracked_are_refused(tmp_path, kind, setting, said):
    write_tiny_inputs(tmp_path / "inputs")
    save_tiny_model(kind, tmp_path / "inputs" / "model")
    with pytest.raises(ConfigError, match=said):
        create_study("tiny", tiny_config(tmp_path / "inputs", setting), tmp_path, named=set())
    assert not (tmp_path / "tiny").exists()


def test_the_remedy_for_a_layer_that_is_never_called_works(tmp_path):
    save_tiny_model("mamba", tmp_path)
    facts = describe_model(str(tmp_path), modules="(in_proj|x_proj|out_proj)$")
    assert len(facts.layers) == 6 and facts.forward_derivative
