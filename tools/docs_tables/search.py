"""Tables of architecture search: docs/results/search.md and docs/results/strategies.md."""

from __future__ import annotations

import itertools
import statistics
from operator import itemgetter
from typing import Any

from docs_tables.text import grouped, integer, load, percent, span, table

# Test accuracy of the same protocol as the paper of the benchmark publishes it (Dong et al. 2021, NATS-Bench).
PUBLISHED = {"random": "93.86 ± 0.23", "reinforce": "93.90 ± 0.26", "rea": "94.02 ± 0.31"}

PUBLISHED_GDAS = "93.51 ± 0.13"  # with 25,000 images, 16 channels and 5 cells (Dong & Yang 2020)

RENAS = ("renas", "renas-history")


def nas_bench() -> str:
    lines, results = [], load("nas_bench")
    names = {"random": "random search", "reinforce": "REINFORCE", "rea": "REA"}
    names |= {"renas": "ReNAS", "renas-history": "ReNAS, controller `history`"}
    for group in ("default", "population 30 sample 10"):
        for name, r in results[group].items():
            over = r.get("over_rea") if name in RENAS else None
            gain = "–" if not over else f"{over['mean']:+.3f} ({over['ci95'][0]:+.3f} to {over['ci95'][1]:+.3f})"
            population = "–" if name in ("random", "reinforce") else "10, 3" if group == "default" else "30, 10"
            published = PUBLISHED.get(name, "–") if group == "default" else "–"
            here = f"{r['mean']:.2f} ± {r['std']:.2f}"
            cost = [f"{r['evaluations']:.0f}", f"{r['cpu_seconds']:.3f}"]
            lines.append([names[name], population, published, here, gain, *cost])
    return table(
        "algorithm | population, sample | published | here | over REA of the same population (95 % interval) "
        "| evaluations per run | CPU-seconds per run",
        lines,
    )


def by_search() -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Return the rows of the searches over a supernet and of random search, by search and budget in seconds."""
    return grouped(load("differentiable_search"), itemgetter("search", "seconds"))


def differentiable_search() -> str:
    return supernets({150, 480})


def papers_gdas() -> str:
    return supernets({480})


def supernets(budgets: set[float]) -> str:
    lines = []
    for (search, budget), rows in sorted(by_search().items(), key=lambda group: group[0][1]):
        if budget not in budgets:
            continue
        found = [r["table_test_accuracy"] for r in rows]
        seconds = statistics.mean(r["search_cpu_seconds"] for r in rows)
        above = ", ".join(percent(r["cells_of_table_above"]) for r in rows)
        each = ", ".join(f"{accuracy:.2f}" for accuracy in found)
        mean = f"{statistics.mean(found):.2f}" + (f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else "")
        name = f"`{search}`" + " (its scores were chosen on this table)" * (search == "perturbation")
        lines.append([name, f"{budget:g}", f"{seconds:.0f}", each, mean, f"{min(found):.2f}", above])
    lines.append(["GDAS, published", *["–"] * 3, PUBLISHED_GDAS, *["–"] * 2])
    header = (
        "search | budget in CPU-seconds | CPU-seconds per search | accuracy by seed, from 0 | mean ± standard deviation"
    )
    return table(f"{header} | lowest | share of the space that is better", lines)


def alpha_signal() -> str:
    lines = []
    rows = [r for r in load("alpha_signal") if r["step"] != 300 or r["cells"] != 1]  # 100 and 800 show the change
    for r in sorted(rows, key=lambda r: (r["data"], r["channels"], r["cells"], r["lr"], r["step"])):
        rate = f"{r['lr']:g}" + ", falling to 0" * r["cosine"]
        where = [r["data"], str(r["channels"]), str(r["cells"]), rate, integer(r["step"]), f"{r['loss']:.2f}"]
        signal = ", ".join(f"{v:+.2f}".replace("-", "−") for v in r["darts, tau 1"].values())
        lines.append([*where, signal])
    return table("images | C | N | learning rate | steps | loss | skip, 1×1, 3×3, pool", lines)


def fidelity() -> str:
    lines = [
        [r["cells"], integer(r["n"]), f"{r['kendall']:.2f}", f"{r['spearman']:.2f}"]
        for r in load("fidelity_ranking")["rows"]
    ]
    return table("cells | number | Kendall τ | Spearman ρ", lines)


def estimates() -> str:
    lines = []
    for r in load("estimates")["rows"]:
        low, high = r["table"]["interval"]
        kendall = f"{r['table']['kendall']:.2f} ({low:.2f} to {high:.2f})"
        lines.append([r["evaluator"], f"{r['cpu_seconds']:.0f}", kendall, f"{r['table']['spearman']:.2f}"])
    return table("evaluator | CPU-seconds per cell | Kendall τ (95 % interval) | Spearman ρ", lines)


def supernet_ranking() -> str:
    lines = []
    for r in load("supernet_ranking"):
        net = r["supernet"]
        supernet = f"{net['channels']} channels, {net['epochs']} epochs, {net['cpu_seconds']:.0f} CPU-s"
        for by, name in (("by_supernet", "supernet"), ("by_parameters", "number of parameters")):
            low, high = r[by]["interval"]
            kendall = f"{r[by]['kendall']:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")
            spearman = f"{r[by]['spearman']:.2f}".replace("-", "−")
            lines.append([r["data"], integer(r["images"]), str(r["cells"]), supernet, name, kendall, spearman])
    return table("data | images | cells | supernet | order by | Kendall τ (95 % interval) | Spearman ρ", lines)


def ensemble() -> str:
    lines, result = [], load("nas_ensemble_fashion")
    names = {
        "best_single": "best single member in validation",
        "average": "average of all five",
        "greedy": "greedy selection",
    }
    for name, text in names.items():
        parts = [result[kind][name] for kind in ("restarts", "cells")]
        lines.append([text, *(x for p in parts for x in (f"{p['test_log_loss']:.3f}", percent(p["test_accuracy"], 2)))])
    header = "chosen | restarts: log-loss, nats | accuracy | random cells: log-loss, nats | accuracy"
    return table(header, lines)


def auto_search() -> str:
    """One row per data set, budget and dtype: means over the seeds of test accuracies in percent."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in load("auto_search"):
        dtype = "bfloat16" if run["recipe"].get("bfloat16") else "float32"
        groups.setdefault((run["name"], run["minutes"], dtype), []).append(run)
    lines = []
    for (name, minutes, dtype), runs in groups.items():
        rows = [{row["name"]: row for row in run["rows"]} for run in runs]
        cells = [AUTO_DATA[name], f"{minutes:g}", dtype, ", ".join(str(run["seed"]) for run in runs)]
        for kind in ("found", *AUTO_BASELINES):
            cells.append(f"{statistics.mean(100 * row[kind]['test_accuracy'] for row in rows):.2f}")
        best = [min((row[kind] for kind in AUTO_BASELINES), key=lambda one: one["valid_log_loss"]) for row in rows]
        found, plain = ([row[kind] for row in rows] for kind in ("found", AUTO_BASELINES[-1]))
        ended = [one["test_accuracy"] for one in found]
        earlier = [accuracy_at(run, one["seconds"]) for run, one in zip(runs, plain, strict=True)]
        cells += [mean_gain(ended, plain), mean_gain(ended, best), mean_gain(earlier, plain)]
        cells += [span([one["seconds"] for one in some]) for some in (found, plain)]
        kinds = sorted({run["network_name"].partition(",")[0] for run in runs})
        lines.append([*cells, ", ".join(kinds)])
    header = "images | CPU-minutes | computed in | seeds | returned | largest cell | best-ranked cell | plain CNN"
    header += " | returned − plain CNN | returned − chosen baseline | at no more seconds"
    return table(f"{header} | CPU-seconds, search | plain CNN | found", lines)


def accuracy_at(run: dict[str, Any], seconds: float) -> float:
    """Return the test accuracy of a search after a number of seconds, interpolated between its measurements.

    If the search took fewer seconds, its last test accuracy is returned.
    """
    curve = [(point["seconds"], point["test_accuracy"]) for point in run["trajectory"]["search"]]
    for (start, low), (end, high) in itertools.pairwise(curve):
        if start <= seconds <= end:
            return low + (high - low) * (seconds - start) / (end - start)
    return curve[-1][1]


def auto_small() -> str:
    """One row per small set: means over the seeds of test accuracies in percent."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in load("auto_small"):
        if run["name"] in SMALL_DATA:
            groups.setdefault(run["name"], []).append(run)
    lines = []
    for name, runs in groups.items():
        rows = [{row["name"]: row for row in run["rows"]} for run in runs]
        means = {
            kind: statistics.mean(100 * row[kind]["test_accuracy"] for row in rows) for kind in ("found", *SMALL_PLAIN)
        }
        better = max(SMALL_PLAIN, key=lambda kind: means[kind])
        chosen = [min((row[kind] for kind in SMALL_PLAIN), key=lambda one: one["valid_log_loss"]) for row in rows]
        cells = [
            SMALL_DATA[name],
            ", ".join(str(run["seed"]) for run in runs),
            *(f"{mean:.1f}" for mean in means.values()),
        ]
        found = [row["found"]["test_accuracy"] for row in rows]
        cells += [mean_gain(found, others) for others in ([row[better] for row in rows], chosen)]
        seconds = statistics.mean(row["found"]["seconds"] for row in rows)
        undecided = sum(not run["race_decided"] for run in runs)
        names = sorted({run["network_name"].rpartition(", C =")[0] for run in runs})
        lines.append([*cells, f"{undecided} of {len(runs)}", f"{seconds:.0f}", "; ".join(names)])
    header = "images | seeds | returned | plain CNN, average | plain CNN, max | returned − better head"
    return table(f"{header} | returned − head chosen by validation | race at chance | CPU-seconds | found", lines)


def auto_versions() -> str:
    """CIFAR-10 in five minutes with two versions of search auto, on one machine."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in load("auto_small"):
        if run["name"] not in SMALL_DATA:
            groups.setdefault(run["version"], []).append(run)
    lines = []
    for version in sorted(groups, reverse=True):  # before, after
        runs = groups[version]
        found = [100 * run["rows"][0]["test_accuracy"] for run in runs]
        error = f" ± {statistics.stdev(found) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
        each = ", ".join(f"{accuracy:.2f}" for accuracy in found)
        seconds = statistics.mean(run["rows"][0]["seconds"] for run in runs)
        seeds = ", ".join(str(run["seed"]) for run in runs)
        names = "; ".join(sorted({run["network_name"] for run in runs}))
        lines.append([version, seeds, each, f"{statistics.mean(found):.2f}{error}", f"{seconds:.0f}", names])
    return table("version | seeds | test accuracy, % | mean ± standard error | CPU-seconds | found", lines)


def mean_gain(found: list[float], others: list[dict[str, Any]]) -> str:
    """Return the mean difference of test accuracies in percent, and its standard error."""
    gains = [100 * (one - other["test_accuracy"]) for one, other in zip(found, others, strict=True)]
    error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.2f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.2f}{error}"


AUTO_DATA = {
    "fashion": "Fashion-MNIST, 10,000",
    "cifar10": "CIFAR-10, 10,000",
    "shapes": "generated shapes, 600",
    "digits": "digits, 1,797",
}
SMALL_DATA = {
    "objects": "generated objects, 1,000",
    "textures": "generated textures, 600",
    "counting": "generated spots to count, 1,200",
    "fashion": "Fashion-MNIST, 1,000",
    "cifar10": "CIFAR-10, 1,000",
}
SMALL_PLAIN = ("plain CNN, average", "plain CNN, max")
AUTO_BASELINES = ("largest cell", "best-ranked cell", "plain CNN, 32-64-128")
