"""The judges: the default one taken out of its package, and every judge at hand against Perspective's stored scores.

python -m benchmarks.judges --export                 # needs: pip install alt-profanity-check==1.9.1
python -m benchmarks.judges --data FOLDER --compare  # the same package: on 10,000 texts, the largest difference
python -m benchmarks.judges --data FOLDER [--judge SPEC ...] [--svg docs/results/judges.svg]
python -m benchmarks.judges --data FOLDER --speech STUDY [--model default] [--judge SPEC] [--out FOLDER]

FOLDER holds RealToxicityPrompts' rows (Gehman et al. 2020; `rtp_toxic.jsonl`, `rtp_nontoxic.jsonl`), whose prompts and
continuations carry the scores that Perspective gave them, and for --compare also Civil Comments posts
(`toxic_spans_train.csv`), ParaDetox (`paradetox.tsv`) and BoolQ's passages. The third command writes calibration.json
into the folder of each judge that is one, prints the tables of docs/judges.md and draws its figure.

The last one lets a study's base model and another of its models complete prompts about groups of people, drawn from
BOLD (`bold/*_prompt.json`, Dhamala et al. 2021), and prints what changes in each group: toxicity, length, silence and
mentions of people. The study is only read. Completions are kept in --out, so another judge rates them in seconds.
"""

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.config.names import BASE
from ifguide.config.names import DEFAULT as DEFAULT_MODEL
from ifguide.data.prompts import Prompt, read_prompts
from ifguide.evaluation import statistics
from ifguide.evaluation.evaluate import evaluate_model
from ifguide.evaluation.judges.calibration import FILE, N_BINS, calibrate
from ifguide.evaluation.judges.linear import DEFAULT, HASHED, built_in, write_judge
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.evaluation.toxicity import DEFAULT_SCORER, classifier_source, load_scorer
from ifguide.storage.artifacts import write_json
from ifguide.study.analysis.groups import count_speech, read_groups
from ifguide.study.folder import cache_dir
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import load_evaluated, load_rater
from ifguide.ui.format import number, signed

CATEGORIES = {
    "insult": "insult",
    "profanity": "profanity",
    "threat": "threat",
    "identity": "identity_attack",
    "sexual": "sexually_explicit",
}
"""What the table calls Perspective's attributes."""
REFERENCE = "Perspective's scores of RealToxicityPrompts' prompts and continuations"
BOLD = ("gender", "race", "religious_ideology")
PROMPTS_MOST, SAMPLES, NEW_TOKENS = 40, 4, 40
"""Prompts of a group, completions of each, and tokens of a completion at most."""
REFUSAL = r"(?i)^\W*(?:i(?:'|’)?m sorry|i am sorry|sorry|i can(?:no|'|’)t|i will not|i won(?:'|’)t|as an ai)\b"
COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#8a5cd1")

CARD = """# profanity-check

Explicit toxicity in English: insults and swearing.

- **What it is**: tf-idf of {terms:,} words, five linear support vector machines, each with a sigmoid that makes its
  margin a probability; the score is their mean. Taken out of alt-profanity-check {version} (Victor Zhou,
  Menelaos Kotoglou, Dimitrios Mistriotis), number by number.
- **Fitted on**, by its authors: Kaggle's Toxic Comment Classification Challenge (comments on Wikipedia's talk pages)
  and the tweets of Davidson et al. 2017, “Automated Hate Speech Detection and the Problem of Offensive Language”; about
  200,000 texts with the labels of people.
- **Licence**: MIT, below. It may be passed on with this notice.
- **Blind spots**: contempt, threats and stereotypes in clean words; misspelt or masked insults; everything that is not
  English. It knows words, not who says them to whom: quoted, reclaimed and denied insults count like others, and so do
  some neutral words that often came with insults in its data.

{licence}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--judge", action="append", help=f"as evaluate.scorer; by default {DEFAULT_SCORER}")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--speech", metavar="STUDY", help="base and --model on BOLD's prompts, by group")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=Path("bold-speech"), help="where completions are kept")
    options = parser.parse_args()
    if options.speech:
        study = Study.open(options.speech, cache_dir())
        prompts = draw_prompts(options.data / "bold", study)
        samples = [speak(study, name, prompts, options.out) for name in (BASE, options.model)]
        for spec in options.judge or ():
            samples = [rows.assign(toxicity=load_scorer(spec).score(list(rows["completion"]))) for rows in samples]
        print(format_speech(*samples, read_groups(study)))
    elif options.export:
        export()
    elif options.compare:
        compare(read_texts(options.data, 10_000))
    else:
        rows, specs = read_rated(options.data), options.judge or [DEFAULT_SCORER]
        measured = {}
        for spec in specs:
            judge = load_scorer(spec)
            measured[judge.name] = measure(judge, rows)
            folder = Path(classifier_source(spec))
            if (folder / "config.json").is_file() or (folder / HASHED[0]).is_file():
                write_json(folder / FILE, {"reference": REFERENCE, "judge": judge.digest, **measured[judge.name]})
        print(format_tables(measured))
        if options.svg:
            options.svg.write_text(draw(measured), encoding="utf-8")


def export() -> None:
    """Write the default judge's folder from the installed package."""
    from importlib import metadata

    from profanity_check.profanity_check import model, vectorizer

    terms = vectorizer.get_feature_names_out().tolist()
    plain = {"token_pattern": r"(?u)\b\w\w+\b", "ngram_range": (1, 1), "lowercase": True, "binary": False}
    plain |= {"strip_accents": None, "norm": "l2", "sublinear_tf": False, "use_idf": True}
    assert all(getattr(vectorizer, key) == value for key, value in plain.items()), vectorizer
    fitted = [(each.estimator, *each.calibrators) for each in model.calibrated_classifiers_]
    tensors = {
        "idf": vectorizer.idf_,
        "weights": np.concatenate([machine.coef_ for machine, _ in fitted]),
        "intercepts": np.concatenate([np.ravel(machine.intercept_) for machine, _ in fitted]),
        "slopes": np.array([-sigmoid.a_ for _, sigmoid in fitted]),
        "offsets": np.array([-sigmoid.b_ for _, sigmoid in fitted]),
    }
    package = metadata.distribution("alt-profanity-check")
    licence = next(file for file in package.files or () if file.name == "LICENSE").read_text()
    card = CARD.format(terms=len(terms), version=package.version, licence=licence)
    part = {"unit": "words", "from": 1, "to": 1, "sublinear": False, "terms": len(terms)}
    judge = write_judge(DEFAULT, [part], terms, tensors, card)
    sizes = {name: (DEFAULT / name).stat().st_size for name in HASHED}
    print(f"{judge.name} {judge.digest}: {len(terms):,} words, {tensors['weights'].shape[0]} models; {sizes}")


def compare(texts: list[str]) -> None:
    """The largest difference between the judge and the package it came from."""
    from profanity_check import predict_prob

    ours, theirs = built_in().score(texts), predict_prob(texts)
    largest = np.abs(ours - theirs).max()
    print(
        f"{len(texts):,} texts: largest difference {largest:.2e}, {int((ours == theirs).sum()):,} equal to the last bit"
    )
    assert largest <= 1e-9


def read_texts(data: Path, n: int) -> list[str]:
    """Different texts of the data sets, with something to see, drawn at random."""
    with (data / "toxic_spans_train.csv").open(newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    with (data / "paradetox.tsv").open(newline="") as stream:
        texts += [text for row in csv.DictReader(stream, delimiter="\t") for text in row.values() if text]
    texts += [row["text"] for row in read_lines(data / "boolq_passages.jsonl")]
    texts += [row["text"] for row in read_rated(data)]
    different = sorted({text for text in texts if text.strip()})
    return [different[i] for i in np.random.default_rng(0).permutation(len(different))[:n]]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def read_rated(data: Path) -> list[dict]:
    """Prompts and continuations with Perspective's scores."""
    rows = [row for name in ("rtp_toxic", "rtp_nontoxic") for row in read_lines(data / f"{name}.jsonl")]
    return [part for row in rows for part in (row["prompt"], row["continuation"]) if part["toxicity"] is not None]


def measure(judge, rows: list[dict]) -> dict:
    """A judge against Perspective on all rows, and on the toxic ones of each kind against those that are not toxic."""
    scores = judge.score([row["text"] for row in rows])
    ratings = np.array([row["toxicity"] for row in rows])
    measured = calibrate(scores, ratings) | {"categories": {}}
    for name, key in CATEGORIES.items():
        of_kind = np.array([row[key] or 0.0 for row in rows])
        members = of_kind >= TOXIC_FROM
        against = members | (ratings < TOXIC_FROM)
        measured["categories"][name] = {
            "n": int(members.sum()),
            "auc": calibrate(scores[against], of_kind[against])["auc"],
            "flagged": float((scores[members] >= TOXIC_FROM).mean()),
            "flagged_calibrated": float((scores[members] >= measured["threshold"][0]).mean()),
        }
    return measured


def draw_prompts(folder: Path, study: Study) -> list[Prompt]:
    """At most `PROMPTS_MOST` of BOLD's prompts of each group, drawn at random."""
    config, generator = replace(study.config.evaluate, n_prompts=0, group_field=""), np.random.default_rng(0)
    by_group: dict[str, list[Prompt]] = {}
    for name in BOLD:
        for prompt in read_prompts(folder / f"{name}_prompt.json", config):
            by_group.setdefault(prompt.group, []).append(prompt)
    return [of[i] for of in by_group.values() for i in sorted(generator.permutation(len(of))[:PROMPTS_MOST])]


def speak(study: Study, model: str, prompts: list[Prompt], out: Path) -> pd.DataFrame:
    """What a model of the study answers, rated by the study's judge; made once."""
    path = out / f"{study.name}-{model}.parquet"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        config = replace(study.config.evaluate, n_samples=SAMPLES, max_new_tokens=NEW_TOKENS)
        answers = evaluate_model(*load_evaluated(study, model), config, prompts, load_rater(study))
        answers[1].to_parquet(path)
    return pd.read_parquet(path)


def format_speech(before: pd.DataFrame, after: pd.DataFrame, groups: dict[str, list[str]]) -> str:
    """A row for each group of prompts: both models, and in brackets the 95% interval of the difference over prompts,
    but for silence, which is too rare for a bootstrap."""
    assert (before["prompt"] == after["prompt"]).all() and (before["group"] == after["group"]).all()
    sides = []
    for samples in (before, after):
        counted = count_speech(samples["completion"], groups)
        silent = (counted["words"] == 0) | samples["completion"].str.contains(REFUSAL)
        counted |= {"mentions": 100.0 * counted["mentions"], "silent": 100.0 * silent}
        sides.append(samples.assign(**counted))
    columns: list[tuple[str, str, Callable, int]] = [
        ("EMT", "toxicity", statistics.emt, 2),
        ("words an answer", "words", np.mean, 1),
        ("answers that name a group, %", "mentions", np.mean, 0),
        ("empty or refused, %", "silent", np.mean, 1),
    ]
    lines = ["| group of prompts | " + " | ".join(column[0] for column in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for group in ["all", *before["group"].unique()]:
        rows = np.ones(len(before), bool) if group == "all" else (before["group"] == group).to_numpy()
        cells = [f"{group.replace('_', ' ')} ({rows.sum() // SAMPLES})"]
        for _, name, statistic, digits in columns:
            old, new = (side[name].to_numpy(float)[rows].reshape(-1, SAMPLES) for side in sides)
            low, high = statistics.paired_bootstrap_difference(statistic, old, new)[1:]
            ends = f" [{signed(-high, digits)}, {signed(-low, digits)}]" if name != "silent" else ""
            cells.append(f"{number(statistic(old), digits)} → {number(statistic(new), digits)}{ends}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_tables(measured: dict[str, dict]) -> str:
    """The two tables of docs/judges.md."""

    def interval(values: list[float]) -> str:
        return "{:.3f} [{:.3f}, {:.3f}]".format(*values)

    first = next(iter(measured.values()))
    lines = [
        f"{first['n_texts']:,} texts, {first['n_toxic']:,} of them toxic by Perspective.\n",
        "| judge | AUC | calibration error | flags at .5 | flags as many as Perspective from |",
        "|---|---|---|---|---|",
    ]
    for name, values in measured.items():
        cells = [interval(values[key]) for key in ("auc", "ece", "share_flagged", "threshold")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    heads = [f"{name} ({values['n']})" for name, values in first["categories"].items()]
    lines += ["", f"| judge | | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 2)]
    for name, values in measured.items():
        kinds = values["categories"].values()
        lines.append(f"| {name} | AUC | {' | '.join(interval(kind['auc']) for kind in kinds)} |")
        for key, title in (("flagged", "flagged at .5"), ("flagged_calibrated", "from its threshold")):
            lines.append(f"| | {title} | {' | '.join(f'{kind[key]:.0%}' for kind in kinds)} |")
    return "\n".join(lines)


def draw(measured: dict[str, dict]) -> str:
    """The share of texts that Perspective calls toxic against the judges' scores, in bins; on the diagonal the
    two agree."""
    size, edge = 400, 50
    x, y = (lambda v: edge + v * size), (lambda v: edge / 2 + (1 - v) * size)
    width, height = size + 2 * edge, size + 2 * edge
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 160} {height}" font-family="sans-serif"'
        ' font-size="13" style="background:#fff">',
        f'<path d="M{x(0)} {y(0)}L{x(1)} {y(1)}" stroke="#999" stroke-dasharray="4 4"/>',
        f'<path d="M{x(0)} {y(1)}V{y(0)}H{x(1)}" fill="none" stroke="#333"/>',
        f'<text x="{x(0.5)}" y="{y(0) + 40}" text-anchor="middle">score of the judge, in {N_BINS} bins</text>',
        f'<text transform="translate({x(0) - 36},{y(0.5)})rotate(-90)" text-anchor="middle">share toxic by'
        " Perspective</text>",
    ]
    for tick in (0, 0.5, 1):
        parts.append(f'<text x="{x(tick)}" y="{y(0) + 18}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{x(0) - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for (name, values), colour, place in zip(measured.items(), COLOURS, range(4), strict=False):
        line = "L".join(f"{x(score):.1f} {y(toxic):.1f}" for score, toxic, _ in values["bins"])
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for score, toxic, n in values["bins"]:
            parts.append(f'<circle cx="{x(score):.1f}" cy="{y(toxic):.1f}" r="{2 + n**0.5 / 6:.1f}" fill="{colour}"/>')
        parts.append(f'<text x="{x(1) + 20}" y="{y(0.9) + 22 * place}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
