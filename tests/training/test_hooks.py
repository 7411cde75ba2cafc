"""The undocumented methods of Transformers' Trainer that training replaces."""

import pytest

from ifguide.errors import ConfigError
from ifguide.training.trainer import HOOKS, PenalisedTrainer, check_hooks


def test_a_trainer_without_a_hook_or_with_other_arguments_is_refused_by_name():
    check_hooks()
    assert HOOKS.keys() <= vars(PenalisedTrainer).keys()
    methods = {name: eval(f"lambda self, {', '.join(arguments)}, more=None: None") for name, arguments in HOOKS.items()}
    check_hooks(type("Later", (), methods))
    for name in HOOKS:
        without = type("Without", (), {key: method for key, method in methods.items() if key != name})
        with pytest.raises(ConfigError, match=rf"Trainer\.{name}\(.*no such method; install transformers"):
            check_hooks(without)
        other = type("Other", (), {**methods, name: lambda self, folder: None})
        with pytest.raises(ConfigError, match=rf"Trainer\.{name}\(.* has \(folder\); install transformers"):
            check_hooks(other)


def test_hooks_are_the_only_private_methods_replaced():
    replaced = {name for name in vars(PenalisedTrainer) if name.startswith("_") and not name.startswith("__")}
    assert replaced == HOOKS.keys()
