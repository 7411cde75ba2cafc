"""A judge of one's own: logistic regression over the words and characters of labelled texts, kept as data."""

from functools import partial
from pathlib import Path

import numpy as np

from ifguide.data.readers import check_text, read_rows, take_field
from ifguide.errors import InputError
from ifguide.evaluation.judges.calibration import FILE, calibrate
from ifguide.evaluation.judges.linear import LinearJudge, find_terms, write_judge
from ifguide.storage.artifacts import write_json

PARTS = (
    {"unit": "words", "from": 1, "to": 2, "sublinear": True},
    {"unit": "characters", "from": 2, "to": 5, "sublinear": True},
)
HELD_OUT, LEAST = 0.2, 10
"""Share of the texts that a judge is measured on, and how many a class has at least."""
_CARD = """# {name}

- **What it is**: logistic regression over {n_terms:,} words, pairs of words and runs of 2 to 5 characters.
- **Fitted on** {n_fit:,} different texts of {file}, {n_toxic:,} of them toxic by the column {labels}.
- **On {n_held:,} held-out texts**: AUC {auc:.3f}, expected calibration error {ece:.3f}.
- **Licence**: that of the file; write it here before you pass the judge on.
- **Blind spots**: what its labels do not cover, and what words and characters do not show, such as irony and quotation.
"""


def read_labelled(path: str, labels: str, text: str = "text") -> tuple[list[str], np.ndarray]:
    """Different texts of a file and whether each is toxic, bool (n,): its label is true, or 0.5 and more. The first of
    equal texts counts. An InputError: a label is neither, or a class has fewer than `LEAST` texts."""
    rows: dict[str, bool] = {}
    for row in read_rows(path, text_field=text, columns=[text, labels]):
        value = take_field(row, labels)
        try:
            toxic = float({"true": 1, "false": 0}.get(str(value).strip().lower(), value)) >= 0.5
        except (TypeError, ValueError) as error:
            expected = f"a number, true or false in {labels!r}"
            raise InputError(f"{row.where}: expected {expected}, got {value!r}; name another column") from error
        rows.setdefault(check_text(take_field(row, text), row.where, text), toxic)
    marks = np.array([*rows.values()], dtype=bool)
    if min(marks.sum(), (~marks).sum()) < LEAST:
        got = f"{marks.sum()} toxic and {(~marks).sum()} other different texts"
        raise InputError(f"{path}: expected at least {LEAST} texts of each class, got {got}; label more")
    return list(rows), marks


def fit_judge(path: str, labels: str, folder: Path, *, text: str = "text") -> tuple[LinearJudge, dict]:
    """Fit a judge on a file's labelled rows and write its folder, with its card, and its calibration on a fifth of the
    different texts, which it was not fitted on. Errors as `read_labelled` and `write_judge`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    texts, toxic = read_labelled(path, labels, text)
    held, kept = np.split(np.random.default_rng(0).permutation(len(texts)), [round(HELD_OUT * len(texts))])
    kinds = [(partial(find_terms, part=part), least) for part, least in zip(PARTS, (2, 3), strict=True)]
    views = [TfidfVectorizer(analyzer=find, sublinear_tf=True, min_df=least) for find, least in kinds]
    table = make_union(*views).fit_transform([texts[i] for i in kept])
    model, one = LogisticRegression(C=10, max_iter=2000).fit(table, toxic[kept]), np.ones(1)
    parts = [part | {"terms": len(view.idf_)} for part, view in zip(PARTS, views, strict=True)]
    tensors = {"weights": model.coef_, "intercepts": model.intercept_, "slopes": one, "offsets": 0 * one}
    tensors["idf"] = np.concatenate([view.idf_ for view in views])
    terms, file = [term for view in views for term in view.get_feature_names_out()], Path(path).name
    judge = write_judge(folder, parts, terms, tensors, "")
    measured = calibrate(judge.score([texts[i] for i in held]), toxic[held].astype(float))
    write_json(folder / FILE, {"reference": f"held-out rows of {file}", "judge": judge.digest, **measured})
    about: dict = {"name": judge.name, "n_terms": len(terms), "n_fit": len(kept), "n_toxic": int(toxic[kept].sum())}
    about |= {"file": file, "labels": labels, "n_held": len(held), "auc": measured["auc"][0], "ece": measured["ece"][0]}
    (folder / "card.md").write_text(_CARD.format(**about), encoding="utf-8")
    return judge, measured
