"""Linear layers of any class, all used alike: y = x Wᵀ + b, with the bias as one more input that is always 1.

A gradient, an eigenbasis or a direction of a layer has shape (O, I), bias in the last column. Only this file knows how
a class of layers stores its parameters: another class is one more line of `LAYER_TYPES`.

Experts that are stored as one tensor, and routers, which choose experts besides multiplying, are linear layers inside
another module: each is a `Part` of it. While layers are watched or replaced, such a module computes through its parts;
at all other times it computes as Transformers wrote it.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from ifguide.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Layers = dict[str, nn.Module]
"""Linear layers by name."""
Matrices = dict[str, torch.Tensor]
"""A matrix (O, I) for each layer by name: a gradient or a direction."""
Hold = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(a router's values for all experts (N, E), those that it chooses (N, k) int64) -> those to take (N, k)."""


@dataclass(frozen=True, kw_only=True)
class LayerType:
    """How a class of linear layers stores its parameters."""

    weight: str = "weight"
    """Attribute that holds W."""
    bias: str = "bias"
    """Attribute that holds b; where it is missing or None the layer has no bias."""
    inputs_first: bool = False
    """W is stored as (I, O) instead of (O, I)."""


class Part(nn.Module):
    """One linear layer inside another module, its owner, whose parameters it reads and never holds: it is not saved,
    moved or trained by itself."""

    def __init__(self, owner: nn.Module, weight: str = "weight", bias: str = "bias", number: int | None = None):
        super().__init__()
        self._owner = (owner,)  # in a tuple, for a module's modules are registered
        self._names, self.number = (weight, bias), number  # number: of an expert
        self.rows: torch.Tensor | None = None
        """int64 (n,), ascending: which of the batch's B·T positions its inputs (n, I) of this call are; None: all."""
        self.hold: Hold | None = None
        """Of a router: chooses in its place."""

    @property
    def owner(self) -> Any:
        """The module that holds the parameters."""
        return self._owner[0]

    @property
    def weight(self) -> torch.Tensor:
        """W (O, I)."""
        weight = getattr(self.owner, self._names[0])
        if self.number is None:
            return weight
        return weight[self.number].T if self.owner.is_transposed else weight[self.number]

    @property
    def bias(self) -> torch.Tensor | None:
        """b (O,), or None."""
        bias = getattr(self.owner, self._names[1], None)
        return bias if bias is None or self.number is None else bias[self.number]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


LAYER_TYPES: dict[type[nn.Module], LayerType] = {
    nn.Linear: LayerType(),
    Conv1D: LayerType(inputs_first=True),
    Part: LayerType(),
}
"""Every class of layers that influence is computed over; subclasses count as their parent."""


def find_linear(model: nn.Module) -> Layers:
    """All linear layers by name, in model order. Expert 3 of a module `mlp.experts` has the names
    `mlp.experts.3.gate_up_proj` and `mlp.experts.3.down_proj`; a router has the name of its module."""
    layers: Layers = {}
    for name, module in model.named_modules():
        layers |= {f"{name}{ending}": part for ending, part in _parts_of(module).items()}
        if name not in layers and LAYER_TYPES.keys() & type(module).mro():
            layers[name] = module
    return layers


def _parts_of(module: Any) -> dict[str, Part]:
    """The parts of experts (any class under Transformers' `use_experts_implementation`) or of a router, by what follows
    the module's name; empty for all other modules. Always the same objects."""
    if hasattr(module, "is_transposed") and hasattr(module, "_apply_gate"):
        if not hasattr(module, "influence_parts"):
            names = ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")
            module.influence_parts = {
                f".{number}.{name}": Part(module, name, f"{name}_bias" if module.has_bias else "", number)
                for number in range(getattr(module, names[0]).shape[0])
                for name in names
            }
    elif "Router" in type(module).__name__ and getattr(module._parameters.get("weight"), "ndim", 0) == 2:
        if not hasattr(module, "influence_parts"):
            module.influence_parts = {"": Part(module)}
    else:
        return {}
    return module.influence_parts


def layer_group(name: str) -> str:
    """The layer's name, the same for all experts of a module: they are one layer, of which a token uses a part."""
    return re.sub(r"\bexperts\.\d+\b", "experts", name)


def count_weights(layers: Layers) -> int:
    """Weights and biases of some layers, those that several share counted once."""
    sizes = {}
    for layer in layers.values():
        for tensor in filter(torch.is_tensor, (weight_of(layer), bias_of(layer))):
            sizes[id(tensor if tensor._base is None else tensor._base), tensor.storage_offset()] = tensor.numel()
    return sum(sizes.values())


def _type_of(module: nn.Module) -> LayerType:
    for cls in type(module).__mro__:
        if cls in LAYER_TYPES:
            return LAYER_TYPES[cls]
    names = ", ".join(cls.__name__ for cls in LAYER_TYPES)
    raise ConfigError(f"expected a linear layer ({names}), got {type(module).__name__}; leave it out")


def oriented(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """A view of a weight between the layout the layer stores and (O, I), in either direction."""
    return weight.T if _type_of(module).inputs_first else weight


def weight_of(module: nn.Module) -> torch.Tensor:
    """W (O, I), a view of what the layer holds now."""
    return oriented(module, getattr(module, _type_of(module).weight))


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """b (O,), or None."""
    return getattr(module, _type_of(module).bias, None)


def has_bias(module: nn.Module) -> bool:
    """Whether the layer adds a bias."""
    return bias_of(module) is not None


def layer_shape(module: nn.Module) -> tuple[int, int]:
    """(O, I) of a layer, the bias counted as an input."""
    outputs, inputs = weight_of(module).shape
    return outputs, inputs + has_bias(module)


def split_matrix(module: nn.Module, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A matrix (O, I) of a layer as views of its part for W and its part for b (None without a bias)."""
    return (matrix[:, :-1], matrix[:, -1]) if has_bias(module) else (matrix, None)


def is_plain_matrix(module: nn.Module | None) -> bool:
    """Whether a layer does nothing but y = x Wᵀ + b: no subclass, no hook of accelerate's."""
    return type(module) in LAYER_TYPES and not hasattr(module, "_hf_hook")


def stores_inputs_first(model: nn.Module) -> bool:
    """Whether a model has layers that store W as (I, O), which low-rank adapters ask for (peft: `fan_in_fan_out`)."""
    return any(_type_of(module).inputs_first for module in find_linear(model).values())


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes. Between calls accelerate may keep its weights elsewhere, even on the meta device."""
    for part in (module.owner if isinstance(module, Part) else module).modules():
        place = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if place is not None:
            return torch.device(place)
        for parameter in part.parameters(recurse=False):
            return parameter.device
    return torch.device("cpu")


def find_shared_inputs(model: nn.Module, modules: Layers) -> dict[str, str]:
    """For each layer the first one that is given the very same inputs (itself, if none before it is), with or without a
    bias alike. The model is run on two tokens.

    Queries, keys and values of an attention layer read one tensor, so what is made of it is made once.
    """
    seen: dict[str, torch.Tensor] = {}

    def make_hook(name: str):
        return lambda module, args: seen.setdefault(name, args[0])

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_pre_hook(make_hook(name)))
        model(input_ids=torch.ones(1, 2, dtype=torch.int64, device=device_of(model)))
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((id(seen[name]) if name in seen else name, has_bias(module)), name)
        for name, module in modules.items()
    }


@contextlib.contextmanager
def replace_forward(forwards: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """Inside the block each layer computes something else; its hooks, accelerate's included, run as always."""
    kept = []
    try:
        for module, forward in {**forwards, **_through_parts(forwards)}.items():
            name = "_old_forward" if hasattr(module, "_old_forward") else "forward"  # what accelerate's hooks call
            kept.append((module, name, vars(module).get(name)))
            setattr(module, name, forward)
        yield
    finally:
        for module, name, before in kept:
            if before is None:
                delattr(module, name)
            else:
                setattr(module, name, before)


def _through_parts(layers: Iterable[nn.Module]) -> dict[nn.Module, Callable]:
    """For each owner of a part among the layers a forward function that computes through all its parts."""
    owners = {layer.owner for layer in layers if isinstance(layer, Part)}
    return {owner: functools.partial(_route if len(_parts_of(owner)) > 1 else _choose, owner) for owner in owners}


def _route(owner: Any, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """What experts give to hidden states (N, H), each through the k experts `chosen` (N, k), weighted by `shares`
    (N, k): as Transformers' `batched_mm_experts_forward`, but expert by expert, which also has a forward derivative."""
    parts, k = list(owner.influence_parts.values()), chosen.shape[-1]
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=len(parts) // 2).tolist()
    by_expert = []
    for first, second, rows in zip(parts[::2], parts[1::2], (order // k).split(counts), strict=True):
        if len(rows):  # (n,), of which this expert gets the inputs (n, H)
            first.rows = second.rows = rows
            inner = first(hidden[rows])
            by_expert.append(second(owner._apply_gate(inner) if owner.has_gate else owner.act_fn(inner)))
    outputs = torch.cat(by_expert)  # (N·k, H), sorted by expert
    if owner.has_post_expert_norm:
        outputs = owner.post_expert_norm(outputs)
    weighted = outputs * shares.flatten()[order].unsqueeze(-1)
    return weighted[order.argsort()].view(len(hidden), k, -1).sum(1).to(hidden.dtype)


class _ThroughPart(TorchFunctionMode):
    """Sends the product with a router's weight through its part, and its choice through the part's `hold`."""

    def __init__(self, part: Part):
        super().__init__()
        self.part, self.used = part, False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        options, part = kwargs or {}, self.part
        if func is nn.functional.linear and args[1] is part.weight and (*args, options.get("bias"))[2] is part.bias:
            self.used = True
            return part(args[0])
        output = func(*args, **options)
        if part.hold and func in (torch.topk, torch.Tensor.topk):
            chosen = part.hold(args[0], output[1])
            return args[0].gather(-1, chosen), chosen
        return output


def _choose(owner: nn.Module, *args, **options):
    """What a router gives, its logits computed through its part. A ConfigError: it multiplies in another way, and the
    part is watched or replaced."""
    part = _parts_of(owner)[""]
    with _ThroughPart(part) as mode:
        output = type(owner).forward(owner, *args, **options)
    if not mode.used and ("forward" in vars(part) or part._forward_hooks):
        reason = f"{type(owner).__name__} does more to its inputs or weight than multiply them"
        raise ConfigError(f"expected a router that is a linear layer, but {reason}; leave it out with model.modules")
    return output


def find_routers(model: nn.Module) -> list[Part]:
    """The routers among a model's linear layers, in model order."""
    return [layer for layer in find_linear(model).values() if isinstance(layer, Part) and layer.number is None]


@contextlib.contextmanager
def hold_routes(routers: list[Part], hold: Hold) -> Iterator[None]:
    """Inside the block the routers take the experts that `hold` says; how much they take of each still follows from
    their own logits."""
    with replace_forward(_through_parts(routers)):
        for router in routers:
            router.hold = hold
        try:
            yield
        finally:
            for router in routers:
                router.hold = None


@contextlib.contextmanager
def watch(
    model: "PreTrainedModel", modules: Layers, *, on_input: Callable | None = None, on_gradient: Callable | None = None
) -> Iterator[None]:
    """See each layer's inputs on the way forward, by `on_input(name, inputs, places)`, and its output's gradient on
    the way back, by `on_gradient(name, inputs, gradient, places)` as soon as it is known. Each layer must be called at
    most once a forward pass. Gradients flow through the activations while parameters need none, which saves a third of
    a backward pass.

    Inputs (S, W, I) and gradients (S, W, O) are rows of S sequences, and `places` (S, W) int64 says which of the
    batch's B·T positions, laid end to end, each row is. Most layers get all of them: S is B and W is T. An expert gets
    the tokens routed to it, from the sequences that have any; shorter ones are filled up with zeros, the bias's input
    included, whose place is 0.
    """
    batch: dict[str, torch.Size] = {}

    def make_hook(name: str):
        def hook(module, args, output):
            inputs, (n_sequences, length) = args[0].detach(), batch["shape"]
            rows = getattr(module, "rows", None)
            n_rows = n_sequences * length if rows is None else len(rows)
            if inputs.shape[:-1] not in ((n_sequences, length), (n_rows,)):
                expected, remedy = "(batch, positions, features)", "leave it out with model.modules"
                raise ConfigError(f"layer {name} gets inputs of {tuple(inputs.shape)}, expected {expected}; {remedy}")
            if has_bias(module):  # one more input that is always 1
                inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
            if rows is None:
                places = torch.arange(n_rows, device=inputs.device).view(n_sequences, length)
                arrange = lambda values: values.reshape(n_sequences, length, -1)  # noqa: E731
            else:
                places, arrange = _by_sequence(rows, length)
            inputs = arrange(inputs)
            if on_input:
                on_input(name, inputs, places)
            if on_gradient and output.requires_grad:
                output.register_hook(lambda gradient: on_gradient(name, inputs, arrange(gradient), places))

        return hook

    def start(module, args, output):
        batch["shape"] = output.shape[:2]
        return output.requires_grad_()

    with contextlib.ExitStack() as contexts:
        contexts.enter_context(model.get_input_embeddings().register_forward_hook(start))
        contexts.enter_context(replace_forward(_through_parts(modules.values())))
        for name, module in modules.items():
            contexts.enter_context(module.register_forward_hook(make_hook(name)))
        contexts.enter_context(torch.enable_grad())
        yield


def _by_sequence(rows: torch.Tensor, length: int) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Places (S, W) of rows (n,), ascending positions in sequences of one length, put together by sequence, and the
    function that puts values (n, K) of the rows in the same order (S, W, K)."""
    _, which, counts = (rows // length).unique_consecutive(return_inverse=True, return_counts=True)
    within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[which]
    shape = len(counts), int(counts.max())

    def arrange(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(*shape, values.shape[-1]).index_put((which, within), values)

    return arrange(rows.unsqueeze(-1)).squeeze(-1), arrange
