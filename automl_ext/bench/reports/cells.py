"""Rows of a result as text, for the terminal, the README's table and the chart."""

from __future__ import annotations

from typing import Any

OURS_AND_PYTORCH = ("ours", "eager", "compiled")
BUSY = 0.7  # load average of the minute before the start, in processes; above it, the machine counts as busy
YARDSTICKS = ("softmax", "copy")  # timed like contenders, for comparison only


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:.0f} {unit}"
    raise AssertionError


def shape_of(row: dict[str, Any]) -> str:
    return f"({', '.join(map(str, row['shape']))})"


def time_of(row: dict[str, Any], name: str) -> str:
    """Return the median ± half the interquartile range, followed by "wrong" if the result was wrong."""
    times = row["seconds"].get(name)
    if times is None:
        return "–"
    spread = (times["high"] - times["low"]) / 2 / times["median"]
    return f"{duration(times['median'])} ±{spread:.0%}" + (" wrong" if name in row["wrong"] else "")


def best_peer(row: dict[str, Any]) -> str | None:
    """Return the fastest of the other packages with a correct result; the fastest wrong one if none is correct."""
    peers = [name for name in row["seconds"] if name not in (*OURS_AND_PYTORCH, *YARDSTICKS)]
    return min(peers, key=lambda name: (name in row["wrong"], row["seconds"][name]["median"]), default=None)


def peer_of(row: dict[str, Any]) -> str:
    peer = best_peer(row)
    return "–" if peer is None else f"{peer} {time_of(row, peer)}"


def times(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}×" if value >= 99.5 else f"{value:.2g}×" if value < 10 else f"{value:.3g}×"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


HEADER = ["op", "shape", "dtype", "pass", "ours", "eager", "compiled", "peer", "ratio", "of copy", "of softmax"]


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["op"],
        shape_of(row),
        row["dtype"],
        "fwd" if row["pass"] == "forward" else "fwd + bwd",
        *(time_of(row, name) for name in OURS_AND_PYTORCH),
        peer_of(row),
        times(row["ratio"]),
        percent(row["of_copy"]) + ("" if row["beyond_cache"] else " (cache)"),
        times(row["of_softmax"]),
    ]


def bandwidth(row: dict[str, Any]) -> str:
    """Return our bandwidth and the bandwidth of a copy, in GB/s."""
    achieved = row["bytes"] / row["seconds"]["ours"]["median"] / 1e9
    return f"{achieved:.0f} of {row['copy_gb_per_s']:.0f}"


def left_out(result: dict[str, Any], key: str) -> list[tuple[str, str, list[str]]]:
    """Return the name, the reason and the ops of the contenders that were not measured. ``key``: skipped or failed."""
    ops: dict[tuple[str, str], dict[str, None]] = {}
    for row in result["rows"]:
        for name, why in row[key].items():
            ops.setdefault((name, why), {})[row["op"]] = None
    return [(name, why, list(of)) for (name, why), of in ops.items()]


def machine(result: dict[str, Any]) -> str:
    """Return the date, the machine and its load, the instruction set, and the versions."""
    threads = "" if result["device_type"] == "cuda" else f", {result['threads']} thread" + "s" * (result["threads"] > 1)
    set_ = result["build_info"].get("instruction_set")
    instructions = f", {set_} kernels" if set_ and result["device_type"] == "cpu" else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    busy = "" if result["load"] < BUSY else f" (load average {result['load']:.1f} at the start)"
    return f"{result['date']}: {result['device']}{instructions}{threads}{busy}; {versions}"
