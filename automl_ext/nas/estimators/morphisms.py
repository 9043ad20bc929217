"""Network morphisms: a wider or deeper network that computes what the trained one does (Net2Net).

Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016. Both functions return a
new network and leave the given one as it is. What is preserved is the function in evaluation mode, to rounding: batch
norm then uses its running statistics.

    net2wider    a layer gets copies of its units; what reads a unit divides its weights among the copies
    net2deeper   a layer is inserted that starts as the identity

They take an ``nn.Sequential`` of convolutions, linear layers, batch norms, activations, pools, dropout and flatten,
nested or not. Residual sums, which need one mapping for all that is summed, are refused here; for the networks of
NAS-Bench-201 there is :mod:`automl_ext.nas.estimators.wider_cells`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh)
UNITWISE = (*ACTIVATIONS, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
IDEMPOTENT = (nn.ReLU, nn.ReLU6)  # f(f(x)) = f(x), so that one more of them after an identity changes nothing


def net2wider(
    network: nn.Sequential, layer: str, width: int, *, noise: float = 0.0, generator: torch.Generator | None = None
) -> nn.Sequential:
    """``network`` with ``width`` units (channels) in the layer of that name.

    The new units copy units drawn uniformly. Copies are alike in all they compute and in the gradients they get, so
    they stay copies through any training that treats them alike: ``noise`` makes them differ, at the price of the
    function.

    Args:
        network: plain Sequential, see above; its input is not widened, nor is its last layer.
        layer: name of a convolution or a linear layer, as ``network.named_modules()`` has it, e.g. "0" or "block1.0".
        width: units after, no fewer than before.
        noise: standard deviation of what is added to the weights that enter new units, in units of the standard
            deviation of the layer's weights.
        generator: of the units drawn and of the noise, on the CPU; torch's global one by default.

    Raises:
        ValueError: no such layer, the last one, ``width`` or ``noise`` too small, or between this layer and the next a
            module of a kind that is not known.
    """
    network = copy.deepcopy(network)
    modules = leaves(network)
    start = find(modules, layer)
    source = modules[layer]
    if not isinstance(source, LAYERS):
        raise ValueError(f"layer: expected a convolution or a linear layer, got {layer!r}, a {type(source).__name__}")
    check_groups(layer, source)
    old = source.weight.shape[0]
    if width < old:
        raise ValueError(f"width: expected at least {old}, the width of layer {layer!r}, got {width}")
    if not noise >= 0:
        raise ValueError(f"noise: expected at least 0, got {noise}")
    mapping = draw_mapping(old, width, generator)
    widen_output(source, mapping, noise, generator)
    flat = isinstance(source, nn.Linear)  # after a Flatten a unit is as many features as it has pixels, in a row
    for name, module in list(modules.items())[start + 1 :]:
        size = width_in(module)
        if size is not None:
            check_groups(name, module)
            pixels = size // old if flat else 1
            if pixels * old != size or (isinstance(module, nn.Linear) and not flat):
                raise ValueError(f"{name}: expected to read the {old} units of layer {layer!r}, got {size} inputs")
            features = (mapping[:, None] * pixels + torch.arange(pixels)).flatten()
            if isinstance(module, LAYERS):
                widen_input(module, features)
                return network
            widen_batch_norm(module, features)
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            flat = True
        elif not isinstance(module, UNITWISE) and not (isinstance(module, POOLS) and not flat):
            raise ValueError(f"{name}: expected no {type(module).__name__} between layer {layer!r} and the next one")
    raise ValueError(f"layer: expected one that another layer reads, got the last one, {layer!r}")


def net2deeper(network: nn.Sequential, layer: str, *, images: Tensor | None = None) -> nn.Sequential:
    """``network`` with one more layer, an identity of the same kind and width, after the layer of that name.

    It is inserted after the layer's own batch norm and activation, and gets the like: convolution (or linear) → batch
    norm → activation. Where there is no activation, the network is deeper in layers only, not in what it can express.

    Args:
        network: plain Sequential, see above.
        layer: name of a convolution or a linear layer, as in :func:`net2wider`.
        images: a batch that the network takes. A new batch norm then starts with the mean and variance of what reaches
            it, which its scale and shift undo, as in the paper: so in training mode too the function is nearly kept.
            Without them it starts with the mean 0 and the variance 1, and in training mode normalises what it gets.

    Raises:
        ValueError: no such layer, or an activation f for which f(f(x)) is not f(x): only ReLU and ReLU6 are.
    """
    network = copy.deepcopy(network)
    modules = leaves(network)
    names = list(modules)
    position = find(modules, layer)
    source = modules[layer]
    if not isinstance(source, LAYERS):
        raise ValueError(f"layer: expected a convolution or a linear layer, got {layer!r}, a {type(source).__name__}")
    last, norm, activation = layer, None, None
    for name in names[position + 1 :]:
        module = modules[name]
        if isinstance(module, BATCH_NORMS) and norm is None:
            last, norm = name, module
        elif isinstance(module, ACTIVATIONS):
            if not isinstance(module, IDEMPOTENT):
                raise ValueError(f"{name}: expected ReLU or ReLU6, which twice is as once, got {type(module).__name__}")
            last, activation = name, module
            break
        else:
            break
    block = nn.Sequential(identity_like(source))
    if norm is not None:
        block.append(identity_batch_norm(norm, source.weight))
        if images is not None:
            calibrate(network, modules[last], block[1], images)
    if activation is not None:
        block.append(copy.deepcopy(activation))
    insert_after(network, last, block.train(network.training))
    return network


def leaves(network: nn.Sequential, prefix: str = "") -> dict[str, nn.Module]:
    """The modules that a pass calls one after the other, by name.

    Raises:
        ValueError: ``network`` is not an nn.Sequential.
    """
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        raise ValueError(f"network: expected a plain nn.Sequential, got {type(network).__name__}")
    found: dict[str, nn.Module] = {}
    for name, module in network._modules.items():  # named_children leaves out what occurs again
        if isinstance(module, nn.Sequential):
            found |= leaves(module, f"{prefix}{name}.")
        else:
            found[prefix + name] = module
    return found


def find(modules: dict[str, nn.Module], layer: str) -> int:
    if layer not in modules:
        raise ValueError(f"layer: expected one of {', '.join(modules)}, got {layer!r}")
    with_weights = [id(module) for module in modules.values() if any(True for _ in module.parameters())]
    if len(set(with_weights)) < len(with_weights):
        raise ValueError("network: expected weights of one place each, got a module that occurs twice")
    return list(modules).index(layer)


def check_groups(name: str, layer: nn.Module) -> None:
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"{name}: expected a convolution with groups=1, got groups={layer.groups}")


def width_in(module: nn.Module) -> int | None:
    """Units that a layer or a batch norm reads; None for what is neither."""
    if isinstance(module, BATCH_NORMS):
        return module.num_features
    if isinstance(module, nn.Linear):
        return module.in_features
    return int(module.in_channels) if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def draw_mapping(old: int, new: int, generator: torch.Generator | None) -> Tensor:
    """Which old unit each new one copies [new]: itself, then uniform draws."""
    return torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=generator)])


@torch.no_grad()
def widen_output(layer: Any, mapping: Tensor, noise: float, generator: torch.Generator | None) -> None:
    """Copies of the units of a convolution or a linear layer; see :func:`net2wider` for the noise."""
    weight = layer.weight
    wider = weight[mapping.to(weight.device)]
    if noise:
        fresh = torch.randn(wider[len(weight) :].shape, generator=generator, dtype=weight.dtype)
        wider[len(weight) :] += noise * weight.std() * fresh.to(weight.device)
    layer.weight = nn.Parameter(wider, weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[mapping.to(weight.device)], layer.bias.requires_grad)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(mapping))


@torch.no_grad()
def widen_input(layer: Any, mapping: Tensor) -> None:
    """Weights for copies of the inputs, of which ``mapping`` [new] gives the originals: a share for each copy."""
    weight, mapping = layer.weight, mapping.to(layer.weight.device)
    copies = torch.bincount(mapping)[mapping].to(weight)
    wider = weight[:, mapping] / copies.view(1, -1, *[1] * (weight.dim() - 2))
    layer.weight = nn.Parameter(wider, weight.requires_grad)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(mapping))


@torch.no_grad()
def widen_batch_norm(norm: Any, mapping: Tensor) -> None:
    for name, values in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
        if values.dim() == 0:  # the number of batches seen
            continue
        wider = values[mapping.to(values.device)]
        setattr(norm, name, nn.Parameter(wider, values.requires_grad) if isinstance(values, nn.Parameter) else wider)
    norm.num_features = len(mapping)


@torch.no_grad()
def identity_like(layer: Any) -> Any:
    """A layer of the same kind, as wide as the output of ``layer``, that passes its input on."""
    weight, bias = layer.weight, layer.bias is not None
    width, kind = len(weight), {"device": weight.device, "dtype": weight.dtype}
    if isinstance(layer, nn.Linear):
        new: Any = nn.Linear(width, width, bias, **kind)
        nn.init.eye_(new.weight)
    else:
        kernel = [size if size % 2 else size + 1 for size in layer.kernel_size]  # an identity needs a middle
        new = type(layer)(width, width, kernel, padding=[size // 2 for size in kernel], bias=bias, **kind)
        nn.init.dirac_(new.weight)
    if bias:
        nn.init.zeros_(new.bias)
    return new


@torch.no_grad()
def identity_batch_norm(norm: Any, like: Tensor) -> Any:
    """A batch norm that passes its input on in evaluation."""
    new = type(norm)(norm.num_features, norm.eps, norm.momentum, device=like.device, dtype=like.dtype)
    new.weight.copy_((new.running_var + new.eps).sqrt())
    return new


@torch.no_grad()
def calibrate(network: nn.Sequential, last: nn.Module, norm: Any, images: Tensor) -> None:
    """The mean and variance of what ``last`` puts out for ``images``, and a scale and shift that undo them."""
    seen: list[Tensor] = []
    handle = last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    was_training = network.training
    network.eval()(images)
    network.train(was_training)
    handle.remove()
    units = seen[0].transpose(0, 1).flatten(1)  # the inserted layer passes them on
    norm.running_mean.copy_(units.mean(1))
    norm.running_var.copy_(units.var(1))
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.copy_(norm.running_mean)


def insert_after(network: nn.Sequential, name: str, block: nn.Module) -> None:
    """Modules that are numbered are numbered anew; beside those with a name of their own, the block gets one."""
    parent_name, _, child = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    items = list(parent._modules.items())
    numbered = all(key == str(i) for i, (key, _) in enumerate(items))
    items.insert([key for key, _ in items].index(child) + 1, (f"{child}_deeper", block))
    for key in list(parent._modules):
        del parent._modules[key]
    for i, (key, module) in enumerate(items):
        parent.add_module(str(i) if numbered else key, module)
