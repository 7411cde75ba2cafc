"""Files that were cut short or whose bits flipped: found, named, and repaired by the command that the message gives."""

import json
import os
import re

import pytest

from ifguide.errors import IFGuideError, InputError
from ifguide.storage import artifacts
from ifguide.study.analysis.verify import check_unit, list_units, verify_study
from ifguide.study.freshness import stage_states
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import run_study
from ifguide.study.reading import Study
from ifguide.study.stages.select import preview_selection
from tests.faults.comparing import contents
from tests.faults.conftest import NAME, run_command
from tests.small_study import changed


def flip(path, at: float = 0.5) -> None:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * at), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest(folder):
    """The file of an artefact that holds most."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != artifacts.MANIFEST)
    return max(files, key=lambda path: (path.stat().st_size, path.name))


def test_every_flipped_bit_of_every_file_is_found(study):
    n_files = 0
    for unit in list_units(study):
        folder = study.folder(unit)
        for name in json.loads((folder / artifacts.MANIFEST).read_text())["outputs"]:
            path = folder / name
            whole = path.read_bytes()
            for harm in (flip, cut, lambda p: p.unlink(), lambda p: p.write_bytes(b"")):
                harm(path)
                part = check_unit(study, unit)
                assert part.state == "damaged" and name in part.why and part.remedy.startswith("`ifguide ")
                path.write_bytes(whole)
            n_files += 1
        assert check_unit(study, unit).state == "whole"
    assert n_files > 100


def test_a_file_that_does_not_belong_there_is_found(study):
    (study.folder(Unit("scores")) / "more.npy").write_bytes(b"")
    assert check_unit(study, Unit("scores")).why == "it holds more.npy, which its manifest does not name"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_flipped_bit_in_every_artefact_is_mended_by_the_commands_that_verify_names(study, undisturbed):
    units = list_units(study)
    for unit in units:
        flip(largest(study.folder(unit)))
    commands = []
    while len(commands) <= len(units):
        answer = run_command(study.root.parent, "verify", NAME, "--share", "0")
        if answer.code == 0:
            break
        assert answer.code == 2 and answer.err.count("\nerror: ") + answer.err.startswith("error: ") == 1
        command = re.search(r"fix it with `ifguide ([^`]+)`", answer.error)[1].split()
        commands.append(command)
        repaired = run_command(study.root.parent, *command)
        assert repaired.code == 0, repaired.err
    assert [command[-1] for command in commands] == [*dict.fromkeys(unit.stage for unit in units)]
    assert contents(Study.open(NAME, study.root.parent)) == contents(undisturbed)


@pytest.mark.slow
def test_files_cut_short_are_built_again_by_a_plain_run(study, undisturbed):
    units = list_units(study)
    for unit in units:
        cut(largest(study.folder(unit)))
    assert {check_unit(study, unit).state for unit in units} == {"damaged"}
    assert [str(unit) for unit in run_study(study)] == [str(unit) for unit in units]
    assert contents(study) == contents(undisturbed)


def refusal(reader, study: Study) -> str | None:
    """What an error of ours says; None when the reading works. Another error comes out."""
    try:
        reader(study)
    except IFGuideError as error:
        return str(error)
    return None


def test_a_damaged_file_is_an_error_of_ours_wherever_it_is_read(study):
    """Readers meet damage that no check of sizes sees: they may read it, or say in one line what is damaged."""
    reads = {
        "corpus": [lambda s: s.corpus().document(3), lambda s: s.corpus().summary],
        "queries": [lambda s: s.queries("toxic"), lambda s: s.queries("safe")],
        "model": [lambda s: s.models()],
        "direction": [
            lambda s: artifacts.load_tensors(
                s.folder(Unit("direction")) / s.checkpoint_names()[0] / "direction.safetensors"
            )
        ],
        "scores": [lambda s: s.scores("own_loss").sum(), lambda s: s.scores("position", s.checkpoint_names()[0]).sum()],
        "index": [lambda s: preview_selection(s, {"quantile": 0.8}), lambda s: preview_selection(s, {"window": 1})],
        "selection": [lambda s: s.selection().mask.sum()],
        "evaluate": [lambda s: s.samples("base"), lambda s: s.metrics("base")],
    }
    refused = 0
    for stage, readers in reads.items():
        unit = next(unit for unit in list_units(study) if unit.stage == stage)
        folder = study.folder(unit)
        for path in [p for p in folder.rglob("*") if p.is_file() and "tokenizer" not in p.parts]:
            whole = path.read_bytes()
            for harm in (lambda p: flip(p, 0.0), flip, lambda p: flip(p, 1.0), cut, lambda p: p.write_bytes(b"")):
                harm(path)
                for reader in readers:
                    said = refusal(reader, Study.open(NAME, study.root.parent))
                    refused += said is not None
                    assert said is None or "`ifguide run" in said
                path.write_bytes(whole)
    assert refused > 50


def test_a_damaged_list_of_documents_is_written_again_by_the_command_and_by_a_plain_run(study, undisturbed):
    from ifguide.ui.documents.store import open_documents

    folder, whole = study.root / "documents", contents(undisturbed)
    tables = sorted(folder.glob("*/table.parquet"))
    assert len(tables) == 4
    for harm in (flip, cut, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(os.urandom(5000))):
        for path in tables:
            harm(path)
        open_documents(study, "default")  # as the app does: those it shows
        answer = run_command(study.root.parent, "documents", NAME)
        assert answer.code == 0 and "wrote 2 tables of 12 documents" in answer.out
        assert contents(study) == whole
    for path in tables:  # a run trusts sizes
        cut(path)
    assert [unit.stage for unit in run_study(study)] == ["documents"] * 4
    assert contents(study) == whole


def test_scores_that_were_changed_together_with_their_manifest_are_found_by_computing_them_anew(study):
    """Whoever rewrites the hashes too can hide a change from them, but not from the model."""
    import numpy as np

    folder = study.folder(Unit("scores"))
    name = study.checkpoint_names()[0]
    path = folder / name / "own_loss.npy"
    scores = np.load(path)
    np.save(path, scores * np.float32(1.01))
    manifest = json.loads((folder / artifacts.MANIFEST).read_text())
    manifest["outputs"][f"{name}/own_loss.npy"] = artifacts.hash_file(path)
    artifacts.write_json(folder / artifacts.MANIFEST, manifest)
    for unit in ("index", "selection default"):  # and makes what reads them fit
        part = study.root / {"index": "index", "selection default": "selections/default"}[unit] / artifacts.MANIFEST
        values = json.loads(part.read_text())
        values["inputs"]["scores"] = artifacts.digest_of(manifest)
        artifacts.write_json(part, values)
    found = verify_study(study, share=1.0)
    assert all(
        part.state == "whole" for part in found.parts if part.artefact in ("scores", "index", "selection default")
    )
    wrong = [one for one in found.agreements if not one.agrees]
    assert wrong[0].what == f"own_loss {name}"
    assert 0.009 < wrong[0].difference < 0.011
    assert "--force scores" in found.problem or "is stale" in found.problem


def test_a_whole_study_verifies(study):
    found = verify_study(study, share=0.5, seed=3)
    assert found.problem == ""
    assert found.documents == 6  # of the eleven that have a score
    assert found.largest_difference < 1e-5
    assert {part.state for part in found.parts} == {"whole"}
    assert found.parts[2].seeds == {"training.seed": 0}
    assert found.parts[5].machine["threads"] >= 1
    json.dumps(found.as_json(), allow_nan=False)


def test_an_input_that_changed_behind_its_time_and_size_is_found(study, undisturbed, tmp_path):
    from ifguide.config.io import override

    source = undisturbed.root.parent.parent / "inputs" / "safe.jsonl"
    copy = tmp_path / "safe.jsonl"
    copy.write_bytes(source.read_bytes())
    study = study.change(override(study.config, [f'queries.safe="{copy}"']))
    run_study(study)
    stat = copy.stat()
    copy.write_text(copy.read_text().replace("kind", "mean"))
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    study = Study.open(NAME, study.root.parent)
    assert stage_states(study)["queries"].state == "fresh"  # what is remembered says so
    assert verify_study(study).problem.startswith(
        "queries is stale: the file safe queries changed; fix it with `ifguide run"
    )


def test_a_file_that_is_gone_is_missed_before_anything_is_built(study, tmp_path):
    before, gone = contents(study), tmp_path / "gone.jsonl"
    gone.write_text('{"text": "The dog was at home."}\n')
    study = changed(study, f"evaluate.heldout={gone}", "training.epochs=3")
    gone.unlink()
    with pytest.raises(InputError, match=r"is not there any more; put it back or change study\.toml"):
        run_study(study)
    assert contents(study) == before
