"""The predicted times of the CUDA kernels: docs/development/cuda.md, from the instructions in cuda_sass.json."""

from __future__ import annotations

import math
import runpy

from docs_tables.text import ROOT, load, percent, span, table

PROCESSORS, ISSUED, BANDWIDTH = 132, 4 * 1.7e3, 3.0e6  # an H100: instructions per µs and multiprocessor, bytes per µs
SLOTS = (0.85, 0.60)  # shares of the issue slots that kernels use
BARRIER, TILE, START = 0.04, 0.3, 2.0  # µs: a barrier; a tile from the L2 cache; the launch and the first load
LISTED, BLOCK_STEP = 0.5, 0.6  # µs: two loads, one after the other; a step of Newton's of a whole block
LIST_STEPS = 6  # Newton's steps on the candidates of a row of normal numbers
COLUMN_STEPS = 7  # the most of 32 such rows
READ = {
    f"{op} {shape}": microseconds
    for (op, shape), microseconds in runpy.run_path(str(ROOT / "automl_ext/bench/predicted.py"))["PREDICTED"].items()
}


class Kernel:
    """An instance for float32 and compute capability 9.0: its instructions, and those of its inner loops."""

    def __init__(self, name: str) -> None:
        self.all, self.loops = load("cuda_sass")["instances"][name]

    def packed(self, *which: int) -> float:
        """Return the instructions per element of loops over packs."""
        return sum(self.loops[i][0] / self.loops[i][1] for i in which)


def entmax_thread(rows: int) -> tuple[float, int, int]:
    """One thread per row of 8, in closed form."""
    return rows / 32 * Kernel("entmax_short_rows<2, float, 1, 8>").all, rows // 128, 0


def entmax_medium(rows: int, n: int, share: float = 0.0) -> tuple[float, int, int]:
    """A block per row. One warp finds the threshold in a list of a share of the elements, if that is counted.

    Of the kernel's instructions, 31 % run once: the others are for single elements, for rows without such a list and
    for the threshold.
    """
    threads = n // 16
    kernel = Kernel(f"entmax_medium_rows<2, float, {threads}, 16>")
    return rows * (threads / 32 * 0.31 * kernel.all + (list_instructions(n, share) if share else 0)), rows, 6


def entmax_shared(rows: int, n: int) -> tuple[float, int, int]:
    """Every loop over packs of the row once: one more than rows with few candidates need. Loop 1 copies 16 elements."""
    kernel = Kernel("entmax_long_rows<2, float>")
    over_row = [i for i, (_, elements) in enumerate(kernel.loops) if elements == 4]
    return rows * n / 32 * (kernel.loops[1][0] / 16 + kernel.packed(*over_row)), rows, 8


def columns(name: str, rows: int, warps: int, steps: int) -> tuple[float, int, int]:
    """Columns of 32 elements per thread: all instructions once, and Newton's loop, the longest, for further steps."""
    kernel = Kernel(name)
    step = max(instructions for instructions, _ in kernel.loops)
    issued = rows / 32 * warps * (kernel.all + (steps - 1) * step)
    return issued, rows // (128 if warps == 1 else 32), 2 * (1 + steps) if warps > 1 else 0


def read_columns(name: str, rows: int, warps: int, n: int) -> tuple[float, int, int]:
    """Columns that are read twice, four elements per iteration: all instructions once, both loops for further ones."""
    kernel = Kernel(name)
    loops = sum(instructions for instructions, _ in kernel.loops)
    return rows / 32 * warps * (kernel.all + (n / warps / 4 - 1) * loops), rows // 128, 0


def gumbel_columns(rows: int) -> tuple[float, int, int]:
    """Eight of 32 elements per thread: all instructions once, and the noise loop, the longest, for further four."""
    kernel = Kernel("gumbel_columns<false, float, 4, 8>")
    noise = max(instructions for instructions, _ in kernel.loops)
    return rows / 32 * 4 * (kernel.all + noise), rows // 32, 8


def bisect_long(rows: int, n: int, steps: int) -> tuple[float, int, int]:
    """The extremes, the sum and the output once, a loop over packs for each step; the others are budget-sparsemax's."""
    kernel = Kernel("bisect_long_rows<float>")
    extremes, step, total, output, *_ = (i for i, (_, elements) in enumerate(kernel.loops) if elements == 4)
    instructions = kernel.packed(extremes, total, output) + steps * kernel.packed(step)
    return rows * n / 32 * instructions, rows, 10 + 2 * steps


def list_instructions(n: int, share: float) -> float:
    """Return the instructions of Newton's steps of one warp on a list of a share of the elements."""
    kernel = Kernel("entmax_long_rows<2, float>")
    step = next(instructions / elements for instructions, elements in kernel.loops if elements == 16)
    reduction = 120
    return LIST_STEPS * (share * n / 32 * step + reduction)


def candidates(n: int, share: float) -> float:
    """Return the µs of these steps for a warp that issues an instruction every second clock."""
    return list_instructions(n, share) * 8 / ISSUED


def gumbel_shared(rows: int, n: int) -> tuple[float, int, int]:
    """Noise for four elements in loop 0; x + g, the largest, exp and its sum, and the output in loops 1, 5, 7, 9."""
    kernel = Kernel("gumbel_long_rows<false, float>")
    return rows * n / 32 * (kernel.loops[0][0] / 4 + kernel.packed(1, 5, 7, 9)), rows // 4, 2


def huge_parts(n: int) -> int:
    """Return the number of parts of a row that does not fit shared memory."""
    return -(-n // 8192)


def huge(first: str, last: str, rows: int, n: int) -> tuple[float, int, int]:
    """16 warps for each part in the first and the last launch: all their instructions once."""
    parts = rows * huge_parts(n)
    return parts * 16 * (Kernel(first).all + Kernel(last).all), parts, 12


def huge_threshold(n: int) -> float:
    """Return the µs of the second launch: two passes, in which its warps await the list of each part, and the steps."""
    return 2 * math.ceil(huge_parts(n) / 16) * LISTED + LIST_STEPS * BLOCK_STEP


def gumbel_registers(rows: int, n: int) -> tuple[float, int, int]:
    """16 elements per thread: four of loop 0, two rows, and the rest once."""
    kernel = Kernel("gumbel_short_rows<false, float, 1, 8>")
    noise, row = kernel.loops[0][0], kernel.loops[1][0]
    return rows * n / 16 / 32 * (kernel.all + 3 * noise + row), rows * n // 2048, 2


def vocabulary(rows: int, n: int) -> tuple[float, int, int]:
    """The loop, over 16 elements; the sums of a chain and of a block are all other instructions, once."""
    kernel = Kernel("categorical_long_rows<float>")
    loop = kernel.loops[0][0]
    return rows * (n / 16 / 32 * loop + 8 * (kernel.all - loop)), rows, 4


def gae(steps: int, columns: int, blocks: int, tiles: int) -> tuple[float, int, int]:
    """Eight steps per thread and tile."""
    return steps * columns / 8 / 32 * Kernel("scan<scans::Gae, float>").all, blocks, tiles


def td_targets(rows: int, n: int) -> tuple[float, int, int]:
    """One thread per row: all instructions once, and the loop over four elements for those after the first four."""
    kernel = Kernel("td_short_rows<float>")
    return rows / 32 * (kernel.all + (n / 4 - 1) * kernel.loops[-1][0]), rows // 128, 2


def projection(rows: int) -> tuple[float, int, int]:
    """One warp per row of 51 atoms, two per thread.

    All instructions once: those of divisions and shuffles in special cases, which do not run, replace a second atom's.
    """
    return rows * Kernel("projection_short_rows<float>").all, rows // 4, 0


def mixed_op(inputs: int, n: int) -> tuple[float, int, int]:
    """Eight elements per thread and tile: all instructions once, the loop over four inputs once more for each four."""
    kernel = Kernel("mixed_op_forward<float, float>")
    return n / 8 / 32 * (kernel.all + (inputs / 4 - 1) * kernel.loops[-1][0]), n // 1024, 2


def mixed_op_backward(inputs: int, n: int) -> tuple[float, int, int]:
    """The same with 16 elements and two inputs."""
    kernel = Kernel("mixed_op_backward<float, float>")
    return n / 16 / 32 * (kernel.all + (inputs / 2 - 1) * kernel.loops[-1][0]), n // 2048, 2


def estimates() -> dict[str, tuple[float, tuple[float, int, int], float]]:
    """Return for each op and shape: bytes; (instructions of all warps, blocks, barriers); further µs."""
    elements = 1024 * 1024
    return {
        "entmax15 (64, 32000)": (8 * 64 * 32000, entmax_shared(64, 32000), candidates(32000, 0.018)),
        "entmax15 (1024, 1024)": (8 * elements, entmax_medium(1024, 1024), candidates(1024, 0.116)),
        "entmax15 (65536, 512)": (8 * 65536 * 512, entmax_medium(65536, 512, 0.15), 0.0),
        "entmax15 (16384, 2048)": (8 * 16384 * 2048, entmax_medium(16384, 2048, 0.085), 0.0),
        "entmax15 (1024, 32768)": (8 * 1024 * 32768, entmax_shared(1024, 32768), 0.0),
        "entmax15 (8, 128256)": (
            8 * 8 * 128256,
            huge("entmax_huge_parts<2, float, 512>", "entmax_huge_rows<2, float, 512>", 8, 128256),
            huge_threshold(128256) + 2 * START,
        ),
        "entmax15 (1, 1000000)": (
            8 * 1000000,
            huge("entmax_huge_parts<2, float, 512>", "entmax_huge_rows<2, float, 512>", 1, 1000000),
            huge_threshold(1000000) + 2 * START,
        ),
        "entmax15 (262144, 8)": (8 * 262144 * 8, entmax_thread(262144), 0.0),
        "entmax15 (64, 32, 4096), dim 1": (
            8 * 8 * elements,
            columns("entmax_columns<2, float, 1, 32>", 64 * 4096, 1, COLUMN_STEPS),
            0.0,
        ),
        "entmax15 (64, 32, 4096), dim 1, backward": (
            12 * 8 * elements,
            read_columns("entmax_backward_columns<2, float, 1>", 64 * 4096, 1, 32),
            0.0,
        ),
        "entmax15 (16, 512, 1024), dim 1": (
            8 * 8 * elements,
            columns("entmax_columns<2, float, 16, 32>", 16 * 1024, 16, COLUMN_STEPS),
            0.0,
        ),
        "entmax_bisect (1024, 1024)": (8 * elements, bisect_long(1024, 1024, 3), 0.0),
        "gumbel_softmax (1024, 1024)": (8 * elements, gumbel_shared(1024, 1024), 0.0),
        "gumbel_softmax (64, 32, 4096), dim 1": (8 * 8 * elements, gumbel_columns(64 * 4096), 0.0),
        "gumbel_softmax (4194304, 8)": (8 * 4194304 * 8, gumbel_registers(4194304, 8), 0.0),
        "gumbel_softmax (8, 128256)": (
            8 * 8 * 128256,
            huge("gumbel_huge_parts<false, float, 512>", "gumbel_huge_rows<false, float, 512>", 8, 128256),
            START,
        ),
        "gae (1024, 1024)": (22 * elements, gae(1024, 1024, 128, 4), 3 * TILE),
        "gae (1024, 8)": (22 * 1024 * 8, gae(1024, 8, 4, 1), 0.0),
        "gae (128, 262144)": (22 * 128 * 262144, gae(128, 262144, 2048, 0), 0.0),
        "td_targets (65536, 18)": (65536 * (4 * 18 + 9), td_targets(65536, 18), 0.0),
        "categorical_projection (32768, 51)": (32768 * (8 * 51 + 5), projection(32768), 0.0),
        "token_log_probs (4096, 50257)": (4 * 4096 * 50257, vocabulary(4096, 50257), 0.0),
        "token_log_probs (1024, 151936)": (4 * 1024 * 151936, vocabulary(1024, 151936), 0.0),
        "mixed_op (8, 1048576)": (4 * 9 * elements, mixed_op(8, elements), 0.0),
        "mixed_op (8, 1048576), backward": (4 * 17 * elements, mixed_op_backward(8, elements), START),
    }


def predicted(size: float, kernel: tuple[float, int, int], more: float) -> list[float]:
    """Return the least and the greatest predicted µs."""
    instructions, blocks, barriers = kernel
    issued = instructions / (min(blocks, PROCESSORS) * ISSUED)
    return [max(size / BANDWIDTH, issued / share) + barriers * BARRIER + more + START for share in SLOTS]


def cuda_predictions() -> str:
    lines = []
    for name, (size, kernel, more) in estimates().items():
        instructions, blocks, barriers = kernel
        moved, issued = size / BANDWIDTH, instructions / (min(blocks, PROCESSORS) * ISSUED)
        times = predicted(size, kernel, more)
        read = READ.get(name)
        lines.append(
            [
                f"`{name.replace(' ', '` ', 1)}",
                f"{moved:.1f}",
                f"{issued:.1f}",
                str(barriers),
                f"{more:.1f}" if more else "–",
                span(times) if times[0] >= 10 else " to ".join(f"{t:.1f}" for t in dict.fromkeys(times)),
                f"{read:g}" if read else "–",
                percent(moved / (read or times[1])),
            ]
        )
    header = "op, shape | bytes, µs | instructions, µs | barriers | other, µs | predicted, µs | read, µs | share"
    return table(header, lines)
