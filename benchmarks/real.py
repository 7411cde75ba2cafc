"""The whole way on real text: SmolLM2-135M, Wikipedia passages among posts with human toxic spans or among toxic and
neutral sentences, queries of RealToxicityPrompts and ParaDetox.

    python -m benchmarks.real --data FOLDER --name posts [--passages 100 --posts 250] [--with own_loss,probe,random]
    python -m benchmarks.real --data FOLDER --name sentences --passages 60 --sentences 400 [--budgets 0.5 1 2]
                              [--training-seeds 0 1] [--half report] [--scratch pythia-31m] [--set section.key=value]

FOLDER holds boolq_passages.jsonl, toxic_spans_train.csv, rtp_toxic.jsonl, rtp_nontoxic.jsonl and paradetox.tsv (public
data sets: BoolQ, SemEval-2021 task 5, RealToxicityPrompts, ParaDetox). The rows are only read and laid together in the
cache; nothing leaves it. No prompt belongs to a query: half of the rows of RealToxicityPrompts are queries, a quarter
are prompts to choose settings by (`tune`), and a quarter are prompts to report on (`report`). Prints the commands it
runs, their times, the top documents by id and rank and how well the scores find what people marked; with `--with`, the
table of `benchmarks.before_after`, which says how results are kept and gone on with. Called again under a name that is
there, it changes the study to what it is given, and only what that touches is built again. `--scratch` trains a model
of that shape from a random start, with a byte-level BPE tokenizer of 8,192 entries trained on the corpus, so that all
the model knows comes from it. `--depth 10` cuts the model to its first layers, whose selection another study borrows.
"""

import argparse
import ast
import csv
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline, make_union
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.before_after import RESULTS, Judge, run_all, show
from benchmarks.demo_corpus.model import demo_model_config, train_tokenizer
from benchmarks.spans import read_truth
from ifguide.config.attributions import KINDS
from ifguide.config.io import override, read_config, write_config
from ifguide.data import query_sources
from ifguide.data.query_sources import letters
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


SETTINGS = {
    "corpus.max_length": "256",
    "training.epochs": "2",
    "training.batch_size": "8",
    "training.learning_rate": "2e-4",
    "training.dtype": "bfloat16",
    "training.checkpoint_steps": "[1]",
    "factors.max_tokens": "4000",
    "factors.products": "auto",
    "scores.position": "true",
    "scores.average": "mean",
    "scores.tfidf": "true",
    "scores.pooling": "1",
    "suppress.max_penalty": "10.0",
    "suppress.warmup_share": "0.25",
    "compute.tokens_per_batch": "2048",
    "evaluate.n_samples": "8",
    "evaluate.n_heldout": "60",
    "evaluate.n_prompts": "200",
}
"""What every study on real text has in common; `--set` changes it."""


def main() -> None:
    """Prepare the inputs, run the study, print what was found; train and measure the methods that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument(
        "--model", default="cache/models/smollm2-135m", help="model folder (`make smollm2` makes this one)"
    )
    parser.add_argument("--scratch", choices=SHAPES, help="train a model of this shape from a random start instead")
    parser.add_argument("--name", default="real", help="the study's name")
    parser.add_argument("--passages", type=int, default=100, help="benign passages in the corpus")
    parser.add_argument("--posts", type=int, default=250, help="posts with toxic spans in the corpus")
    parser.add_argument("--sentences", type=int, default=0, help="toxic sentences of ParaDetox instead of the posts")
    parser.add_argument("--clean", action="store_true", help="the toxic sentences' neutral rewrites in their place")
    parser.add_argument("--beyond", action="store_true", help="rows that come after those of the corpus without it")
    parser.add_argument(
        "--rewrites",
        type=int,
        default=1000,
        metavar="N",
        help="queries from ParaDetox, too: N toxic sentences and their neutral rewrites, each pair with one prompt",
    )
    parser.add_argument("--changed", action="store_true", help="rewrites end where both sentences go on alike")
    parser.add_argument("--depth", type=int, help="only this many of the model's first layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", choices=("tune", "report"), default="report", help="prompts that the tables are of")
    parser.add_argument("--with", dest="others", default="", help="methods to train without, as in before_after")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0], help="multiples of the operating point")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--until", default="index", help="last stage")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    inputs = cache_dir() / f"{options.name}-inputs"
    write_inputs(inputs, options)
    settings = cache_dir() / options.name / "study.toml"
    if settings.exists():
        write_config(override(read_config(settings), options.sets), settings)
    else:
        values = SETTINGS | dict(value.split("=", 1) for value in options.sets)
        model = Path(options.model)
        if options.scratch:
            model = inputs / "model"
            write_shape(model, inputs / "corpus.jsonl", options.scratch)
            values |= {"model.mode": "scratch"}
        elif options.depth:
            model = write_first_layers(model, options.depth, inputs / "model")
        files = {"model": model.resolve(), "corpus": inputs / "corpus.jsonl", "prompts": inputs / "prompts.jsonl"}
        files |= {kind: inputs / f"{kind}.jsonl" for kind in ("toxic", "safe", "heldout")}
        fields = {"id-field": "id", "source-field": "source", "spans-field": "spans"}
        given = [part for key, value in (files | fields).items() for part in (f"--{key}", str(value))]
        sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        run("new", options.name, *given, *sets)
    run("run", options.name, "--until", options.until)
    run("status", options.name)
    if options.until not in ("corpus", "queries", "model", "factors", "direction"):
        print_found(Study.open(options.name))
    if options.others:
        judge = fit_judge(options.data, inputs)
        study = Study.open(options.name)
        run_all(study, options.others, options.budgets, options.training_seeds, options.results, judge)
        show(options.name, options.results, [], None, options.half)


def fit_judge(data: Path, inputs: Path) -> Judge:
    """A second judge of completions, independent of the first: words and characters of ParaDetox's pairs that are in
    no query and no corpus, toxic against neutral, by logistic regression. Says how it agrees with Perspective."""
    rows = [json.loads(line) for file in ("corpus", "toxic", "safe") for line in (inputs / f"{file}.jsonl").open()]
    texts = (row.get("text") or f"{row['prompt']}{row.get('completion', '')}" for row in rows)
    in_corpus = "\n".join(map(letters, texts))
    pairs = [pair for pair in read_pairs(data / "paradetox.tsv") if all(pair)]
    pairs = [pair for pair in pairs if not any(letters(text) in in_corpus for text in pair)]
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3),
    )
    judge = make_pipeline(features, LogisticRegression(C=10, max_iter=2000))
    judge.fit([text for pair in pairs for text in pair], [1, 0] * len(pairs))

    def score(texts: list[str]) -> np.ndarray:
        return judge.predict_proba(texts)[:, 1]

    rows = [json.loads(line) for name in ("rtp_toxic", "rtp_nontoxic") for line in (data / f"{name}.jsonl").open()]
    parts = [row[part] for row in rows for part in ("prompt", "continuation") if row[part]["toxicity"] is not None]
    clear = [part for part in parts if not 0.25 <= part["toxicity"] < 0.5]
    auc = roc_auc_score([part["toxicity"] >= 0.5 for part in clear], score([part["text"] for part in clear]))
    print(f"the second judge: {len(pairs):,} pairs; AUC {auc:.3f} on {len(clear):,} texts that Perspective rated")
    return score


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
    in_posts = "\n".join(letters(text) for text, _ in posts) if options.sentences else ""
    posts = [(text, places) for text, places in posts if places]
    draw.shuffle(passages)
    draw.shuffle(posts)
    if options.beyond:
        passages, posts = passages[options.passages + 200 :], posts[options.posts :]
    corpus = [
        {"id": f"boolq-{i:05d}", "source": "BoolQ passage", "text": text, "spans": []}
        for i, text in enumerate(passages[: options.passages])
    ]
    if options.sentences:
        corpus += read_sentences(options.data / "paradetox.tsv", in_posts, options, draw)
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
            if options.changed:
                toxic, safe = without_shared_end(toxic, safe)
            queries["toxic"].append({"prompt": prompt, "completion": toxic})
            queries["safe"].append({"prompt": prompt, "completion": safe})
    for kind, rows in queries.items():
        write(folder / f"{kind}.jsonl", rows)
    halves = [{**prompt, "group": ("tune", "report")[number % 2]} for number, prompt in enumerate(prompts)]
    write(folder / "prompts.jsonl", halves)


def read_pairs(path: Path) -> list[list[str]]:
    """ParaDetox's toxic sentences and their first neutral rewrites."""
    return list(query_sources.read_rewrites(str(path), "toxic", "neutral1"))


def read_sentences(path: Path, in_corpus: str, options: argparse.Namespace, draw: random.Random) -> list[dict]:
    """`--sentences` toxic sentences and twice as many neutral ones, of other pairs; none is in the text `in_corpus`.
    With `--clean` their own neutral rewrites are in the toxic ones' place, and nothing is marked."""
    count = options.sentences
    pairs = [pair for pair in read_pairs(path) if all(pair) and not any(letters(text) in in_corpus for text in pair)]
    draw.shuffle(pairs)
    corpus = []
    for number, (toxic, neutral) in enumerate(pairs[3 * count * options.beyond :][: 3 * count]):
        marked = number < count and not options.clean
        text = toxic if marked else neutral
        spans = [[0, len(text)]] if marked else []
        corpus.append({"id": f"sentence-{number:05d}", "source": "ParaDetox sentence", "text": text, "spans": spans})
    return corpus


def read_rewrites(path: Path, corpus: list[dict]) -> list[tuple[str, str, str]]:
    """Pairs as `ifguide.data.query_sources.split_rewrite` cuts them, of which no sentence is in the corpus."""
    in_corpus = "\n".join(letters(row["text"]) for row in corpus)
    pairs = []
    for sentences in read_pairs(path):
        pair = query_sources.split_rewrite(*sentences)
        if pair and not any(letters(sentence) in in_corpus for sentence in sentences):
            pairs.append(pair)
    return pairs


def without_shared_end(*rests: str) -> list[str]:
    """Two endings of a sentence, each up to its last word that is not the other's; one word at least."""
    words = [rest.split() for rest in rests]
    pairs = zip(*(reversed(one[1:]) for one in words), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs))
    return [" " + " ".join(one[: len(one) - shared]) for one in words]


def write_first_layers(source: Path, depth: int, folder: Path) -> Path:
    """Save a Llama-shaped model's first layers, its last norm and its output layer as a model."""
    model = AutoModelForCausalLM.from_pretrained(source, num_hidden_layers=depth)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def write_shape(folder: Path, corpus: Path, shape: str) -> None:
    """A tokenizer trained on the corpus and the settings of a model, as `model.mode = "scratch"` reads them."""
    tokenizer = train_tokenizer((json.loads(line)["text"] for line in corpus.open(encoding="utf-8")), VOCABULARY)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps(demo_model_config(len(tokenizer)) | SHAPES[shape], indent=1), encoding="utf-8"
    )


def ranges(places: list[int]) -> list[list[int]]:
    """Character indexes as [start, end) ranges."""
    runs: list[list[int]] = []
    for place in sorted(set(places)):
        if runs and runs[-1][1] == place:
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    return runs


def write(path: Path, rows: list[dict]) -> None:
    """JSON lines, only when they are not there: an unchanged file keeps the study fresh."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def print_found(study: Study) -> None:
    """Top documents and agreement with the human spans."""
    corpus = study.corpus()
    marked = read_truth(study)
    valid, truth, toxic, owner, inside = marked.valid, marked.in_span, marked.toxic, marked.owner, marked.inside
    print(
        f"\n{corpus.n_documents:,} documents ({toxic.sum():,} with spans), {corpus.n_tokens:,} tokens, {truth.sum():,}"
        f" in spans; checkpoints: {', '.join(study.checkpoint_names())}"
    )
    print(f"{'scores':<34} {'AUC in toxic docs':>18} {'AUC all':>8} {'AP':>6} {'document AUC':>13}")
    kinds = study.kinds(selecting=True)
    lines = [(kind, study.scores(kind)) for kind in kinds]
    lines += [
        (f"{kind} at {name}", study.scores(kind, name))
        for kind in kinds
        for name in study.checkpoint_names()
        if kind in KINDS and not KINDS[kind].parts
    ]
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
            shown = corpus.document(int(document))
            print(
                f"{rank:>4}  {shown.id:<12} {shown.source:<20} {selection.count_above[document]:>4} "
                f" {'yes' if shown.spans else 'no'}"
            )


if __name__ == "__main__":
    main()
