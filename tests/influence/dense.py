"""The slow truth: gradients by plain autograd on the parameters, one sequence and one token at a time."""

import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D

from ifguide.models.layers import Part, has_bias, replace_forward


def layer_gradient(model, modules, loss):
    """Gradient of a loss as {name: (O, I)}, bias in the last column, from autograd on the parameters themselves."""
    stored = {name: stored_parameters(module) for name, module in modules.items()}
    parameters = {id(p): p for pair in stored.values() for p in pair if p is not None}
    values = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    gradients = dict(zip(parameters, values, strict=True))
    found = {}
    for name, module in modules.items():
        weight, bias = (None if p is None else gradients[id(p)] for p in stored[name])
        number = getattr(module, "number", None)
        if number is not None:  # an expert
            weight, bias = weight[number], None if bias is None else bias[number]
        turned = isinstance(module, Conv1D) or (number is not None and module.owner.is_transposed)
        weight = weight.T if turned else weight
        found[name] = weight if bias is None else torch.cat([weight, bias.unsqueeze(1)], dim=1)
    return found


def stored_parameters(module):
    """The parameters that hold a layer's weight and its bias or None, of experts all of them."""
    if isinstance(module, Part):
        return [getattr(module.owner, name, None) for name in module._names]
    return [module.weight, module.bias]


def sequence_losses(model, token_ids):
    """Losses (T-1,) of one sequence with gradients on the parameters."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    ids = torch.as_tensor(token_ids, dtype=torch.int64).unsqueeze(0)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, ids[0, 1:], reduction="none")


def dot(a, b):
    return sum((a[name] * b[name]).sum() for name in a)


def layer_traces(model, modules, token_ids, losses_of):
    """One sequence without padding: what goes into each layer and the gradients of losses with respect to what comes
    out.

    The gradients are those of a zero tensor added to the layer's output.

    Args:
        losses_of: gives a list of scalar losses from the logits (T, V).

    Returns:
        {name: (inputs (T, I) with the bias's one in the last column, gradients (losses, T, O))}; of an expert only the
        tokens routed to it, and nothing where there are none.
    """
    inputs, probes = {}, {}

    def make_hook(name):
        def hook(module, args, output):
            rows = args[0].flatten(0, -2)
            ones = torch.ones(len(rows), 1, dtype=rows.dtype)
            inputs[name] = (torch.cat([rows, ones], dim=-1) if has_bias(module) else rows).detach()
            probes[name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[name]

        return hook

    handles = [module.register_forward_hook(make_hook(name)) for name, module in modules.items()]
    ids = torch.as_tensor(token_ids, dtype=torch.int64).unsqueeze(0)
    with replace_forward({module: module.forward for module in modules.values() if isinstance(module, Part)}):
        losses = losses_of(model(input_ids=ids, use_cache=False).logits[0])
    for handle in handles:
        handle.remove()
    gradients = [torch.autograd.grad(loss, list(probes.values()), retain_graph=True) for loss in losses]
    return {
        name: (inputs[name], torch.stack([g[i].flatten(0, -2) for g in gradients])) for i, name in enumerate(probes)
    }


def true_label_loss(token_ids):
    """A function from logits (T, V) to [the sequence's summed cross-entropy]."""
    targets = torch.as_tensor(token_ids, dtype=torch.int64)[1:]
    return lambda logits: [F.cross_entropy(logits[:-1], targets, reduction="sum")]


def relative_error(found, truth):
    """Norm of the difference over the norm of the truth."""
    return ((found - truth).norm() / truth.norm()).item()
