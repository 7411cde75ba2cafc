"""A judge of one's own: logistic regression over the words and characters of labelled texts, kept as data."""

from functools import partial
from pathlib import Path

import numpy as np

from ifguide.data.readers import check_text, read_rows, take_field
from ifguide.errors import InputError
from ifguide.evaluation.judges.calibration import FILE, calibrate
from ifguide.evaluation.judges.linear import LinearJudge, find_terms, write_judge
from ifguide.storage.artifacts import hash_file, write_json

PARTS = (
    {"unit": "words", "from": 1, "to": 2, "sublinear": True},
    {"unit": "characters", "from": 2, "to": 5, "sublinear": True},
)
LEAST = (2, 3)
"""Texts that a term of each part is in, at least."""
HELD_OUT = 0.2
_CARD = """# {name}

- **What it is**: logistic regression over {terms:,} words, pairs of words and runs of 2 to 5 characters
  (`ifguide judge fit`).
- **Fitted on** {n_fit:,} different texts of {file} (SHA-256 {digest}), {n_toxic:,} of them toxic by
  the column {labels}.
- **On {n_held:,} held-out texts**: AUC {auc:.3f}, expected calibration error {ece:.3f}.
- **Licence**: that of the file; write it here before you pass the judge on.
- **Blind spots**: what its labels do not cover, and whatever words and characters do not show, such as irony,
  quotation, and who is speaking to whom.
"""


def read_labelled(path: str, labels: str, text: str = "text") -> tuple[list[str], np.ndarray]:
    """Different texts of a file and whether each is toxic, bool (n,): its label is true, `toxic`, or 0.5 and more. The
    first of equal texts counts. An InputError: a label is neither, or a class has fewer than ten texts."""
    rows: dict[str, bool] = {}
    for row in read_rows(path, text_field=text, columns=[text, labels]):
        value = take_field(row, labels)
        word = {"true": 1.0, "false": 0.0, "toxic": 1.0}.get(str(value).strip().lower(), value)
        try:
            toxic = float(word) >= 0.5
        except (TypeError, ValueError) as error:
            expected = f"a number, true, false or toxic in {labels!r}"
            raise InputError(f"{row.where}: expected {expected}, got {value!r}; name another column") from error
        rows.setdefault(check_text(take_field(row, text), row.where, text), toxic)
    marks = np.array([*rows.values()], dtype=bool)
    if min(marks.sum(), (~marks).sum()) < 10:
        got = f"{marks.sum()} toxic and {(~marks).sum()} other different texts"
        raise InputError(f"{path}: expected ten texts of each class or more, got {got}; label more")
    return list(rows), marks


def fit_judge(path: str, labels: str, folder: Path, *, text: str = "text", seed: int = 0) -> tuple[LinearJudge, dict]:
    """Fit a judge on a file's labelled rows and write its folder, with its card, and its calibration on a fifth of the
    different texts, which it was not fitted on. Errors as `read_labelled` and `write_judge`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    texts, toxic = read_labelled(path, labels, text)
    order = np.random.default_rng(seed).permutation(len(texts))
    held, kept = np.split(order, [round(HELD_OUT * len(texts))])
    views = [
        TfidfVectorizer(analyzer=partial(find_terms, part=part), sublinear_tf=True, min_df=least)
        for part, least in zip(PARTS, LEAST, strict=True)
    ]
    table = make_union(*views).fit_transform([texts[i] for i in kept])
    model = LogisticRegression(C=10, max_iter=2000).fit(table, toxic[kept])
    parts = [part | {"terms": len(view.idf_)} for part, view in zip(PARTS, views, strict=True)]
    one = np.ones(1)
    tensors = {"weights": model.coef_, "intercepts": model.intercept_, "slopes": one, "offsets": 0 * one}
    tensors["idf"] = np.concatenate([view.idf_ for view in views])
    terms = [term for view in views for term in view.get_feature_names_out()]
    judge = write_judge(folder, folder.name, parts, terms, tensors, "")
    measured = calibrate(judge.score([texts[i] for i in held]), toxic[held].astype(float), {})
    file = Path(path).name
    write_json(folder / FILE, {"reference": f"held-out rows of {file}", "judge": judge.digest, **measured})
    about: dict = {"name": judge.name, "terms": len(terms), "n_fit": len(kept), "n_toxic": int(toxic[kept].sum())}
    about |= {"file": file, "labels": labels, "n_held": len(held), "auc": measured["auc"][0], "ece": measured["ece"][0]}
    digest = hash_file(Path(path))[:12] if Path(path).is_file() else "unknown"
    (folder / "card.md").write_text(_CARD.format(**about, digest=digest), encoding="utf-8")
    return judge, measured
