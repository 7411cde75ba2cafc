"""A study on the Hugging Face Hub: tables that the Hub's viewer and `datasets` read, and the packed study beside them.

The data set's repository holds `documents` (a row a document), `scores` (a row a token), `selections` (a row a document
and selection), `completions` (a row a completion), a card, and `study.ifguide`, which `pull_study` opens. A push is one
commit. It names no folder of the machine it was made on, and no text of the corpus is in a card.
"""

import contextlib
import itertools
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ifguide import __version__
from ifguide.config.io import config_to_dict
from ifguide.config.names import DEFAULT
from ifguide.data.by_document import document_runs
from ifguide.errors import InputError, system_reason
from ifguide.selection.saved import Selection
from ifguide.storage.artifacts import read_table
from ifguide.study.freshness import require_fresh, unit_digest
from ifguide.study.lineage import Unit, scores_unit
from ifguide.study.reading import Study
from ifguide.study.sharing.export import export_study, score_columns
from ifguide.study.sharing.packed import MOST_BYTES, hide_places, local_places, pack_study, unpack_study
from ifguide.study.stages.evaluating import missing_weights
from ifguide.study.variants import recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILE, MARK = "study.ifguide", "ifguide.json"
"""In a repository: the packed study, and what the repository was made from, by which one of ours is known."""
ROWS, TOKENS = 25_000, 2_000_000
"""Most rows of a row group of Parquet, which the Hub's viewer reads whole; of documents, also about the most tokens."""
_AWAY = "the Hub cannot be reached; check the network, and that HF_HUB_OFFLINE is not set"
_EXPLANATIONS = {
    "RevisionNotFoundError": "no such revision; name a branch, a tag or a commit with --revision",
    "RepositoryNotFoundError": "no such repository, or it is hidden from you; check the name and your login",
    "RemoteEntryNotFoundError": f"expected a {FILE} as `ifguide push` writes it, found none; check the name",
    "LocalEntryNotFoundError": _AWAY,
    "OfflineModeIsEnabled": _AWAY,
}
"""What errors of `huggingface_hub` mean here."""


def push_study(
    study: Study,
    repo: str,
    *,
    licence: str,
    selection: str = DEFAULT,
    model_repo: str = "",
    private: bool = False,
    revision: str = "",
) -> list[str]:
    """Write a study to a data set repository of the Hub, with the token of `huggingface_hub`'s own login.

    Args:
        study: all of it that goes along must be fresh.
        repo: `ORG/NAME`; it is made where it is missing.
        licence: of the corpus, as the Hub writes it: `cc-by-4.0`, `odc-by`, `other`.
        selection: the one that `selected` and `rank` of the documents, and the model, belong to.
        model_repo: `ORG/NAME` of a repository for the model trained without the selection; empty: no model.
        private: make the repositories private.
        revision: branch to write to, which is made where it is missing; empty: the main one.

    Returns:
        The addresses of the commits: the data set's and, if it was written, the model's.

    Raises:
        InputError: no licence, a malformed name, a repository of something else, or the Hub is away or refuses.
        StaleError: a part is missing or out of date.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        expected = "the corpus's licence, for its text goes along, as the Hub writes it, such as cc-by-4.0 or other"
        raise InputError(f"--licence: expected {expected}; got {licence or 'none'!r}")
    chosen, models = study.selection(selection), study.evaluation_names()
    usual = scores_unit(study.config, study.config.selection.attribution)
    units = [Unit("corpus"), usual, *(Unit("selection", name) for name in study.selection_names())]
    units += [*(Unit("evaluate", name) for name in models), *([Unit("suppress", selection)] if model_repo else [])]
    if model_repo and (problem := missing_weights(study, selection)):
        raise InputError(f"push: {problem}")
    for unit in units:
        require_fresh(study, unit)
    repos = {"dataset": repo} | ({"model": model_repo} if model_repo else {})
    for kind, name in repos.items():
        with _hub(name, writes=True) as api:
            _open_repository(api, name, kind, private, revision)

    hide = partial(hide_places, places=local_places(study))
    digests = {str(unit): unit_digest(study, unit) for unit in units}
    made_from = {"study": study.name, "selection": chosen.settings, "made_from": digests, "ifguide": __version__}
    mark = hide(json.dumps(made_from, ensure_ascii=False).encode())
    metrics = {name: study.metrics(name) or {} for name in models}
    settings = hide(json.dumps(config_to_dict(study.config), ensure_ascii=False, indent=1).encode()).decode()
    facts = {"study": study, "selection": chosen, "digests": digests, "metrics": metrics, "settings": settings}
    facts |= {"licence": licence, "repo": repo, "model_repo": model_repo, "revision": revision, "version": __version__}
    with tempfile.TemporaryDirectory(prefix=".push-", dir=study.root) as work:
        folders = {kind: Path(work) / kind for kind in repos}
        data = folders["dataset"]
        tables = {
            "documents": _documents(study, chosen),
            "scores": _exported(study, "tokens", [selection], Path(work)),
            "selections": _exported(study, "spans", study.selection_names(), Path(work)),
            **({"completions": _completions(study, models)} if models else {}),
        }
        n_rows = {name: _write_table(data / name / "part-00000.parquet", rows, mark) for name, rows in tables.items()}
        with zipfile.ZipFile(pack_study(study, data / FILE)) as packed:
            opens = sum(member.file_size for member in packed.infolist()) <= MOST_BYTES
        if not opens:
            (data / FILE).unlink()
        _write_card(data, "published_dataset.md", facts | {"tables": n_rows, "packed": opens}, mark)
        if model_repo:
            _copy_model(study.folder(Unit("suppress", selection)) / "final", folders["model"], hide)
            source = study.manifest(Unit("model"))["inputs"].get("file model", "")  # hub:ID@REVISION, or a file's hash
            of_model = {"base": source.partition("hub:")[2], "method": recipe(study.config, selection).method}
            _write_card(folders["model"], "published_model.md", facts | of_model, mark)
        made = []
        for kind, name in repos.items():
            with _hub(name, writes=True) as api:
                made.append(_commit(api, folders[kind], name, kind, revision, f"Study {study.name}"))
        return made


def pull_study(repo: str, cache: Path, *, revision: str = "") -> str:
    """Download a study that `push_study` wrote and unpack it into a folder of studies, where it is only read.

    Returns:
        The study's name.

    Raises:
        InputError: nothing that `push_study` wrote, a study of one's own has the name, or the Hub is away.
    """
    with _hub(repo) as api:
        path = Path(api.hf_hub_download(repo, FILE, repo_type="dataset", revision=revision or None))
    return unpack_study(path, cache)


@contextlib.contextmanager
def _hub(repo: str, *, writes: bool = False) -> Iterator["HfApi"]:
    """The Hub's client. What it raises becomes an InputError of one line with the remedy."""
    from huggingface_hub import HfApi, errors, get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(f"expected a repository as ORG/NAME, of letters, digits, '-', '_' and '.', got {repo!r}")
    if writes and not get_token():
        raise InputError("push: not logged in to the Hub; log in with `hf auth login`, and give the same command again")
    try:
        yield HfApi(library_name="ifguide", library_version=__version__)
    except (errors.HTTPError, errors.EntryNotFoundError, ConnectionError, ValueError, RuntimeError) as error:
        if "disk" in system_reason(error):
            raise
        status = getattr(getattr(error, "response", None), "status_code", 0)
        names = (kind.__name__ for kind in type(error).__mro__)
        explanation = next((_EXPLANATIONS[name] for name in names if name in _EXPLANATIONS), "")
        if not explanation and status in (401, 403):
            explanation = "the Hub refuses your login; log in with `hf auth login` and a token that may write there"
        away = isinstance(error, errors.HTTPError) and not status
        explanation = explanation or (_AWAY if away else f"the Hub refuses ({' '.join(str(error).split())})")
        raise InputError(f"{repo}: {explanation}") from error


def _open_repository(api: "HfApi", repo: str, kind: str, private: bool, revision: str) -> None:
    """Make a repository and its branch where they are missing. A repository that holds something else is refused, and
    so is a public one that was to be private."""
    api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True)
    if revision:
        api.create_branch(repo, branch=revision, repo_type=kind, exist_ok=True)
    info = api.repo_info(repo, repo_type=kind, revision=revision or None)
    there = {file.rfilename for file in getattr(info, "siblings", None) or ()} - {".gitattributes", "README.md"}
    if there and MARK not in there:
        raise InputError(f"{repo} holds files that ifguide did not write ({min(there)}); name another repository")
    if private and not info.private:
        raise InputError(f"{repo} is there already and public; make it private in its settings, or name another one")


def _commit(api: "HfApi", folder: Path, repo: str, kind: str, revision: str, message: str) -> str:
    """Write a folder as one commit, which deletes weights of an earlier push that are not in it; returns its
    address."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    new = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    old = api.list_repo_files(repo, repo_type=kind, revision=revision or None)
    changes: list = [CommitOperationAdd(name, path) for name, path in new.items()]
    changes += [CommitOperationDelete(name) for name in old if name.endswith(".safetensors") and name not in new]
    made = api.create_commit(repo, changes, commit_message=message, repo_type=kind, revision=revision or None)
    return str(made.commit_url)


def _write_table(path: Path, tables: Iterator[pa.Table], made_from: bytes) -> int:
    """Stream tables of one schema into a Parquet file with an index of pages; returns how many rows there were."""
    path.parent.mkdir(parents=True)
    first, n_rows = next(tables), 0
    schema, options = first.schema.with_metadata({"ifguide": made_from}), {"write_page_index": True}
    with parquet.ParquetWriter(path, schema, compression="zstd", **options) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=ROWS)
            n_rows += len(table)
    return n_rows


def _documents(study: Study, chosen: Selection) -> Iterator[pa.Table]:
    """A row a document, in corpus order; lists have a value a token. A score is null where the token has none."""
    corpus, columns = study.corpus(), score_columns(study.config.imported)
    offsets, ranks = np.asarray(corpus.offsets), np.argsort(chosen.order) + 1
    by_token = {"input_ids": corpus.token_ids, "char_start": corpus.char_start, "char_end": corpus.char_end}
    by_token |= {"selected": chosen.mask, **({} if corpus.in_span is None else {"in_span": corpus.in_span})}
    scores = {columns.get(kind, kind): study.scores(kind) for kind in study.kinds()}
    texts = {name: corpus.column(name) for name in ("id", "source", "text")}
    for first, stop in document_runs(offsets, TOKENS):
        part = slice(int(offsets[first]), int(offsets[stop]))
        unscored = ~corpus.valid_between(part.start, part.stop)
        values = {name: pa.array(np.asarray(array[part])) for name, array in by_token.items()}
        values |= {name: pa.array(np.asarray(array[part]), mask=unscored) for name, array in scores.items()}
        own = pa.array(offsets[first : stop + 1] - offsets[first], pa.int32())
        lists = {name: pa.ListArray.from_arrays(own, array) for name, array in values.items()}
        rows = {name: column.slice(first, stop - first) for name, column in texts.items()}
        yield pa.table({**rows, "rank": ranks[first:stop], **lists, **rows})  # no score's name takes a text's place


def _exported(study: Study, what: str, selections: list[str], work: Path) -> Iterator[pa.Table]:
    """A table of `export_study` for each of the selections; `spans`, a row a document, get the selection and rank."""
    for name in selections:
        rows, done = work / "rows.parquet", 0
        export_study(study, what, rows, selection=name)
        ranks = np.argsort(study.selection(name).order) + 1
        for batch in parquet.ParquetFile(rows).iter_batches(ROWS):
            table = pa.table(batch)
            if what == "spans":
                table = table.add_column(0, "selection", pa.array([name] * len(table)))
                table = table.append_column("rank", pa.array(ranks[done : done + len(table)]))
            done += len(table)
            yield table


def _completions(study: Study, models: list[str]) -> Iterator[pa.Table]:
    tables = {name: read_table(study.folder(Unit("evaluate", name)) / "samples.parquet") for name in models}
    named = [table.add_column(0, "model", pa.array([name] * len(table))) for name, table in tables.items()]
    yield pa.concat_tables(named, promote_options="permissive")


def _copy_model(source: Path, folder: Path, hide: Callable[[bytes], bytes]) -> None:
    folder.mkdir()
    for path in sorted(source.iterdir()):
        if path.suffix == ".json":
            (folder / path.name).write_bytes(hide(path.read_bytes()))
        elif path.suffix in (".safetensors", ".jinja", ".txt", ".model"):
            (folder / path.name).symlink_to(path)


def _write_card(folder: Path, template: str, facts: dict, mark: bytes) -> None:
    """README.md from a template beside this file, which escapes what comes from the study; and `MARK`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("ifguide.study.sharing", ".")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    (folder / "README.md").write_text(made.get_template(template).render(facts), encoding="utf-8")
    (folder / MARK).write_bytes(mark)
