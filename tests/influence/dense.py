"""The slow truth: gradients by plain autograd on the parameters, one sequence and one token at a time."""

import torch
import torch.nn.functional as F
from torch import nn

from ifguide.models.layers import has_bias


def layer_gradient(model, modules, loss):
    """Gradient of a loss as {name: (O, I)}, bias in the last column, from autograd on the parameters themselves."""
    parameters = [p for m in modules.values() for p in ([m.weight, m.bias] if has_bias(m) else [m.weight])]
    gradients = iter(torch.autograd.grad(loss, parameters, retain_graph=True))
    found = {}
    for name, module in modules.items():
        weight = next(gradients)
        weight = weight if isinstance(module, nn.Linear) else weight.T
        found[name] = torch.cat([weight, next(gradients).unsqueeze(1)], dim=1) if has_bias(module) else weight
    return found


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
        {name: (inputs (T, I) with the bias's one in the last column, gradients (losses, T, O))}.
    """
    inputs, probes = {}, {}

    def make_hook(name):
        def hook(module, args, output):
            ones = torch.ones(*args[0].shape[:-1], 1, dtype=args[0].dtype)
            inputs[name] = (torch.cat([args[0], ones], dim=-1) if has_bias(module) else args[0]).detach()[0]
            probes[name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[name]

        return hook

    handles = [module.register_forward_hook(make_hook(name)) for name, module in modules.items()]
    ids = torch.as_tensor(token_ids, dtype=torch.int64).unsqueeze(0)
    losses = losses_of(model(input_ids=ids, use_cache=False).logits[0])
    for handle in handles:
        handle.remove()
    gradients = [torch.autograd.grad(loss, list(probes.values()), retain_graph=True) for loss in losses]
    return {name: (inputs[name], torch.stack([g[i][0] for g in gradients])) for i, name in enumerate(probes)}


def true_label_loss(token_ids):
    """A function from logits (T, V) to [the sequence's summed cross-entropy]."""
    targets = torch.as_tensor(token_ids, dtype=torch.int64)[1:]
    return lambda logits: [F.cross_entropy(logits[:-1], targets, reduction="sum")]


def relative_error(found, truth):
    """Norm of the difference over the norm of the truth."""
    return ((found - truth).norm() / truth.norm()).item()
