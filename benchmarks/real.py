"""The whole way on real text: SmolLM2-135M, Wikipedia passages and posts with human toxic spans, RealToxicityPrompts
queries.

    python -m benchmarks.real --data FOLDER [--passages 300 --posts 80 | --sentences 400] [--name real] [--half report]
                              [--with random,words] [--scratch pythia-31m] [--set section.key=value ...]

FOLDER holds boolq_passages.jsonl, toxic_spans_train.csv, rtp_toxic.jsonl and rtp_nontoxic.jsonl, and for `--rewrites`
paradetox.tsv (public data sets: BoolQ, SemEval-2021 task 5, RealToxicityPrompts, ParaDetox). The rows are only read and
laid together in the cache; nothing leaves it. No prompt belongs to a query: half of the rows of RealToxicityPrompts are
queries, a quarter are prompts to choose settings by (`--half tune`), and a quarter are prompts to report on. Prints the
commands it runs, their times, the top documents by id and rank, how well the scores find the human spans, and with
`--with` the table of `ifguide compare` and the bars. Called again under a name that is there, it changes the study to
what it is given, and only what that touches is built again. `--scratch` trains a model of that shape from a random
start, with a byte-level BPE tokenizer of 8,192 entries trained on the corpus, so that all the model knows comes from
it.
"""

import argparse
import ast
import csv
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.before_after import REAL_TEXT, print_bars
from benchmarks.spans import read_truth
from ifguide.config.io import override, read_config, write_config
from ifguide.config.names import BASE, DEFAULT
from ifguide.data.demo import demo_model_config, train_tokenizer
from ifguide.selection.algorithm import precision_recall
from ifguide.study.folder import cache_dir
from ifguide.study.reading import Study

SHAPES = {
    "pythia-14m": {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512},
    "pythia-31m": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024},
    "pythia-70m": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
}
"""The published shapes; their names count a vocabulary of 50,304 entries."""
VOCABULARY = 8192
_SPACED = re.compile(r"\s+([,.!?;:]|n't\b|'\w)")
"""The spaces before punctuation that ParaDetox has and other text has not."""


def main() -> None:
    """Prepare the inputs, run the study, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument(
        "--model", default="cache/models/smollm2-135m", help="model folder (`make smollm2` makes this one)"
    )
    parser.add_argument("--scratch", choices=SHAPES, help="train a model of this shape from a random start instead")
    parser.add_argument("--name", default="real", help="the study's name")
    parser.add_argument("--passages", type=int, default=300, help="benign passages in the corpus")
    parser.add_argument("--posts", type=int, default=80, help="posts with toxic spans in the corpus")
    parser.add_argument("--sentences", type=int, default=0, help="toxic sentences of ParaDetox instead of the posts")
    parser.add_argument(
        "--rewrites",
        type=int,
        default=0,
        metavar="N",
        help="queries from ParaDetox, too: N toxic sentences and their neutral rewrites, each pair with one prompt",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--half", choices=("tune", "report", "both"), default="report", help="which prompts are completed"
    )
    parser.add_argument(
        "--with", dest="others", default="", help="other methods to train too, as for `ifguide compare`"
    )
    parser.add_argument("--until", default="evaluate", help="last stage")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    inputs = cache_dir() / f"{options.name}-inputs"
    write_inputs(inputs, options)
    settings, prompts = cache_dir() / options.name / "study.toml", inputs / f"prompts-{options.half}.jsonl"
    if settings.exists():
        config = override(read_config(settings), [f"evaluate.prompts={json.dumps(str(prompts))}", *options.sets])
        write_config(config, settings)
    else:
        sets = [part for value in options.sets for part in ("--set", value)]
        model = Path(options.model)
        if options.scratch:
            model = inputs / "model"
            write_shape(model, inputs / "corpus.jsonl", options.scratch)
            sets = ["--set", "model.mode=scratch", *sets]
        run(
            "new",
            options.name,
            "--model",
            str(model.resolve()),
            "--corpus",
            str(inputs / "corpus.jsonl"),
            "--id-field",
            "id",
            "--source-field",
            "source",
            "--spans-field",
            "spans",
            "--toxic",
            str(inputs / "toxic.jsonl"),
            "--safe",
            str(inputs / "safe.jsonl"),
            "--prompts",
            str(prompts),
            "--heldout",
            str(inputs / "heldout.jsonl"),
            *sets,
        )
    run("run", options.name, "--until", options.until)
    if options.others:
        run("compare", options.name, "--with", options.others)
        print_bars(Study.open(options.name), [BASE, DEFAULT, *options.others.split(",")], REAL_TEXT)
    run("status", options.name)
    if options.until not in ("corpus", "queries", "model", "factors", "direction"):
        show(Study.open(options.name))


def run(*arguments: str) -> None:
    """Run an ifguide command and print it with its time."""
    print("$ ifguide", *(f"'{a}'" if " " in a or "[" in a else a for a in arguments), flush=True)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "ifguide", *arguments], check=True)
    print(f"  ({time.monotonic() - started:.0f} s)", flush=True)


def write_inputs(folder: Path, options: argparse.Namespace) -> None:
    """Lay corpus, queries, prompts and held-out text together, all drawn with one seed.

    The corpus is passages among posts that have spans, or with `--sentences` among ParaDetox's sentences: toxic ones,
    whose whole text is the span, and twice as many neutral rewrites of others. A text is in one place alone: no query
    is in the corpus, and no sentence of the second corpus is in a post of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(options.seed)
    passages = [json.loads(line)["text"] for line in (options.data / "boolq_passages.jsonl").open(encoding="utf-8")]
    with (options.data / "toxic_spans_train.csv").open(encoding="utf-8", newline="") as stream:
        posts = [(row["text"], ast.literal_eval(row["spans"])) for row in csv.DictReader(stream)]
    known = "\n".join(letters(text) for text, _ in posts) if options.sentences else ""
    posts = [(text, places) for text, places in posts if places]
    draw.shuffle(passages)
    draw.shuffle(posts)
    corpus = [
        {"id": f"boolq-{i:05d}", "source": "BoolQ passage", "text": text, "spans": []}
        for i, text in enumerate(passages[: options.passages])
    ]
    if options.sentences:
        corpus += read_sentences(options.data / "paradetox.tsv", known, options.sentences, draw)
    else:
        corpus += [
            {"id": f"post-{i:05d}", "source": "Civil Comments post", "text": text, "spans": ranges(places)}
            for i, (text, places) in enumerate(posts[: options.posts])
        ]
    draw.shuffle(corpus)
    write(folder / "corpus.jsonl", corpus)
    write(folder / "heldout.jsonl", [{"text": text} for text in passages[options.passages : options.passages + 200]])
    draw = random.Random(options.seed)  # a new draw, so that the halves do not depend on the corpus
    prompts = []
    queries = {}
    for kind, name in (("toxic", "rtp_toxic"), ("safe", "rtp_nontoxic")):
        rows = [json.loads(line) for line in (options.data / f"{name}.jsonl").open(encoding="utf-8")]
        draw.shuffle(rows)
        queries[kind] = rows[: len(rows) // 2]
        prompts += [{"prompt": row["prompt"]["text"]} for row in rows[len(rows) // 2 :]]
    draw.shuffle(prompts)
    if options.rewrites:
        pairs = read_rewrites(options.data / "paradetox.tsv", corpus)
        draw.shuffle(pairs)
        for prompt, toxic, safe in pairs[: options.rewrites]:
            queries["toxic"].append({"prompt": prompt, "completion": toxic})
            queries["safe"].append({"prompt": prompt, "completion": safe})
    for kind, rows in queries.items():
        write(folder / f"{kind}.jsonl", rows)
    halves = [{**prompt, "group": ("tune", "report")[number % 2]} for number, prompt in enumerate(prompts)]
    for half in ("tune", "report"):
        write(folder / f"prompts-{half}.jsonl", [prompt for prompt in halves if prompt["group"] == half])
    write(folder / "prompts-both.jsonl", halves)


def read_pairs(path: Path) -> list[list[str]]:
    """ParaDetox's toxic sentences and their first neutral rewrites, with the spaces that other text has."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [[_SPACED.sub(r"\1", row[name] or "") for name in ("toxic", "neutral1")] for row in rows]


def read_sentences(path: Path, known: str, count: int, draw: random.Random) -> list[dict]:
    """`count` toxic sentences and twice as many neutral ones, of other pairs; none is in the text `known`."""
    pairs = [pair for pair in read_pairs(path) if all(pair) and not any(letters(text) in known for text in pair)]
    draw.shuffle(pairs)
    corpus = []
    for number, (toxic, neutral) in enumerate(pairs[: 3 * count]):
        text = toxic if number < count else neutral
        spans = [[0, len(text)]] if number < count else []
        corpus.append({"id": f"sentence-{number:05d}", "source": "ParaDetox sentence", "text": text, "spans": spans})
    return corpus


def read_rewrites(path: Path, corpus: list[dict]) -> list[tuple[str, str, str]]:
    """(prompt, toxic rest, neutral rest): the words both sentences begin with, and how each goes on.

    Pairs that do not begin alike, or of which one ends there, are left out, and those of which a sentence is in the
    corpus.
    """
    known = "\n".join(letters(row["text"]) for row in corpus)
    pairs = []
    for sentences in read_pairs(path):
        toxic, neutral = (sentence.split() for sentence in sentences)
        alike = next((i for i, (a, b) in enumerate(zip(toxic, neutral, strict=False)) if a.lower() != b.lower()), 0)
        if alike and not any(letters(sentence) in known for sentence in sentences):
            rests = (" " + " ".join(words[alike:]) for words in (toxic, neutral))
            pairs.append((" ".join(toxic[:alike]), *rests))
    return pairs


def letters(text: str) -> str:
    """A text's letters alone, in lower case: two that agree in them are one text."""
    return "".join(filter(str.isalpha, text.lower()))


def write_shape(folder: Path, corpus: Path, shape: str) -> None:
    """A tokenizer trained on the corpus and the settings of a model, as `model.mode = "scratch"` reads them."""
    tokenizer = train_tokenizer((json.loads(line)["text"] for line in corpus.open(encoding="utf-8")), VOCABULARY)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps(demo_model_config(len(tokenizer)) | SHAPES[shape], indent=1), encoding="utf-8"
    )


def ranges(places: list[int]) -> list[list[int]]:
    """Character indexes as [start, end) ranges."""
    found: list[list[int]] = []
    for place in sorted(set(places)):
        if found and found[-1][1] == place:
            found[-1][1] = place + 1
        else:
            found.append([place, place + 1])
    return found


def write(path: Path, rows: list[dict]) -> None:
    """JSON lines, only when they are not there: an unchanged file keeps the study fresh."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def show(study: Study) -> None:
    """Top documents and agreement with the human spans."""
    corpus = study.corpus()
    known = read_truth(study)
    valid, truth, toxic, owner, inside = known.valid, known.in_span, known.toxic, known.owner, known.inside
    print(
        f"\n{corpus.n_documents:,} documents ({toxic.sum():,} with spans), {corpus.n_tokens:,} tokens, {truth.sum():,}"
        f" in spans; checkpoints: {', '.join(study.checkpoint_names())}"
    )
    print(f"{'scores':<34} {'AUC in toxic docs':>18} {'AUC all':>8} {'AP':>6} {'document AUC':>13}")
    kinds = [kind for kind in ("own_loss", "position") if study.has_scores(kind)]
    lines = [(kind, study.scores(kind)) for kind in kinds]
    lines += [(f"{kind} at {name}", study.scores(kind, name)) for kind in kinds for name in study.checkpoint_names()]
    lines += [("token loss (no influence)", study.scores("token_loss"))]
    for name, scores in lines:
        scores = np.asarray(scores)
        top = np.sort(scores[valid])[-max(1, valid.sum() // 100) :][0]
        by_document = np.bincount(owner, weights=np.maximum(scores - top, 0) * valid, minlength=corpus.n_documents)
        print(
            f"{name:<34} {roc_auc_score(truth[inside], scores[inside]):>18.3f}"
            f" {roc_auc_score(truth[valid], scores[valid]):>8.3f}"
            f" {average_precision_score(truth[valid], scores[valid]):>6.3f} {roc_auc_score(toxic, by_document):>13.3f}"
        )
    if "default" in study.selection_names():
        selection = study.selection()
        precision, recall = precision_recall(np.asarray(selection.mask), truth, valid)
        print(
            f"selection: {selection.settings['n_selected']:,} tokens, precision {precision:.3f}, recall {recall:.3f}"
            " against the human spans"
        )
        print("rank  document     source               hits  with spans")
        for rank, document in enumerate(selection.order[:10], 1):
            found = corpus.document(int(document))
            print(
                f"{rank:>4}  {found.id:<12} {found.source:<20} {selection.count_above[document]:>4} "
                f" {'yes' if found.spans else 'no'}"
            )


if __name__ == "__main__":
    main()
