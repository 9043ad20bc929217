"""The tables of docs/reliability.md."""

from __future__ import annotations

from docs_tables.text import integer, load, table

COLUMNS = ("operations", "states", "resumed", "started anew", "refused", "ended", "faults")
NAMES = "file operations | disks | continued | started anew | refused in one line | run to the end | faults | date"


def torture() -> str:
    rows = load("torture")["rows"]
    cells = [[f"`{row['command']}`", *(integer(row[name]) for name in COLUMNS), row["date"]] for row in rows]
    made = {f"{row['processor']}, torch {row['torch']}, Python {row['python']}, seed {row['seed']}" for row in rows}
    return f"{table(f'command | {NAMES}', cells)}\n`make torture` on {'; '.join(sorted(made))}.\n"


WAYS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP", "worker", "two starts")


def kills() -> str:
    rows = [row for row in load("fuzz") if row["kind"] == "kills"]
    counts = {row["outcome"]: row["count"] for row in rows}
    runs = dict.fromkeys(name.partition(", ")[0] for name in counts if ", " in name)
    cells = [[f"`{run}`", *(str(counts.get(f"{run}, {way}", "–")) for way in WAYS)] for run in runs]
    made = {f"{row['processor']}, {row['date']}, seed {row['seed']}" for row in rows}
    head = "run | SIGKILL | SIGINT | SIGTERM | SIGHUP | SIGKILL of a worker | two starts"
    total, faults = sum(counts.values()), counts.get("violation", 0)
    return f"{table(head, cells)}\n{integer(total)} cases, faults: {faults}. {'; '.join(sorted(made))}.\n"


def versions() -> str:
    names = ("python", "torch", "dependencies", "compiler", "command", "passed", "failed", "date")
    cells = [[str(row[name]) for name in names] for row in load("versions")]
    return table("Python | torch | dependencies | compiler | command | passed | failed | date", cells)


WHAT = {"commands": "command lines", "checkpoints": "damaged run directories", "inputs": "damaged and hostile files"}


def bad_input() -> str:
    rows = [row for row in load("fuzz") if row["kind"] in WHAT]
    cells = []
    for kind, what in WHAT.items():
        found = [row for row in rows if row["kind"] == kind]
        counts = {row["outcome"]: row["count"] for row in found}
        read = counts.get("exit 0", 0) + counts.get("older checkpoint used", 0)
        refused, faults = counts.get("exit 2", 0), counts.get("violation", 0)
        cells.append([what, *map(integer, (sum(counts.values()), read, refused, faults)), found[0]["date"]])
    return table("input | cases | read | refused in one line | faults | date", cells)


def endurance() -> str:
    lines = []
    for row in load("endurance"):
        growth, last = row["growth"], row["samples"][-1]
        names = ("memory_mb", "descriptors", "threads")
        changes = [f"{last[name]:,.0f} ({100 * growth[name]:+.1f} %)" for name in names]
        disk = f"{last['disk_mb']:.1f} MB ({growth['disk_mb']:+.2f} MB/min)"
        lines.append([f"`{row['command']}`", integer(row["minutes"]), *changes, disk, row["date"]])
    return table("command | minutes | memory, MB | descriptors | threads | disk | date", lines)


def sanitizers() -> str:
    rows = load("sanitizers")
    lines = [[f"`{row['command']}`", row["what"], str(row["reports"]), row["processor"], row["date"]] for row in rows]
    return table("command | passed | reports of the sanitizers | processor | date", lines)


def mutants() -> str:
    lines = []
    for row in load("mutants"):
        share = f"{100 * row['noticed'] / (row['noticed'] + row['survived']):.0f} %"
        numbers = [str(row[name]) for name in ("seed", "drawn", "invalid", "equivalent", "noticed", "survived")]
        lines.append([f"`{row['commit'][:8]}`", *numbers, share])
    return table("commit | seed | drawn | invalid | equivalent | noticed | survived | share noticed", lines)
