"""Exports a trained network to files that do not need automl_ext.

The formats are a ``torch.export`` program, and a Python module with a file of weights.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext._version import __version__
from automl_ext.nas.export.program import RawImages, check, sample_images, write_program
from automl_ext.nas.export.run_facts import check_network
from automl_ext.nas.export.source_code import Sources
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.exporting import READ_WEIGHTS, check_out, load_module
from automl_ext.training.files.reading import read_object
from automl_ext.training.files.weights import check_fit, read_tensors, write_tensors
from automl_ext.training.run import BEST, MEMBERS, RESULT, algorithm_of


def export(run: str | Path, out: str | Path, space: Space[Any] | None = None, trust: Iterable[str] = ()) -> list[Path]:
    """Export the network of a finished ``retrain`` or search over a supernet, or of a ``search auto``.

    The run directory is not trusted. Sizes are bounded, and weights are loaded with ``weights_only=True``. The module
    contains only checked numbers and the ``repr`` of checked values.

    Args:
        run: the run directory.
        out: ``NAME.pt2``, or ``NAME.py`` (which also writes the weights ``NAME.pt``), or ``NAME`` for both.
        space: the run's space, if it is not the one that the result names. For a space of your own, the module contains
            the source code that its ``build`` needs, from the space's own package and from automl_ext. The ``repr`` of
            the genotype must be a Python expression. If the space is a dataclass, its ``repr`` must be one too.
        trust: Python modules that the result may name (``space``); they are imported.

    Returns:
        The files. The program maps uint8 images [N, C, H, W] to logits; the normalization is part of it. The module has
        the normalization as a function. Both take any N, and any H and W if the network does, as all networks of the
        built-in spaces do. Each file has been loaded, and its logits have been compared with those of the run's
        network, at the image size of the training and, if it takes any size, at a larger one.

    Raises:
        UserError: ``run`` has no network to export, its result or checkpoint is invalid, the name ``out`` is invalid,
            or the source of the space cannot be copied.
    """
    run, out = Path(run), Path(out)
    suffixes = check_out(out)
    network, genotype, space, facts = load_network(run, space, trust)
    program = RawImages(network, facts["mean"], facts["std"]).eval()
    samples = sample_images(program, facts)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix in suffixes:
        path = out.with_suffix(suffix)
        if suffix == ".pt2":
            taken = write_program(program, samples, path)
            check(torch.export.load(path).module(), program, taken, path)
            written.append(path)
        else:
            text = module_text(space, genotype, facts, path.stem, any_size=len(samples) > 1)
            write_atomic(path, text.encode())
            write_tensors(path.with_suffix(".pt"), dict(network.state_dict()))
            check(nn.Sequential(program.normalization, load_module(path)), program, samples, path)
            written += [path, path.with_suffix(".pt")]
    return written


def load_network(
    run: Path, space: Space[Any] | None = None, trust: Iterable[str] = ()
) -> tuple[nn.Module, Any, Space[Any], dict[str, Any]]:
    """Load the network of a run, in evaluation mode on the CPU. The arguments are those of :func:`export`.

    Returns:
        The network, its genotype, its space, and the result of :func:`check_network`.

    Raises:
        UserError: as :func:`export`.
    """
    result, facts = read_result(run)
    built_in = space is None and ":" not in facts["space"]
    space = space or spaces.stored_space(facts["space"], trust, run / "result.json")
    try:
        genotype = space.parse(result["genotype"])
    except ValueError as error:
        raise UserError(
            f"export: {run}: {error}; a space of your own is given as export(…, space=…) in Python"
        ) from None
    if built_in:
        with torch.device("meta"):  # checks the checkpoint before memory is allocated for the sizes
            read_weights(run, space.build(genotype, **facts["shape"]), result.get("member"))
    network = space.build(genotype, **facts["shape"])
    network.load_state_dict(read_weights(run, network, result.get("member")))
    return network.eval(), genotype, space, facts


def read_result(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read ``result.json``, or ``best.json`` of an interrupted ``search auto``, and check its entry ``network``.

    Raises:
        UserError: the file is missing or damaged, or the run did not train exactly one network.
    """
    source = next((run / name for name in (RESULT, BEST) if (run / name).is_file()), None)
    if source is None:
        raise UserError(f"export: {run} is not a finished run: it has no result.json")
    result = read_object(source)
    if "network" not in result or not isinstance(result.get("genotype"), str):
        of_ensemble = algorithm_of(run) == "ensemble"
        instead = (
            "load it by automl_ext.nas.ensembles.network.load_ensemble" if of_ensemble else "retrain its cell first"
        )
        raise UserError(f"export: {run}: expected a run with one network; {instead}")
    try:
        return result, check_network(result["network"])
    except ValueError as error:
        raise UserError(f"export: {source}: network: {error}") from None


def read_weights(run: Path, network: nn.Module, member: Any = None) -> dict[str, Tensor]:
    """Read the network's weights, without those of an auxiliary head.

    They are in the run's last checkpoint or, after ``search auto``, in a file.

    Args:
        network: a network of the same structure.
        member: the number of the file, the entry ``member`` of the result. None: the last checkpoint.

    Raises:
        UserError: the checkpoint or the file is missing, damaged, or of another network.
    """
    if type(member) is int:
        source = run / MEMBERS / f"{member}.pt"
        state = read_tensors(source)
    else:
        source, state = read_checkpoint(run)
    if not isinstance(state, dict):
        raise UserError(f"{source} does not contain the state of a network")
    expected = network.state_dict()
    try:
        weights = {name: state[name] for name in expected if name in state}
        check_fit(weights, expected, "network")
    except (ValueError, TypeError) as error:
        raise UserError(f"{source} is of another network: {error}") from None
    return weights


def read_checkpoint(run: Path) -> tuple[Path, Any]:
    """Return the run's last checkpoint, and the entry for the network in its state.

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    steps = checkpoint.list_steps(run / "checkpoints")
    if not steps:
        raise UserError(f"export: {run} has no checkpoint")
    try:
        return steps[-1], checkpoint.read_state(steps[-1], checkpoint.read_manifest(steps[-1]))["job"]["network"]
    except checkpoint.DamagedCheckpoint as error:
        raise UserError(f"export: the checkpoint {steps[-1]} is damaged: {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"export: {steps[-1]} does not contain the state of a network") from None


def module_text(space: Space[Any], genotype: Any, facts: dict[str, Any], name: str, any_size: bool) -> str:
    """Return the source code of the exported module: the classes that ``space.build`` needs, and ``load``.

    Args:
        facts: the result of :func:`check_network`.
        name: the module's file name without its suffix; must not contain quotes or backslashes.
        any_size: whether the network takes images of any size.

    Raises:
        UserError: the source of the space cannot be copied.
    """
    kind = type(space)
    made = repr(space) if dataclasses.is_dataclass(space) else f"{kind.__name__}()"
    sources = Sources({"automl_ext", kind.__module__.partition(".")[0]})
    sources.used.add("build")
    try:
        sources.add(kind.__module__, kind.__name__)
        for expression, module in ((made, kind.__module__), (repr(genotype), type(genotype).__module__)):
            for node in ast.walk(ast.parse(expression, mode="eval")):
                if isinstance(node, ast.Name):
                    sources.add(module, node.id)
        sources.close()
    except (ValueError, SyntaxError, OSError) as error:
        raise UserError(f"export: cannot copy the source of {kind.__name__}: {error}") from None
    sources.imports |= {
        "hashlib": "import hashlib",
        "io": "import io",
        "Path": "from pathlib import Path",
        "torch": "import torch",
        "Tensor": "from torch import Tensor",
        "nn": "from torch import nn",
    }
    shape = ", ".join(f"{key}={value!r}" for key, value in facts["shape"].items())
    sides = ("H", "W") if any_size else facts["image_size"]
    image = ", ".join(map(str, (facts["shape"]["in_channels"], *sides)))
    return MODULE.format(
        version=__version__,
        name=name,
        genotype_text=str(genotype).replace("\\", "\\\\").replace('"', '\\"'),  # this goes into a docstring
        image=image,
        sizes="any N, H and W" if any_size else "any N",
        imports=import_lines(sources.imports.values()),
        definitions=sources.text(),
        genotype=repr(genotype),
        trained="×".join(map(str, facts["image_size"])),
        mean=repr(facts["mean"]),
        std=repr(facts["std"]),
        classes=repr(facts["classes"]),
        made=made,
        shape=shape,
        read_weights=READ_WEIGHTS,
    )


def import_lines(statements: Iterable[str]) -> str:
    """Merge import statements into one line per module, those of the standard library first."""
    names: dict[str, set[str]] = {}
    for statement in statements:
        module, _, name = statement.partition(" import ")  # empty for "import x"
        names.setdefault(module, set()).update([name] if name else [])
    lines: list[list[str]] = [[], []]
    for module in sorted(names, key=lambda m: (m.startswith("from"), m)):
        other = module.split()[1].partition(".")[0] not in sys.stdlib_module_names
        lines[other].append(f"{module} import {', '.join(sorted(names[module]))}" if names[module] else module)
    return "\n\n".join("\n".join(group) for group in lines if group)


MODULE = '''"""A trained network, exported by automl_ext {version}. Using it does not need automl_ext.

    {genotype_text}

    network = load()                          # reads {name}.pt next to this file
    logits = network(normalize(images))       # images: uint8 [N, {image}], {sizes}; trained at {trained}
"""

from __future__ import annotations

{imports}


{definitions}


GENOTYPE = {genotype}
MEAN = {mean}  # per channel, for images in [0, 1]
STD = {std}
CLASSES = {classes}


def normalize(images: Tensor) -> Tensor:
    """Convert uint8 images to the network's input: scale to [0, 1], then normalize as in training."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected uint8, got {{images.dtype}}; of [0, 1]: (255 * images).round().byte()")
    if images.ndim != 4 or images.shape[1] != len(MEAN):
        raise ValueError(f"images: expected [N, {{len(MEAN)}}, H, W], got {{list(images.shape)}}")
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return (images / 255 - mean) / std


{read_weights}


def load(weights: str | Path | None = None) -> nn.Module:
    """Load the trained network in evaluation mode, by default with the weights {name}.pt next to this file."""
    network = {made}.build(GENOTYPE, {shape})
    network.load_state_dict(read_weights(Path(__file__).with_suffix(".pt") if weights is None else weights))
    return network.eval()
'''
