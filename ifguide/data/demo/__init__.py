"""The built-in study: a generated corpus with known insults, and a tiny model that learns it in minutes."""

from ifguide.data.demo.generator import write_demo_inputs
from ifguide.data.demo.model import demo_model_config, train_tokenizer

__all__ = ["demo_model_config", "train_tokenizer", "write_demo_inputs"]
