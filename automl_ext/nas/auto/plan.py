"""The options of ``search auto``, the networks that may enter, and how the budget is divided among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any, NamedTuple

import torch
from torch import nn

from automl_ext.data.images import Splits
from automl_ext.nas.auto.trainee import Recipe
from automl_ext.nas.costs import count_macs
from automl_ext.nas.data import network_shape
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.training_options import LARGEST, MANY, ClassWeights, ImageConfig, check_class_weights
from automl_ext.training.checks import MOST_WORKERS, check_range

# Shares of the budget: scores of cells, and the race, which gets more of it if images are few: there the choice of the
# network matters more than the last part of its training. The last training gets the rest of the budget. Its network
# keeps the weights of the race.
SCREEN, RACE, RACE_OF_FEW = 0.03, 0.27, 0.5
# Numbers of networks with which a race may start, and the least steps of each in the first rung: after fewer, its loss
# says little. On few images it takes more: there a network that learns fast at first can end worse. A rung keeps half,
# of three networks one.
ENTRIES = ((8, 200), (4, 100), (3, 60), (2, 40))
ENTRIES_OF_FEW = ((8, 800), (4, 400), (2, 100))
EPOCHS, STEPS = 25.0, 1000  # length of the whole budget for which the size of networks is chosen, and its least steps
# Multiply-adds per image from which on more budget is spent on epochs: all of it until they are MANY_EPOCHS, enough for
# CutMix, then half of it (its square root).
LARGE, MANY_EPOCHS = 3.4e7, 60.0
PROBED_CHANNELS = (8, 32)
LR = 0.1  # rate for batches of 64 images
MANY_IMAGES = 3000  # number of training images from which on batches have 64 images, not 32, and the race is short
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
PLAIN, RESIDUAL, POOLED = "plain-s{}-2-2-2", "residual-s{}-1-1-1", "pooled-s{}-1-1-1"
BEST_RANKED = ""  # takes the place of a genotype until the cells are scored
AVERAGE, MAX, BOTH = "", "-max", "-both"  # what the classifier of such a network reads of each channel
LARGE_IMAGE = {RESIDUAL: 16, POOLED: 48}  # side from which on a network halves the image at once


@dataclass
class AutoConfig(ImageConfig):
    """Search within a budget: a race of networks and recipes; the winner goes on from its weights."""

    space: str = "nb201"  # Space of the cells in the race: nb201, darts, darts-frc, renas, convnet or MODULE:CLASS.
    channels: int = 16  # Number of channels of the baselines' cells; the search chooses its own.
    minutes: float = 10.0  # Budget in CPU-minutes, on a GPU in minutes; each of the --baselines gets the same budget.
    candidates: int = 1000  # Largest number of cells that are scored without training.
    baselines: bool = False  # Also train three networks, each for the whole budget, with the recipe that was found.
    batch_size: int | None = None  # Number of images per batch. Default: 64, or 32 for few images.
    lr: float | None = None  # Learning rate of SGD. Default: found by the race.
    shift: int | None = None  # Largest random shift in pixels. Default: an eighth of the image.
    flip: bool | None = None  # Mirror images at random. Default: if a network still recognizes mirrored images.
    cutmix: float | None = None
    """Probability that a rectangle of each image comes from another image. Default: 0.5 in long trainings."""
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.
    bfloat16: bool | None = None
    """Compute networks in bfloat16 during training; weights stay float32. Default: if it is faster on this machine."""
    workers: int = 1  # Number of networks that are trained at the same time; the budget counts the seconds of all.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "minutes", above=0)
        check_range(self, "candidates", low=2, high=MANY)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "cutmix", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_class_weights(self.class_weights)

    @property
    def budget(self) -> float:
        """The budget in seconds."""
        return 60 * self.minutes


class NetworkSpec(NamedTuple):
    """A network that is trained.

    Attributes:
        name: a description, for tables.
        genotype: its architecture in ``space``, as text; BEST_RANKED: the cell with the highest training-free rank.
        channels, cells: its size.
        rate: its learning rate relative to that of the recipe, in the race.
    """

    name: str
    space: str
    genotype: str
    channels: int
    cells: int = 1
    rate: float = 1.0


class Rung(NamedTuple):
    """A part of the race: the best ``entries`` networks are trained for ``seconds`` more, each."""

    entries: int
    seconds: float


class Plan(NamedTuple):
    """The division of the budget.

    Attributes:
        entries: the networks, the most promising first.
        rungs: rungs of the race.
        seconds: predicted time of a step of each entry.
    """

    entries: list[NetworkSpec]
    rungs: list[Rung]
    seconds: list[float]

    def pack(self) -> dict[str, Any]:
        """Return plain Python, which a checkpoint can hold."""
        return {
            "entries": [tuple(e) for e in self.entries],
            "rungs": [tuple(r) for r in self.rungs],
            "seconds": self.seconds,
        }

    @classmethod
    def unpack(cls, values: dict[str, Any]) -> Plan:
        return cls([NetworkSpec(*e) for e in values["entries"]], [Rung(*r) for r in values["rungs"]], values["seconds"])


def make_plan(config: AutoConfig, networks: Networks, images: int, probe: Sequence[float]) -> Plan:
    """Choose the networks by their costs, and divide the budget.

    Args:
        images: number of training images.
        probe: measured times of a training step, of the networks :func:`probed`.
    """
    batch = recipe_of(config, networks.splits, images).batch_size
    entries = entries_for(config, networks, affordable(config, networks, images, probe))
    seconds = [step_seconds(networks, probe, batch, networks.macs(entry)) for entry in entries]
    for count, least in ENTRIES if images >= MANY_IMAGES else ENTRIES_OF_FEW:
        number = min(count, len(entries))
        rungs = halving(number, race_share(images) * config.budget)
        if all(rungs[0].seconds >= least * cost for cost in seconds[:number]):
            return Plan(entries[:number], rungs, seconds[:number])
    return Plan(entries[:1], [Rung(1, race_share(images) * config.budget)], seconds[:1])


def race_share(images: int) -> float:
    """Return the share of the budget for the race, for ``images`` training images."""
    return RACE if images >= MANY_IMAGES else RACE_OF_FEW


def affordable(config: AutoConfig, networks: Networks, images: int, probe: Sequence[float]) -> float:
    """Return the multiply-adds per image of the networks that fit the budget; see :func:`make_plan`."""
    batch = recipe_of(config, networks.splits, images).batch_size
    fixed, per_mac = cost_model(networks, probe, batch)

    def size(epochs: float) -> float:
        """Return the multiply-adds per image for which the budget lasts ``epochs`` epochs, and at least STEPS steps."""
        step = config.budget / max(epochs * images / batch, STEPS)  # seconds
        return max(step - fixed, 0.2 * step) / (batch * per_mac)

    ratio = size(EPOCHS) / LARGE
    return size(max(epochs_for(images), min(EPOCHS * ratio, MANY_EPOCHS), EPOCHS * ratio**0.5))


def halving(entries: int, seconds: float) -> list[Rung]:
    """Divide the time of a race: equal parts for all rungs, each with half of the networks of the one before."""
    counts = [entries >> k for k in range(int(math.log2(entries)))]
    return [Rung(count, seconds / (len(counts) * count)) for count in counts]


def epochs_for(images: int) -> float:
    """Return the smallest number of epochs that the budget must allow for a network: more for fewer images."""
    return EPOCHS * max(1.0, (5000 / images) ** 0.5)


def entries_for(config: AutoConfig, networks: Networks, target: float) -> list[NetworkSpec]:
    """Return the networks that may enter, near ``target`` multiply-adds per image; the most promising come first."""

    def sized(name: str, genotype: str, factor: float = 1.0, rate: float = 1.0, space: str = "convnet") -> NetworkSpec:
        cells = config.cells if space == config.space else 1
        sizes = [NetworkSpec(f"{name}, C = {channels}", space, genotype, channels, cells, rate) for channels in WIDTHS]
        return min(sizes, key=lambda entry: abs(math.log(networks.macs(entry) / (factor * target))))

    pooled, residual = (strided(form, networks) for form in (POOLED, RESIDUAL))
    found = [
        sized("pooled, max", pooled + MAX),
        sized("plain, average", PLAIN.format(1) + AVERAGE, factor=1.5),
        sized("pooled, average + max", pooled + BOTH),
        sized("pooled, average", pooled + AVERAGE),
        sized("best-ranked cell", BEST_RANKED, space=config.space),
        sized("residual, average + max", residual + BOTH),
        sized("pooled, max, rate × 2.5", pooled + MAX, rate=2.5),
        sized("pooled, average + max", pooled + BOTH, factor=2.0),
    ]
    if config.lr is not None:
        found = [entry for entry in found if entry.rate == 1.0]
    return list({entry[1:]: entry for entry in found}.values())


def strided(form: str, networks: Networks) -> str:
    """Return the genotype of a residual or pooled network, whose first layer has stride 2 if the images are large."""
    return form.format(2 if min(networks.splits.image_size) >= LARGE_IMAGE[form] else 1)


def baselines_of(config: AutoConfig, networks: Networks) -> list[NetworkSpec]:
    """Return the networks that a user would train without a search."""
    cell = config.channels, config.cells
    return [
        NetworkSpec("largest cell", config.space, str(networks.largest), *cell),
        NetworkSpec("best-ranked cell", config.space, BEST_RANKED, *cell),
        NetworkSpec("plain CNN, 32-64-128", "convnet", PLAIN.format(1), 32),
    ]


def probed(networks: Networks) -> list[NetworkSpec]:
    """Return two networks, a narrow and a wide one, on which the speed of the machine is measured."""
    pooled = strided(POOLED, networks)
    return [NetworkSpec("probe", "convnet", pooled, channels) for channels in PROBED_CHANNELS]


def cost_model(networks: Networks, seconds: Sequence[float], batch: int) -> tuple[float, float]:
    """Fit the time of a training step, in seconds: fixed + per_mac · multiply-adds of a batch. Return (fixed, per_mac).

    Args:
        seconds: measured times of a step of the two networks of :func:`probed`.
    """
    narrow, wide = (networks.macs(entry) * batch for entry in probed(networks))
    per_mac = max(seconds[1] - seconds[0], 0.1 * seconds[1]) / (wide - narrow)
    return max(seconds[0] - per_mac * narrow, 0.0), per_mac


def step_seconds(networks: Networks, probe: Sequence[float], batch: int, macs: float) -> float:
    """Return the predicted time of a training step of a network with ``macs`` multiply-adds per image."""
    fixed, per_mac = cost_model(networks, probe, batch)
    return fixed + macs * batch * per_mac


def recipe_of(config: AutoConfig, splits: Splits, images: int) -> Recipe:
    """Return the recipe with which the race begins."""
    batch = min(config.batch_size or (64 if images >= MANY_IMAGES else 32), images)
    shift = max(min(splits.image_size) // 8, 1) if config.shift is None else config.shift
    lr, cutmix = config.lr or LR * batch / 64, config.cutmix or 0.0
    return Recipe(lr, batch, shift, bool(config.flip), cutmix, bfloat16=bool(config.bfloat16))


class Networks:
    """Builds the networks of :class:`NetworkSpec` entries, for the images of ``splits``.

    Args:
        name, space: the search space of the cells, and its name in the entries.
    """

    def __init__(self, name: str, space: Space[Any], splits: Splits) -> None:
        self.spaces, self.splits, self.largest = {name: space}, splits, largest(space)
        self.counted: dict[NetworkSpec, int] = {}

    def genotype(self, entry: NetworkSpec) -> Any:
        """Return the architecture of an entry; the largest cell if the entry's cell is not chosen yet."""
        if entry.space not in self.spaces:
            self.spaces[entry.space] = spaces.space(entry.space)
        return self.spaces[entry.space].parse(entry.genotype) if entry.genotype != BEST_RANKED else self.largest

    def build(self, entry: NetworkSpec) -> nn.Module:
        genotype = self.genotype(entry)
        network: nn.Module = self.spaces[entry.space].build(
            genotype, **network_shape(self.splits, entry.channels, entry.cells)
        )
        return network

    def macs(self, entry: NetworkSpec) -> int:
        """Count the multiply-adds of a network for one image."""
        size = entry._replace(name="", rate=1.0)  # what the network is built from
        if size not in self.counted:
            with torch.device("meta"):
                shape = self.splits.in_channels, *self.splits.image_size
                self.counted[size] = max(count_macs(self.build(size), shape), 1)
        return self.counted[size]


def largest(space: Space[Any], channels: int = 4) -> Any:
    """Return the architecture with the most parameters that coordinate ascent finds.

    The ascent starts from a random architecture. It sets one decision at a time to the choice with the most parameters,
    and ends when no change of a single decision adds parameters. In NAS-Bench-201 the result is a 3×3 convolution on
    every edge. The result does not depend on the data.
    """

    def parameters(genotype: Any) -> int:
        with torch.device("meta"):
            network = space.build(genotype, in_channels=3, num_classes=10, channels=channels, cells=1)
        return sum(p.numel() for p in network.parameters())

    best = space.random(Random(0))
    size, decisions = parameters(best), len(space.num_choices)
    unchanged = 0  # number of decisions in a row without a better choice
    for decision in cycle(range(decisions)):
        if unchanged == decisions:
            break
        before = size
        for choice in space.legal(best, decision):
            indices = list(space.encode(best))
            if indices[decision] == choice:
                continue
            indices[decision] = choice
            other = space.decode(indices)
            if (count := parameters(other)) > size:
                best, size = other, count
        unchanged = unchanged + 1 if size == before else 0
    return best


def text_of(plan: Plan, config: AutoConfig, images: Sequence[int], recipe: Recipe) -> str:
    """Return the plan as text: the stages, their shares of the budget, and the lengths of the trainings."""
    train, valid, test = images
    last = config.budget - sum(rung.entries * rung.seconds for rung in plan.rungs)
    lines = [f"plan for {config.budget:g} CPU-seconds; {train:,} training, {valid:,} validation, {test:,} test images"]
    lines += ["  networks are computed in bfloat16"] if recipe.bfloat16 else []
    if any(entry.genotype == BEST_RANKED for entry in plan.entries):
        last -= SCREEN * config.budget
        lines.append(f"  score   up to {config.candidates} cells without training, {SCREEN * config.budget:.1f} s")

    def length(seconds: float) -> str:
        steps = sorted(seconds / cost for cost in plan.seconds)
        epochs = [recipe.batch_size * count / train for count in steps]
        return f"{steps[0]:,.0f} to {steps[-1]:,.0f} steps, {epochs[0]:.1f} to {epochs[-1]:.1f} epochs"

    if len(plan.entries) == 1:
        lines.append(f"  train   {plan.entries[0].name} alone, for a race is too short: {length(config.budget)}")
    else:
        for number, rung in enumerate(plan.rungs, 1):
            lines.append(f"  race {number}  {rung.entries} networks, {rung.seconds:.1f} s each: {length(rung.seconds)}")
        lines += [f"          {entry.name}" for entry in plan.entries]
        lines.append(f"  last    the winner goes on, {last:.1f} s: {length(last)}")
    if config.baselines:
        lines.append(f"  then    three baselines, {config.budget:g} s each")
    return "\n".join(lines)
