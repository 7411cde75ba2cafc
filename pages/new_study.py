"""Making a study on one page; the commands `suggest`, `new`, `plan` and `run` do the work."""

import json
from pathlib import Path

import streamlit as st

from ifguide.config.names import NAME_RULE
from ifguide.config.presets import PRESETS
from ifguide.data.chat import MESSAGES
from ifguide.data.queries import CONTINUATION, KINDS
from ifguide.data.query_sources import find_rewrites
from ifguide.errors import ConfigError
from ifguide.runtime.jobs import Job, active_job, enqueue_job
from ifguide.study.drafts import Draft
from ifguide.study.planning.model_facts import known_facts
from ifguide.study.planning.plan import known_plan, plan_rows
from ifguide.study.reading import Study
from ifguide.study.shelf import INPUTS, free_place
from ifguide.ui import components, frame, job_panel, layout
from ifguide.ui.format import column, job_title, plain, sentence
from ifguide.ui.studies.inputs import ask_column, ask_source, draft, last_job, offer_job, problem_of, show_problem

PAIR = "A prompt and its completion"
MODES = {
    "finetune": ("Fine-tune it", "Its weights are trained further on the corpus."),
    "scratch": ("Train from scratch", "Only its shape is taken; training starts from random weights."),
    "asis": ("Use it as it is", "It was trained on the corpus already."),
}
WAYS = {"files": "Two files", "suggest": "Make them from one file"}
UNITS = {"line": "A line", "file": "A file"}
EVALUATION = {
    "prompts": ("Prompts", "prompts.jsonl", "prompt_field", "the models complete the prompts of the toxic examples."),
    "heldout": ("Held-out text", "heldout.txt", "text_field", "nothing tells whether the model still writes well."),
}
NEEDED = {"corpus": "corpus", "toxic": "toxic examples", "safe": "safe examples", "model": "model"}


def ask_name() -> str:
    hint = "my-study"
    name = st.text_input("Name", "", 64, "new_name", help=NAME_RULE, placeholder=hint, persist_state="session").strip()
    try:
        return name and free_place(name).name
    except ConfigError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        return ""


def setting(key: str, value: str) -> list[str]:
    return ["--set", f"{key}={json.dumps(value)}"]


def ask_corpus() -> list[str]:
    note = "A .jsonl, .csv, .tsv, .parquet or .txt file (packed with gzip or zstd, too), or a folder of them."
    given, columns = ask_source("corpus", "Corpus", "/data/posts.jsonl, a folder, or org/name#train", note)
    if not columns:
        return given
    pair = [PAIR] if columns.keys() >= {"prompt", "completion"} else []
    with st.grid(4, min_column_width=170):
        likely = ("text", *MESSAGES, *pair, "content", max(columns, key=columns.__getitem__))
        text = ask_column("corpus", "Text", [*columns, PAIR], likely)
        given.append(f"--text-field={'' if text == PAIR else text}")
        for part in ("prompt", "completion") if text == PAIR else ():
            given += setting(f"corpus.{part}_field", ask_column("corpus", part.capitalize(), columns, (part,)))
        if ".txt" in given[0] or (columns.keys() == {"text"} and Path(given[0].partition("=")[2]).is_dir()):
            title_of = UNITS.__getitem__
            unit = st.selectbox("A document is", [*UNITS], 0, title_of, "new_unit", persist_state="session")
            return given + setting("corpus.text_unit", unit)
        for part, none in (("id", "Row numbers"), ("source", "The file's name"), ("spans", "None")):
            name = ask_column("corpus", part.capitalize(), columns, (part,), none)
            given += [f"--{part}-field={name}"] if name else []
    st.caption("Spans are ranges of characters known to be toxic. They only judge the result.")
    return given


def ask_queries() -> list[str]:
    way = st.segmented_control(
        "Where they come from",
        [*WAYS],
        key="new_ways",
        format_func=WAYS.__getitem__,
        default="files",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    if way == "suggest":
        return suggest_queries()
    given: list[str] = []
    names: dict[str, int] = {}
    for kind, side in zip(KINDS, st.columns(2), strict=True):
        with side:
            option, columns = ask_source(kind, f"{kind.capitalize()} examples", f"/data/{kind}.jsonl")
            given, names = given + option, names | columns
    if names:
        with st.grid(4, min_column_width=170):
            prompt = ask_column("queries", "Prompt", names, ("prompt",), "None: cut each text in two")
            label, likely = ("Completion", ("completion", CONTINUATION)) if prompt else ("Text", ("text",))
            second = ask_column("queries", label, names, likely)
        given.append(f"--prompt-field={prompt}")
        given += [f"--completion-field={second}"] if prompt else setting("queries.text_field", second)
    return given


def suggest_queries() -> list[str]:
    """Options for queries that `ifguide suggest` makes, with what it says about their similarity."""
    note = (
        "Texts with a label (0, 1, true, false or a score), toxic sentences with neutral rewrites as in ParaDetox, or"
        " scored prompts and continuations as in RealToxicityPrompts. It may be the corpus."
    )
    given, columns = ask_source("from", "File with both kinds", "/data/labelled.csv", note)
    if not columns:
        return []
    folder = draft().root / INPUTS / "suggested"
    command = ["suggest", f"--out={folder}", *given, "--force"]
    if CONTINUATION not in columns and not find_rewrites(columns):
        with st.grid(4, min_column_width=170):
            text = ask_column("from", "Text", columns, ("text", max(columns, key=columns.__getitem__)))
            label = ask_column("from", "Label", columns, ("label", "toxic", "is_toxic", "toxicity", "score"))
        command.append(f"--labels={text},{label}")
    status = offer_job("Make the examples", command, icon=":material/auto_awesome:")
    if not status or status.state != "done":
        return []
    for line in Job(folder=draft().root / "jobs" / status.job).log().splitlines():
        (st.warning if line.startswith("warning") else st.caption)(plain(line.replace(f"{folder}/", "")))
    options = [f"--{kind}={folder / f'{kind}.jsonl'}" for kind in KINDS]
    for option in options:
        show_problem(problem_of([option]))
    return options


def ask_evaluation() -> list[str]:
    given: list[str] = []
    for (name, (label, file, field, without)), side in zip(EVALUATION.items(), st.columns(2), strict=True):
        with side:
            option, columns = ask_source(name, f"{label} (optional)", f"/data/{file}")
            given += option
            if not option:
                st.caption(f"Without it, {without}")
            elif columns:
                likely = ("prompt", "text")
                chosen = ask_column(name, "Column", columns, likely) if len(columns) > 1 else next(iter(columns))
                given += setting(f"evaluate.{field}", chosen)
    return given


def ask_model() -> list[str]:
    given, _ = ask_source("model", "Model", "/data/models/my-model, or org/name", rows=False)
    if given and not Path(source := given[0].partition("=")[2]).is_dir():
        if source.startswith(("/", "~", ".")):
            show_problem(f"there is no folder {source}")
        else:
            st.caption("A hub id: downloaded when you press “Check and plan”.")
    left, right = st.columns(2)
    notes, title_of = [note for _, note in MODES.values()], lambda mode: MODES[mode][0]
    mode = left.radio("What to do with it", [*MODES], 0, title_of, "new_mode", captions=notes, persist_state="session")
    names = [name for name in PRESETS if name != "paper"]
    notes = [plain(PRESETS[name].note.replace("`", "")) for name in names]
    preset = right.radio(
        "How thorough", names, 1, str.capitalize, "new_preset", captions=notes, persist_state="session"
    )
    return [*given, f"--preset={preset}", *setting("model.mode", mode)]


def show_plan(study: Study) -> None:
    """The model's facts, what each step will take on this machine, and settings that would make it fit."""
    last, plan = last_job(), known_plan(study)
    if last and last.command[0] == "new":
        job_panel.start(study.root, ["plan", Draft.NAME])
    left, right = st.columns(2)
    if facts := known_facts(study):
        rows = [{"key": what, "cells": [what, text]} for what, text in facts.rows()]
        with left:
            columns = [column("Model", "text"), column("Value", "text")]
            components.record_table(columns, rows, key="facts", label="The model")
    if not plan:
        if failed := offer_job("Plan again", ["plan", Draft.NAME], icon=":material/refresh:"):
            show_problem(failed.error)
        return
    lines = plan_rows(plan)
    columns = [column("Step", "text"), *(column(label) for label in ("Time", "Memory", "GPU memory", "Disk"))]
    used = [n for n in range(len(columns)) if any(line[n] for line in lines)]
    titles = {"in all": "In all", "free": "Free here"}
    cells = [(titles.get(stage) or job_title(stage), *needs) for stage, *needs in lines]
    rows = [{"key": line[0], "cells": [line[n] for n in used]} for line in cells]
    with right:
        components.record_table([columns[n] for n in used], rows, key="plan", label="What each step takes")
    if warning := plan["prompts_warning"].partition(";")[0]:
        st.warning(f"{sentence(warning)} Better give prompts of their own in step 4.", icon=":material/warning:")
    for problem in plan["problems"]:
        st.warning(f"Does not fit: {sentence(problem)}", icon=":material/memory:")
    if not plan["problems"]:
        st.success(f"It fits on this machine and takes about {lines[-2][1]}.", icon=":material/check_circle:")
    if plan["remedies"]:
        changes = ", ".join(f"{key} = {json.dumps(value)}" for key, value in plan["remedies"].items())
        st.caption(plain(f"It may fit with {changes}."))
        offer_job("Make it fit", ["plan", Draft.NAME, "--fit"], icon=":material/compress:")


def start_over() -> None:
    if abandoned := st.session_state.pop("draft", None):
        abandoned.discard()
    for key in [key for key in st.session_state if str(key).startswith("new_")]:
        del st.session_state[key]


def check_and_create(name: str, given: list[str]) -> None:
    """The button that checks and plans; after it succeeded, the one that creates the study."""
    missing = [what for option, what in NEEDED.items() if not any(part.startswith(f"--{option}=") for part in given)]
    command, status = ["new", Draft.NAME, *given], last_job("new")
    icon = ":material/play_arrow:"
    if status and list(status.command) == command and status.state == "done" and (draft().root / "study.toml").exists():
        show_plan(Study.open(Draft.NAME, draft().folder))
        waiting = not name or bool(active_job(draft().root))
        if st.button("Create and run", type="primary", icon=icon, disabled=waiting):
            root = draft().finish(name)
            start_over()
            enqueue_job(name, ["run", name], root.parent)
            layout.open_study(name)
    else:
        failed = offer_job("Check and plan", command, icon=icon, ready=not missing, primary=True)
        if failed and not any(problem_of([part]) for part in given if "=" in part):
            show_problem(failed.error)
    if missing or not name:
        st.caption(f"Still missing: {', '.join(missing if name else ['name', *missing])}.")


frame.start_page("New study")
with layout.guard():
    st.subheader("1 Name", anchor=False)
    name = ask_name()
    st.subheader("2 Corpus", anchor=False)
    st.caption("The text that the model is, or was, trained on. Every token gets a score.")
    given = ask_corpus()
    st.subheader("3 Toxic and safe examples", anchor=False)
    st.caption("They define what to look for. Use similar prompts in both, so that they differ only in toxicity.")
    given += ask_queries()
    st.subheader("4 Evaluation", anchor=False)
    given += ask_evaluation()
    st.subheader("5 Model", anchor=False)
    given += ask_model()
    st.subheader("6 Plan", anchor=False)
    st.caption("Reads every input and measures a few seconds of each step on this machine. Nothing is built yet.")
    check_and_create(name, given)
    if st.button("Start over", type="tertiary", help="Clears this form and removes the uploads."):
        start_over()
        st.rerun()
