"""The chart of a result: times of the other contenders, relative to ours, in one panel per family of ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.bench.cases.case import FORWARD
from automl_ext.bench.reports.cells import YARDSTICKS, machine
from automl_ext.bench.reports.readme import shown
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLACK, BLUE, BROWN, GRAY, GREEN, ORANGE, PURPLE, RED, SKY
from automl_ext.training.pictures.curves import add_title, figure

# Family → starts of its ops' names, in the order of the panels.
FAMILIES = {
    "entmax": ("entmax", "sparsemax"),
    "Gumbel samples": ("gumbel",),
    "language models": ("token_log_probs",),
    "mixed ops": ("mixed_op", "cell_aggregate"),
    "small networks": ("mlp", "gru_cell"),
    "returns": (),
    "off-policy and distributional targets": ("vtrace", "retrace", "td_targets", "categorical_projection"),
    "replay": ("prioritized_replay",),
}
OTHER = "returns"  # family of every other op
STYLES = {
    "eager": ("o", GRAY),
    "compiled": ("s", ORANGE),
    "entmax": ("D", GREEN),
    "stable-baselines3": ("^", RED),
    "torchrl": ("v", PURPLE),
    "torchrl vec": ("<", SKY),
    "tianshou": (">", BROWN),
    "nn.Sequential": ("P", BROWN),
    "cross_entropy": ("X", GREEN),
    "numpy": ("*", PURPLE),
}
NAMES = {"eager": "PyTorch, eager", "compiled": "torch.compile"}
MOST_PLACES = 30  # a chart with more rows than this is reduced to the rows of README's table

Place = tuple[str, tuple[int, ...]]  # op, shape


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw one row per op and shape (float32).

    Each implementation with correct results gets a marker at its time relative to ours. A filled marker is the forward
    pass, a hollow one forward and backward.
    """
    rows = [row for row in result["rows"] if row["dtype"] == "float32"]
    families = places_by_family(rows)
    picture = figure(8, 1.6 + sum(0.21 * len(places) + 0.28 for places in families.values()))
    heights = [len(places) + 0.5 for places in families.values()]
    panels = picture.subplots(len(families) or 1, squeeze=False, sharex=True, height_ratios=heights or [1])[:, 0]
    labeled: dict[str, Any] = {}
    for axes, (family, places) in zip(panels, families.items(), strict=False):
        for row in rows:
            if (place := place_of(row)) in places:
                labeled |= draw_row(axes, row, places.index(place))
        axes.axvline(1, color=BLUE, linewidth=1.5, zorder=1)
        axes.set_xscale("log")
        axes.set_yticks(range(len(places)), [f"{op} ({', '.join(map(str, shape))})" for op, shape in places])
        axes.tick_params(labelsize=8)
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_title(family, fontsize=9, loc="left", pad=3)
        axes.grid(alpha=0.3)
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    panels[-1].set_xlabel("time of the other ÷ time of automl_ext: automl_ext is faster →", fontsize=9)
    _legend(picture, labeled)
    add_title(picture, f"Speed of the ops in float32, {machine(result).split(';')[0]}")
    write_picture(picture, path, dpi=90)


def places_by_family(rows: list[dict[str, Any]]) -> dict[str, list[Place]]:
    """Return the ops and shapes to show: all, or the rows of README's table if there are too many."""
    places = list(dict.fromkeys(place_of(row) for row in rows))
    if len(places) > MOST_PLACES:
        places = shown(places)
    families: dict[str, list[Place]] = {name: [] for name in FAMILIES}
    for place in sorted(places):
        found = [name for name, starts in FAMILIES.items() if place[0].startswith(starts)]
        families[found[0] if found else OTHER].append(place)
    return {name: members for name, members in families.items() if members}


def place_of(row: dict[str, Any]) -> Place:
    return row["op"], tuple(row["shape"])


def draw_row(axes: Any, row: dict[str, Any], y: int) -> dict[str, Any]:
    """Draw the marks of one row; return a mark for the legend by name of the contender."""
    marks = {}
    for name, seconds in row["seconds"].items():
        if name in ("ours", *YARDSTICKS) or name in row["wrong"]:
            continue
        marker, color = STYLES.get(name, ("P", BLACK))
        forward = row["pass"] == FORWARD
        marks[name] = axes.scatter(
            seconds["median"] / row["seconds"]["ours"]["median"],
            y,
            marker=marker,
            s=34,
            facecolor=color if forward else "white",
            edgecolor=color,
            zorder=3 if forward else 2,
        )
    return marks


def _legend(picture: Any, labeled: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for name in sorted(labeled, key=lambda name: list(STYLES).index(name) if name in STYLES else len(STYLES)):
        marker, color = STYLES.get(name, ("P", BLACK))
        handles.append(Line2D([], [], marker=marker, color=color, linestyle="", label=NAMES.get(name, name)))
    handles += [
        Line2D([], [], marker="o", color=BLACK, linestyle="", label="filled: forward"),
        Line2D([], [], marker="o", color=BLACK, markerfacecolor="white", linestyle="", label="hollow: with backward"),
        Line2D([], [], color=BLUE, label="as fast as automl_ext"),
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
