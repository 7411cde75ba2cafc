"""What pages ask the process that runs the models (`ifguide.serving`), which all readers share."""

import contextlib
import threading
import time
from collections.abc import Sequence

import streamlit as st

from ifguide.errors import ProcessError
from ifguide.serving.client import ModelWorker
from ifguide.study.stages.evaluating import missing_weights
from ifguide.ui.format import sentence
from ifguide.ui.loaders import Loaded

POLL_SECONDS = 0.2
ENDED = ("done", "cancelled", "failed")
LOADED_SECONDS = 300.0
"""The process, which ends after some minutes without a request, is asked again after this long."""


@st.cache_resource(show_spinner=False)
def model_worker() -> ModelWorker:
    """The process, started by its first request."""
    return ModelWorker()


def ask(loaded: Loaded, **request) -> dict:
    """Send a request to the queue; returns its state."""
    state = {"state": "waiting", "message": "", "cells": [], "figures": {}, "ahead": 0}
    try:
        return state | {"id": model_worker().ask(study=str(loaded.study.root), **request)}
    except ProcessError as error:
        return state | {"state": "failed", "message": str(error)}


def load_ahead(loaded: Loaded, names: Sequence[str]) -> None:
    """Have models loaded before the first prompt. Returns at once: the process may take seconds to start."""
    key = loaded.key, tuple(names), time.monotonic() // LOADED_SECONDS
    if st.session_state.get("loaded_ahead") == key or any(missing_weights(loaded.study, name) for name in names):
        return
    st.session_state["loaded_ahead"] = key
    worker = model_worker()

    def load() -> None:
        with contextlib.suppress(ProcessError):  # the first prompt tells it
            worker.ask(study=str(loaded.study.root), models=list(names), load=True)

    threading.Thread(target=load, daemon=True).start()


def read(state: dict, cancel: bool = False) -> None:
    """Bring a request's state up to date; `cancel` ends it."""
    try:
        state |= model_worker().read(state["id"], cancel=cancel)
    except ProcessError as error:
        state |= {"state": "failed", "message": str(error)}


def explain_failure(text: str) -> str:
    """An error's message as a sentence of Markdown."""
    return sentence(f"{text[:1].upper()}{text[1:]}.")
