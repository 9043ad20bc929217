"""Parse the output of `ptxas -v`, tabulate the resource usage of kernels, and check it. Standard library only."""

import dataclasses
import re
import subprocess

MOST_REGISTERS = 128
DTYPES = r"\b(double|float|bfloat16|float16)\b"


@dataclasses.dataclass
class Function:
    """A kernel or a device function that was not inlined, compiled for one architecture.

    ptxas reports no registers for device functions.
    """

    symbol: str
    arch: str
    is_kernel: bool
    name: str = ""  # name in the source for kernels, demangled signature for other functions
    dtype: str = ""  # storage type, "" if the template arguments name none
    registers: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    stack: int = 0
    shared: int = 0  # bytes, static


def demangle(symbols):
    """Demangle symbols with c++filt, which is part of binutils."""
    text = "\n".join(symbols)
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout.splitlines()


def name_and_dtype(signature):
    """Return the name and first dtype argument: ("forward", "float") for "void ns::forward<float, 4>(float const*)"."""
    head = re.match(r"(?:void )?([\w:]+)(<.*)?", signature.replace("(anonymous namespace)::", ""))
    dtype = re.search(DTYPES, head.group(2) or "")
    return head.group(1).split("::")[-1], dtype.group(1) if dtype else ""


def parse(log):
    """Return the functions in the output of a build with -Xptxas -v; other lines are ignored."""
    functions, arch, current, kernel = [], "", None, None
    for line in log.splitlines():
        if found := re.search(r"ptxas info\s*: Compiling entry function '(\S+)' for '(\S+)'", line):
            arch = found.group(2)
            kernel = Function(found.group(1), arch, is_kernel=True)
            functions.append(kernel)
        elif found := re.search(r"ptxas info\s*: Function properties for (\S+)", line):
            current = kernel
            if kernel is None or found.group(1) != kernel.symbol:
                current = Function(found.group(1), arch, is_kernel=False)
                functions.append(current)
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            current.stack, current.spill_stores, current.spill_loads = map(int, found.groups())
        elif found := re.search(r"ptxas info\s*: Used (\d+) registers(.*)", line):
            kernel.registers = int(found.group(1))
            shared = re.search(r"(\d+) bytes smem", found.group(2))
            kernel.shared = int(shared.group(1)) if shared else 0
    signatures = demangle([function.symbol for function in functions]) if functions else []
    for function, signature in zip(functions, signatures, strict=True):
        function.name, function.dtype = name_and_dtype(signature) if function.is_kernel else (signature, "")
    return functions


def kernel_names(source):
    """Return the names of the `__global__` functions in C++ source text."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL)
    bounds = r"(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
    return re.findall(rf"__global__\s+{bounds}void\s+{bounds}(\w+)\s*\(", code)


def problems(functions, expected, archs):
    """Return the violations of the rules, one line each.

    Args:
        expected: names of the kernels that must be compiled for each architecture.
    """
    kernels = [function for function in functions if function.is_kernel]
    lines = [] if kernels else ["no kernel was compiled"]
    for arch in archs:
        missing = sorted(set(expected) - {function.name for function in kernels if function.arch == arch})
        lines += [f"{name}: not compiled for {arch}" for name in missing]
    for function in functions:
        what = " ".join(filter(None, (function.name, function.dtype, function.arch)))
        if function.spill_stores or function.spill_loads:
            lines.append(f"{what}: spills, {function.spill_stores} bytes stored and {function.spill_loads} loaded")
        if function.stack and "backward" not in function.name:
            lines.append(f"{what}: a stack frame of {function.stack} bytes")
        if function.registers > MOST_REGISTERS:
            lines.append(f"{what}: {function.registers} registers, more than {MOST_REGISTERS}")
    return lines


def table(functions, archs):
    """Return one row per kernel and dtype, with the maxima over its instances for each architecture.

    Returns:
        [{"kernel": ..., "dtype": ..., "sm_80": {"instances": ..., "registers": ..., ...}}, ...]
    """
    groups = {}
    for function in functions:
        if function.is_kernel:
            groups.setdefault((function.name, function.dtype), []).append(function)
    fields = ("registers", "spill_stores", "spill_loads", "stack", "shared")
    rows = []
    for (kernel, dtype), instances in sorted(groups.items()):
        row = {"kernel": kernel, "dtype": dtype}
        for arch in archs:
            here = [function for function in instances if function.arch == arch]
            worst = {field: max((getattr(f, field) for f in here), default=None) for field in fields}
            row[arch] = {"instances": len(here), **worst}
        rows.append(row)
    return rows


def table_text(rows, archs):
    """Format the table as text, with the numbers of the architectures side by side."""
    titles = ("kernel", "dtype", "instances", "registers", "spill stores", "spill loads", "stack", "shared")
    keys = ("instances", "registers", "spill_stores", "spill_loads", "stack", "shared")
    lines = [titles]
    for row in rows:
        numbers = ["/".join("-" if (n := row[arch][key]) is None else str(n) for arch in archs) for key in keys]
        lines.append((row["kernel"], row["dtype"], *numbers))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"Worst instance of each kernel, {'/'.join(archs)}; bytes except registers", *text])
