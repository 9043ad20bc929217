"""Tables of the ops: docs/results/performance.md."""

from __future__ import annotations

from typing import Any

from docs_tables.text import load, percent, ratio, table

# The shape of each op in performance.md, and what limits its speed.
LIMITS = {
    "entmax15": ((1024, 1024), "reading the row twice; the gradient reads only the non-zero outputs"),
    "sparsemax": ((1024, 1024), "as `entmax15`"),
    "gumbel_softmax": ((1024, 1024), "arithmetic: random words, logarithms, exponentials"),
    "gumbel_softmax_hard": ((1024, 1024), "as `gumbel_softmax`"),
    "gumbel_entmax15": ((1024, 1024), "arithmetic: random words and logarithms"),
    "gumbel_argmax": ((1024, 1024), "as `gumbel_entmax15`"),
    "mixed_op": ((8, 64, 16, 32, 32), "memory bandwidth"),
    "cell_aggregate": ((8, 64, 16, 32, 32), "memory bandwidth"),
    "gae": ((1024, 1024), "memory bandwidth; each step needs the result of the next one"),
    "lambda_returns": ((1024, 1024), "as `gae`"),
    "discounted_returns": ((1024, 1024), "as `gae`"),
    "n_step_returns": ((1024, 1024), "n passes over the rewards"),
    "vtrace": ((1024, 1024), "memory bandwidth"),
    "retrace": ((1024, 1024), "memory bandwidth"),
    "categorical_projection": ((32768, 51), "scattered writes, positions in float64"),
    "td_targets": ((65536, 18), "transposing short rows"),
    "prioritized_replay": ((1_000_000, 256), "random access to memory"),
    "prioritized_replay_3_steps": ((1_000_000, 256), "random access to memory"),
}


def against(row: dict[str, Any] | None) -> str:
    """Return the ratio to the best other contender, and its name."""
    return f"{ratio(row['ratio'])} {row['best']}" if row and row["best"] else "–"


def page_faults() -> str:
    lines = []
    for row in load("page_faults")["rows"]:
        name = f"`{row['op']}`, {row['instruction_set']}" if row["instruction_set"] else row["op"]
        lines.append([name, f"{row['default_ms']:.1f}", f"{row['default_faults']:,.0f}", f"{row['kept_ms']:.2f}"])
    return table("(1024, 1024), forward and backward | ms | page faults | ms with `keep_freed_memory()`", lines)


def growth() -> str:
    """Return the points of the curves at which our op takes more than 1.5 times what its neighbors' line says."""
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in load("growth")["rows"]:
        series.setdefault((row["op"], row["grows"] + row["pass"]), []).append(row)
    lines, inner = [], 0
    for rows in series.values():
        for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
            ours, eager = (
                row["seconds"][name] / (before["seconds"][name] * after["seconds"][name]) ** 0.5
                for name in ("ours", "eager")
            )
            inner += 1
            if ours > 1.5:
                shape = "×".join(map(str, row["shape"]))
                lines.append([f"`{row['op']}`", shape, row["pass"], f"{ours:.2f}", f"{eager:.2f}"])
    return table(
        f"{len(lines)} of {inner} points | shape | pass | our op, of the line | eager PyTorch, of the line", lines
    )


def performance() -> str:
    avx512, avx2 = (
        {(r["op"], tuple(r["shape"]), r["pass"]): r for r in load(name)["rows"] if r["dtype"] == "float32"}
        for name in ("bench", "bench_avx2")
    )
    lines = []
    for op, (shape, limit) in LIMITS.items():
        ratios = [
            against(rows.get((op, shape, which)))
            for rows in (avx512, avx2)
            for which in ("forward", "forward + backward")
        ]
        place = "×".join(map(str, shape))
        lines.append([f"`{op}`", place, *ratios, percent(avx512[op, shape, "forward"]["of_copy"]), limit])
    head = "op | shape | AVX-512: forward | forward + backward | AVX2: forward | forward + backward"
    return table(f"{head} | share of a copy's speed | what limits it", lines)


def attention() -> str:
    files = [load(f"attention_{name}")["rows"] for name in ("amx", "avx512", "avx2")]
    passes = ("forward", "with gradient")
    ratios = [{(r["row"], r["pass"]): r for r in rows} for rows in files]
    lines = []
    for row in dict.fromkeys(r["row"] for r in files[0]):
        first = ratios[0][row, "forward"]
        cells = [f"{of[row, p]['of_softmax']['ours']:.2f}" if (row, p) in of else "–" for of in ratios for p in passes]
        lines.append([row, f"{1e3 * first['seconds']['ours']:.1f} ms", *cells])
    head = "inputs | AMX: forward | of softmax's time | with gradient | AVX-512: forward | with gradient"
    return table(f"{head} | AVX2: forward | with gradient", lines)
