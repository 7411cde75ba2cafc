"""A study's edited or retrained model as a low-rank adapter (PEFT) of its base model: a few megabytes to share."""

from pathlib import Path
from typing import Any

from ifguide.config.names import BASE
from ifguide.errors import ConfigError, InputError
from ifguide.storage.artifacts import replacing
from ifguide.study.freshness import require_fresh
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages import editing
from ifguide.study.stages.evaluating import load_evaluated


def write_adapter(study: Study, model: str, out: Path, rank: int = 16) -> float:
    """Write what a model changed in its base model's layers, cut to a rank by a singular value decomposition of each,
    into a new folder for `PeftModel.from_pretrained`. Biases are kept whole. Returns the share of the squared change
    that the rank keeps.

    Raises:
        ConfigError: the model has experts, whose layers share one parameter, or is the base model.
        InputError: peft is missing, or the folder is there already.
        StaleError: the model is missing or out of date.
    """
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise InputError("adapter: needs the package peft; run: pip install 'ifguide[peft]'") from error
    import torch

    from ifguide.models.layers import Part, bias_of, stores_inputs_first, weight_of

    if model == BASE:
        raise ConfigError("adapter: expected a model that differs from the base model; `ifguide edit` makes one")
    if out.exists() or not out.resolve().parent.is_dir():
        raise InputError(f"--out: expected a new folder in one that exists, got {out}; name another place")
    require_fresh(study, Unit("suppress", model))
    base, modules, _ = editing.load_base(study)
    if any(isinstance(module, Part) for module in modules.values()):
        raise ConfigError("adapter: layers of experts share one parameter, which adapters cannot hold; share the model")
    others = editing.tracked(study, load_evaluated(study, model)[0])
    settings = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=list(modules),
        bias="all" if any(bias_of(module) is not None for module in modules.values()) else "none",
        fan_in_fan_out=stores_inputs_first(base),
        task_type=TaskType.CAUSAL_LM,
    )
    changes = {name: (weight_of(others[name]) - weight_of(module)).detach() for name, module in modules.items()}
    wrapped = get_peft_model(base, settings)
    kept = whole = 0.0
    with torch.no_grad():
        for name, change in changes.items():
            left, sizes, right = torch.linalg.svd(change.float(), full_matrices=False)
            left, right = left[:, :rank] * sizes[:rank].sqrt(), sizes[:rank, None].sqrt() * right[:rank]
            layer: Any = wrapped.get_submodule(f"base_model.model.{name}")
            for matrix, part in ((layer.lora_A["default"].weight, right), (layer.lora_B["default"].weight.T, left.T)):
                matrix.zero_()
                matrix[: len(part)] = part
            if (bias := bias_of(others[name])) is not None:
                layer.base_layer.bias.copy_(bias)
            kept, whole = kept + float(sizes[:rank].square().sum()), whole + float(sizes.square().sum())
    with replacing(out) as temporary:
        wrapped.save_pretrained(str(temporary))
    return kept / whole if whole else 1.0
