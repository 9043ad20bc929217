"""Network morphisms (Net2Net): make a trained network wider or deeper without changing its function.

Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016. Both functions return a
new network and do not modify the given one. The function in evaluation mode is preserved up to rounding; batch norm
then uses its running statistics.

    net2wider    copy units of a layer, and divide the weights of the next layer among the copies
    net2deeper   insert a layer that is initialized to the identity

The functions accept an ``nn.Sequential``, possibly nested, of convolutions, linear layers, batch norms, activations,
pooling, dropout and flatten. They do not accept residual sums, because all terms of a sum would have to be widened in
the same way. For the networks of NAS-Bench-201, see :mod:`automl_ext.nas.estimators.wider_cells`.
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
IDEMPOTENT = (nn.ReLU, nn.ReLU6)  # f(f(x)) = f(x): a second one after an identity layer changes nothing


def net2wider(
    network: nn.Sequential, layer: str, width: int, *, noise: float = 0.0, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Return ``network`` with ``width`` units (channels) in a layer.

    New units are copies of uniformly drawn units. Copies compute the same values and receive the same gradients, so
    they remain equal during training unless something breaks the symmetry. ``noise`` breaks it, but changes the
    function.

    Args:
        network: a plain Sequential, see the module's documentation.
        layer: name of a convolution or linear layer in ``network.named_modules()``, such as "0" or "block1.0". It must
            not be the last layer.
        width: new number of units, at least the present one.
        noise: standard deviation of the noise added to the input weights of new units, relative to the standard
            deviation of the layer's weights.
        generator: CPU generator of the draws and the noise; None: torch's global one.

    Raises:
        ValueError: the layer does not exist or is the last one, ``width`` or ``noise`` is too small, or a module
            between this layer and the next one is not supported.
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
    # After a Flatten, a channel is a block of consecutive features, one per pixel; a linear layer's unit has one
    # feature in each block of a token.
    tokens = flat = isinstance(source, nn.Linear)
    for name, module in list(modules.items())[start + 1 :]:
        size = width_in(module)
        if size is not None:
            check_groups(name, module)
            pixels = size // old if flat else 1
            if pixels * old != size or (isinstance(module, nn.Linear) and not flat):
                raise ValueError(f"{name}: expected to read the {old} units of layer {layer!r}, got {size} inputs")
            blocks = torch.arange(pixels)
            features = blocks[:, None] * old + mapping if tokens else mapping[:, None] * pixels + blocks
            features = features.flatten()
            if isinstance(module, LAYERS):
                widen_input(module, features)
                return network
            widen_batch_norm(module, features)
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            flat = True
        elif not isinstance(module, UNITWISE) and not (isinstance(module, POOLS) and not flat):
            raise ValueError(
                f"{name}: {type(module).__name__} is not supported between layer {layer!r} and the next one"
            )
    raise ValueError(f"layer: expected a layer followed by another one, got the last layer, {layer!r}")


def net2deeper(network: nn.Sequential, layer: str, *, images: Tensor | None = None) -> nn.Sequential:
    """Return ``network`` with an identity layer of the same kind and width inserted after a layer.

    The new block, convolution (or linear) → batch norm → activation, is inserted after the batch norm and activation of
    the layer and contains the same parts. Without an activation, the new layer does not increase the expressiveness.

    Args:
        network: a plain Sequential, see the module's documentation.
        layer: name of a convolution or linear layer, as in :func:`net2wider`.
        images: a batch of inputs. If given, a new batch norm is initialized with the mean and variance of its input,
            and scale and shift that undo the normalization, as in the paper. The function in training mode is then
            nearly preserved. Without it, the batch norm starts with mean 0 and variance 1 and normalizes in training
            mode.

    Raises:
        ValueError: the layer does not exist, or its activation f does not satisfy f(f(x)) = f(x). Only ReLU and ReLU6
            are accepted.
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
                raise ValueError(f"{name}: expected ReLU or ReLU6, which are idempotent, got {type(module).__name__}")
            last, activation = name, module
            break
        else:
            break
    block = nn.Sequential(identity_like(source))
    if norm is not None:
        block.append(identity_batch_norm(norm, source.weight))
        if images is not None:
            calibrate(network, last, block[1], images)
    if activation is not None:
        block.append(copy.deepcopy(activation))
    insert_after(network, last, block.train(network.training))
    return network


def leaves(network: nn.Sequential, prefix: str = "") -> dict[str, nn.Module]:
    """Return the modules in the order of the forward pass, by name.

    Raises:
        ValueError: ``network`` is not an nn.Sequential.
    """
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        raise ValueError(f"network: expected a plain nn.Sequential, got {type(network).__name__}")
    found: dict[str, nn.Module] = {}
    for name, module in network._modules.items():  # named_children skips repeated modules
        if isinstance(module, nn.Sequential):
            found |= leaves(module, f"{prefix}{name}.")
        else:
            found[prefix + name] = module
    return found


def find(modules: dict[str, nn.Module], layer: str) -> int:
    """Return the position of ``layer``. Raises ValueError if it does not exist or modules share weights."""
    if layer not in modules:
        raise ValueError(f"layer: expected one of {', '.join(modules)}, got {layer!r}")
    with_weights = [id(module) for module in modules.values() if any(True for _ in module.parameters())]
    if len(set(with_weights)) < len(with_weights):
        raise ValueError("network: expected every module with weights once, got one that occurs twice")
    return list(modules).index(layer)


def check_groups(name: str, layer: nn.Module) -> None:
    """Raise ValueError for a grouped convolution."""
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"{name}: expected a convolution with groups=1, got groups={layer.groups}")


def width_in(module: nn.Module) -> int | None:
    """Return the number of input units of a layer or batch norm, and None for other modules."""
    if isinstance(module, BATCH_NORMS):
        return module.num_features
    if isinstance(module, nn.Linear):
        return module.in_features
    return int(module.in_channels) if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def draw_mapping(old: int, new: int, generator: torch.Generator | None) -> Tensor:
    """Return the old unit that each new unit copies, [new]: first every unit itself, then uniform draws."""
    return torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=generator)])


@torch.no_grad()
def widen_output(layer: Any, mapping: Tensor, noise: float, generator: torch.Generator | None) -> None:
    """Copy output units of a convolution or linear layer; see :func:`net2wider` for ``noise``."""
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
    """Copy input units of a layer as ``mapping`` [new] says, and divide the weights by the number of copies."""
    weight, mapping = layer.weight, mapping.to(layer.weight.device)
    copies = torch.bincount(mapping)[mapping].to(weight)
    wider = weight[:, mapping] / copies.view(1, -1, *[1] * (weight.dim() - 2))
    layer.weight = nn.Parameter(wider, weight.requires_grad)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(mapping))


@torch.no_grad()
def widen_batch_norm(norm: Any, mapping: Tensor) -> None:
    """Copy the units of a batch norm as ``mapping`` [new] says."""
    for name, values in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
        if values.dim() == 0:  # num_batches_tracked
            continue
        wider = values[mapping.to(values.device)]
        setattr(norm, name, nn.Parameter(wider, values.requires_grad) if isinstance(values, nn.Parameter) else wider)
    norm.num_features = len(mapping)


@torch.no_grad()
def identity_like(layer: Any) -> Any:
    """Return an identity layer of the same kind, as wide as the output of ``layer``."""
    weight, bias = layer.weight, layer.bias is not None
    width, kind = len(weight), {"device": weight.device, "dtype": weight.dtype}
    if isinstance(layer, nn.Linear):
        new: Any = nn.Linear(width, width, bias, **kind)
        nn.init.eye_(new.weight)
    else:
        kernel = [size if size % 2 else size + 1 for size in layer.kernel_size]  # an identity kernel needs a center
        new = type(layer)(width, width, kernel, padding=[size // 2 for size in kernel], bias=bias, **kind)
        nn.init.dirac_(new.weight)
    if bias:
        nn.init.zeros_(new.bias)
    return new


@torch.no_grad()
def identity_batch_norm(norm: Any, like: Tensor) -> Any:
    """Return a batch norm that is the identity in evaluation mode."""
    new = type(norm)(norm.num_features, norm.eps, norm.momentum, device=like.device, dtype=like.dtype)
    new.weight.copy_((new.running_var + new.eps).sqrt())
    return new


@torch.no_grad()
def calibrate(network: nn.Sequential, last: str, norm: Any, images: Tensor) -> None:
    """Initialize ``norm``, a batch norm that is inserted after the module named ``last``, from a batch of images.

    Its running statistics become the mean and variance of the output of ``last``. Its scale and shift are set so that
    they undo this normalization.
    """
    was_training = network.training
    network.eval()
    for name, module in leaves(network).items():  # no hook: a module may occur twice, or work in place on its input
        images = module(images)
        if name == last:
            break
    network.train(was_training)
    units = images.transpose(0, 1).flatten(1)  # the inserted identity layer does not change them
    norm.running_mean.copy_(units.mean(1))
    norm.running_var.copy_(units.var(1))
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.copy_(norm.running_mean)


def insert_after(network: nn.Sequential, name: str, block: nn.Module) -> None:
    """Insert ``block`` after a module of a Sequential. If modules have numbers as names, they are renumbered."""
    parent_name, _, child = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    items = list(parent._modules.items())
    numbered = all(key == str(i) for i, (key, _) in enumerate(items))
    items.insert([key for key, _ in items].index(child) + 1, (f"{child}_deeper", block))
    for key in list(parent._modules):
        del parent._modules[key]
    for i, (key, module) in enumerate(items):
        parent.add_module(str(i) if numbered else key, module)
