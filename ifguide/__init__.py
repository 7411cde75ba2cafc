"""IF-Guide Studio: find the training tokens that teach a language model to be toxic, and train without them.

The method is IF-Guide (Coalson, Bae, Carlini and Hong, NeurIPS 2025, arXiv 2506.01790).
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Study": "ifguide.study.reading",
    "StudyConfig": "ifguide.config.schema",
    "IFGuideError": "ifguide.errors",
    "TokenizedCorpus": "ifguide.data.corpus",
    "run_study": "ifguide.study.pipeline",
    "evaluate": "ifguide.study.pipeline",
    "preview_selection": "ifguide.study.stages.select",
    "save_selection": "ifguide.study.stages.select",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Import public names on first use, so that `import ifguide` stays instant."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ifguide' has no attribute {name!r}")
