"""The tables of docs/how-to/parallel.md."""

from __future__ import annotations

from docs_tables.text import load, table


def parallel_costs() -> str:
    recorded = load("parallel")
    rows = [
        [name, f"{recorded[name]['overhead_ms']:.2g}", f"{recorded[name].get('speedup', 1.0):.2f}"]
        for name in ("in this process", "processes", "ray")
    ]
    return table("backend | overhead per call in ms | trainings: 1 worker's time / 2 workers' time", rows)


def ray_disturbances() -> str:
    rows = []
    for row in load("ray_disturbances"):
        killed = row["killed"]
        drivers = f"{killed['driver']}, and {killed['driver with its node']} with a removed node"
        counts = [str(killed["worker"]), str(killed["node"]), drivers]
        rows.append([f"`{row['command'].partition(' --')[0]}`", f"{row['equal']} of {row['of']}", *counts])
    return table("command | runs equal to the undisturbed one | workers killed | nodes removed | commands killed", rows)
