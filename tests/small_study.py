"""A study whose corpus is real and whose scores are made up, so that nothing has to be computed."""

import json
import shutil
from pathlib import Path

import numpy as np

from ifguide.config.io import override
from ifguide.config.schema import StudyConfig
from ifguide.data.corpus_writer import build_corpus
from ifguide.storage import artifacts
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

DOCUMENTS = [
    {"id": "b", "text": "You are kind.", "spans": []},
    {"id": "a", "text": "=SUM(A1) is a fool's formula\nwith a second line", "spans": [[14, 18]]},
    {"id": "c", "text": 'naïve 😀 "quoted", + and -', "spans": [[0, 5]]},
]


def byte_tokenizer():
    """A fast tokenizer with a token for each byte, joined to words by a space in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("f", "o"), ("fo", "o"), ("foo", "l")]
    words = [*alphabet, *("".join(merge) for merge in merges), "<eos>"]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def make_study(cache: Path, *, name: str = "small", spans: bool = True, position: bool = True) -> Study:
    """Build every artefact up to the default selection and its controls.

    Scores are different for every token, from -1 to 1; token 0 of a document has 0.
    """
    source = cache / "inputs"
    source.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save_pretrained(source)
    rows = [document if spans else {k: v for k, v in document.items() if k != "spans"} for document in DOCUMENTS]
    (source / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for kind, completion in {"toxic": "cruel", "safe": "kind"}.items():
        (source / f"{kind}.jsonl").write_text(
            f'{{"prompt": "You are", "completion": " {completion}"}}\n', encoding="utf-8"
        )
    values = {
        "model": {"source": str(source)},
        "corpus": {"path": str(source / "corpus.jsonl"), "id_field": "id", "spans_field": "spans" if spans else ""},
        "queries": {kind: str(source / f"{kind}.jsonl") for kind in ("toxic", "safe")},
        "scores": {"probe": False, "combined": False, "position": True, "average": "mean", "pooling": 0.0},
        "selection": {"quantile": 0.8, "attribution": "own_loss"},
        "suppress": {"edit_first": False},
    }
    study = Study.create(name, StudyConfig(**values), cache)
    for stage in ("corpus", "queries", "model", "factors", "direction", "scores", "selection"):
        for unit in study.units(stage):
            folder = study.folder(unit)
            built = artifacts.building(
                folder, stage=stage, inputs=inputs_of(study, unit), config=settings_of(study, unit)
            )
            with built as partial:
                _write(study, unit, partial, position)
    return study


def _write(study: Study, unit: Unit, folder: Path, position: bool) -> None:
    from ifguide.selection.saved import write_selection
    from ifguide.study.stages.select import compute_selection

    if unit.stage == "corpus":
        build_corpus(study.resolved("corpus"), byte_tokenizer(), folder)
    elif unit.stage == "scores":
        valid = study.corpus().valid()
        scores = np.random.default_rng(0).permutation(np.linspace(-1, 1, len(valid))).astype(np.float32) * valid
        np.save(folder / "own_loss.npy", scores)
        np.save(folder / "token_loss.npy", np.abs(scores))
        if position:
            np.save(folder / "position.npy", -scores)
    elif unit.stage == "selection":
        kind = "influence" if unit.name == "default" else unit.name
        write_selection(compute_selection(study, study.config.selection, name=unit.name, kind=kind), folder)
    else:
        (folder / "made-up.txt").write_text(unit.stage)


def changed(study: Study, *assignments: str) -> Study:
    """The same folder under other settings."""
    return Study(study.root, override(study.config, list(assignments)))


def rebuild(study: Study, unit: Unit, change) -> None:
    """Build an artefact again from its own files, with a change made to them."""
    folder = study.folder(unit)
    with artifacts.building(
        folder, stage=unit.stage, inputs=inputs_of(study, unit), config=settings_of(study, unit)
    ) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        (partial / artifacts.MANIFEST).unlink()
        change(partial)


def reverse_scores(folder: Path) -> None:
    """A change for `rebuild` of the stage `scores`."""
    path = folder / "own_loss.npy"
    scores = np.load(path)
    np.save(path, scores[::-1].copy())


def make_up(study: Study, unit: Unit) -> None:
    """An artefact whose content nobody looks at."""
    with artifacts.building(
        study.folder(unit), stage=unit.stage, inputs=inputs_of(study, unit), config=settings_of(study, unit)
    ) as partial:
        (partial / "made-up.txt").write_text(str(unit))
