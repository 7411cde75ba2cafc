"""A study in which everything a user can name or write tries to become markup, to run, to leave the page, or to be a
formula."""

import dataclasses
import json

from ifguide.evaluation.mechanism_settings import MechanismSettings
from ifguide.storage import artifacts
from ifguide.study.analysis import explain, mechanism
from ifguide.study.freshness import unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from tests.app.fake_study import Content, write_map, write_study
from tests.hostile_texts import hostile_texts

OUTSIDE = "outside.invalid"
"""A host that is nowhere: whatever asks for it was made from a text."""
ICON = "bug_report"
"""A named icon that the app does not use."""
TRAP = (
    f'<script src="//{OUTSIDE}/a.js">window.__ran = 1</script><img src="//{OUTSIDE}/b.png" onerror="window.__ran ='
    f' 2"><svg onload="window.__ran = 3"></svg><iframe src="//{OUTSIDE}/c" srcdoc="<script>parent.__ran ='
    f' 4</script>"></iframe><style>@import "//{OUTSIDE}/d.css"; * {{ letter-spacing: 7px'
    ' }</style></style><b>trap</b><a href="javascript:window.__ran=5">trap</a>\n\n# trap\n\n> trap\n\n-'
    f" trap\n\n**trap** _trap_ ~~trap~~ `trap` [trap](http://{OUTSIDE}/e) ![trap](http://{OUTSIDE}/f.png) :red[trap]"
    f" :blue-badge[trap] :material/{ICON}: :smile: $\\frac{{trap}}{{2}}$ http://{OUTSIDE}/g www.{OUTSIDE}"
    f" someone@{OUTSIDE} \x1b[31mtrap\x1b[0m \u202etrap\u202c {{{{7*7}}}} ${{7*7}} you idiot"
)
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "=cmd|' /C calc'!A0", "  =1+1")
MODEL_FOLDER = "<img src=x onerror=window.__ran=6> _trap_ $trap$"

PROBE = """(icon) => {
  const all = [];
  const walk = (root) => root.querySelectorAll("*").forEach((e) => {
    all.push(e);
    if (e.shadowRoot) walk(e.shadowRoot);
  });
  walk(document);
  const marked = "a b strong em i u s del code pre h1 h2 h3 h4 h5 h6 li blockquote".split(" ");
  const loading = "script img iframe svg link a object embed form base".split(" ");
  const odd = all.filter((e) => {
    const tag = e.tagName.toLowerCase(), text = e.textContent.trim();
    return marked.includes(tag) && text === "trap"
      || loading.includes(tag) && !e.matches(".main-svg") && /outside.invalid|__ran/.test(e.outerHTML)
      || tag === "style" && text.includes("letter-spacing: 7px")
      || e.matches(".katex, .stMarkdownColoredText, .stMarkdownBadge")
      || e.matches('[data-testid="stIconMaterial"]') && text === icon
      || [...e.attributes].some((a) => a.name.startsWith("on"));
  });
  const smile = document.body.innerText.includes("\\u{1F604}");
  const styled = getComputedStyle(document.body).letterSpacing === "7px";
  return odd.map((e) => e.outerHTML.slice(0, 200)).concat(smile ? ["a smile"] : [], styled ? ["a style"] : []);
}"""
"""Elements of the page, those in components' shadow trees among them, that only a text taken for markup could have
made."""


def hostile_content() -> Content:
    """A corpus, queries, prompts and completions of hostile texts; ids and sources are hostile too."""
    texts = [TRAP, *FORMULAS, *hostile_texts()[::8]]
    documents = []
    for number in range(60):
        text = f"{texts[number % len(texts)]} and you idiot at the end {number}"
        start = text.rindex("idiot")
        name = f"{FORMULAS[number % len(FORMULAS)]}{number}" if number % 3 else f"{number} {TRAP}"
        documents.append(
            {
                "id": name,
                "source": (TRAP, *FORMULAS)[number % 4],
                "text": text,
                "spans": [{"start": start, "end": start + 5}],
            }
        )
    return Content(
        documents=documents,
        toxic=[{"prompt": f"{n} {TRAP}", "completion": f" {TRAP} {n}"} for n in range(4)],
        safe=[{"prompt": f"{n} {formula}", "completion": f" {formula}"} for n, formula in enumerate(FORMULAS)],
        prompt=lambda number: f"{FORMULAS[number % len(FORMULAS)]} {number} {TRAP}",
        completion=lambda prompt, sample, toxicity: f" {TRAP} {prompt} {sample} {'idiot' if toxicity >= 0.5 else ''}",
        description=TRAP,
        corpus_file="<img src=x onerror=window.__ran=7> $trap$ =1+1.jsonl",
        model_folder=MODEL_FOLDER,
        metrics={
            "scorer": TRAP,
            "fluency_warning": TRAP,
            "groups": {TRAP: {"n_prompts": 14, "emt": 0.5, "tp": 0.2}},
            "harness": {TRAP: {"acc": 0.5, "acc_stderr": 0.1, "n_samples": 3}},
        },
    )


def write_hostile_study(cache, name: str = "hostile") -> Study:
    """The whole study, with a failed job, and with what the queries do and what the models hold inside as if
    computed."""
    study = write_study(cache, name, content=hostile_content())
    id = study.corpus().document(0).id
    found = {"along": [0.5] * 8, "without": [0.9] * 8, "pulls": [[[id, 1.0]]] * 8}
    path = explain.queries_path(study)
    path.parent.mkdir(exist_ok=True)
    artifacts.write_json(path, {"candidates": 1, "toxic": found, "safe": found})
    path = explain.document_path(study, id, None, None)
    path.parent.mkdir(exist_ok=True)
    pulls = {
        "document": id,
        "start": None,
        "stop": None,
        "toxic": [0.5] * 4,
        "safe": [-0.1] * 8,
        "kind": "own_loss",
        "total": 1.2,
        "parts": {},
    }
    artifacts.write_json(path, {**pulls, "neighbours": [[id, 0.9]], "candidates": 1})
    _write_mechanism(study)
    write_map(study)
    folder = study.root / "jobs" / "20260101-000000-000000"
    folder.mkdir(parents=True)
    status = {
        "job": folder.name,
        "study": name,
        "command": ["run", TRAP],
        "pid": 1,
        "state": "failed",
        "stage": f"{TRAP} {TRAP}",
        "stage_index": 7,
        "n_stages": 10,
        "error": f"{TRAP} `{TRAP}`",
        "message": TRAP,
        "unit": TRAP,
        "started": 1.0,
        "updated": 2.0,
    }
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    (folder / "log.txt").write_text(f"{TRAP}\n", encoding="utf-8")
    return study


def _write_mechanism(study: Study) -> None:
    suppressed = [
        name for name in study.suppressed_names() if unit_state(study, Unit("suppress", name)).state == "fresh"
    ]
    settings = MechanismSettings(models=("base", *suppressed))
    curve = {
        f"{kind}{end}": [-2.0, -1.0] for kind in ("probability", "log_probability") for end in ("", "_low", "_high")
    }
    prefix = {
        "text": TRAP,
        "without": -2.0,
        "best": -1.0,
        "others": -1.5,
        "by_model": dict.fromkeys(settings.models, -1.0),
    }
    models = {name: {"layers": {"toxic": curve, "safe": curve}, "prefix": prefix} for name in settings.models}
    path = mechanism.mechanism_path(study, settings)
    path.parent.mkdir(exist_ok=True)
    artifacts.write_json(
        path, {"settings": dataclasses.asdict(settings), "queries": {"toxic": 4, "safe": 8}, "models": models}
    )
