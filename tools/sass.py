"""Read the machine code of CUDA kernels (cuobjdump -sass) and check their inner loops. Standard library only.

An inner loop is the range of a backward branch that contains no other such range. Rules for inner loops:

- No pack is taken apart: a thread accesses adjacent elements of global memory by 16-byte instructions. Single elements
  are for rows whose length or address forbids packs. The threads of a warp, or of a short row, access them side by
  side, so that two accesses of one thread are at least as many elements apart.
- No FP64 instruction in kernels of float32 and half types.

SINGLE and EXCEPTIONS list kernels that may break the first and the second rule, with the reason.
"""

import dataclasses
import json
import re
import subprocess

from ptxas import demangle, name_and_dtype

SIZES = {"double": 8, "float": 4, "bfloat16": 2, "float16": 2}
FP64 = re.compile(r"F2F\.F64|F2F\.F\d+\.F64|D(?:ADD|MUL|FMA)\b")
# Kernels that read and write packs. Each instance has a 16-byte load and a 16-byte store.
IN_PACKS = re.compile(r"(entmax|gumbel|bisect)(_backward)?_(short|medium|long|huge)_rows|mixed_op_(forward|backward)")
SINGLE = {
    "gumbel_huge_parts": "a thread has the elements of its random numbers, in the order of the stream",
    "gumbel_huge_rows": "a thread reads fields of the summary of a part; rows are in packs",
    "short_rows<1>": "one thread per row of at most 8 elements, whose length forbids packs",
    "td_long_rows": "eight threads read whole sectors of a row, of any length",
}
EXCEPTIONS = {
    "scan": "converts the discount and λ, double arguments, in the loop over overflowed chunks",
    "carrying_scan": "as scan",
    "windows": "converts the discount, a double argument, in each step",
    "carrying_windows": "converts the discount, a double argument, in each step",
    "gumbel_huge_parts": "reads τ, perhaps a double, once for each part",
    "entmax_huge_thresholds": "ends a chain of additions every 16 elements",
    "gumbel_tau_gradient": "sums one double per block: little work",
    "mixed_op_weights_backward": "sums one double per tile and input: little work",
    "policy_loss": "converts the bounds of the clips, double arguments, for each element",
    "policy_loss_total": "sums three doubles per block: little work",
    "projection_short_rows": "atoms are computed in double, as on the CPU",
    "projection_long_rows": "atoms are computed in double, as on the CPU",
}
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?\s*(\S+)(.*?);")
MEMORY = re.compile(r"^(LDG|STG|LDS|STS)\b(\S*)")
ADDRESS = re.compile(r"\[(R\w+)?(?:\.\w+)*(?:\+?(UR\w+))?(?:\+?(-?0x[0-9a-f]+))?\]")


@dataclasses.dataclass
class Access:
    """An access of memory: the instruction, the registers of the address, the offset and the number of bytes."""

    op: str
    base: str
    offset: int
    size: int


@dataclasses.dataclass
class Loop:
    """An inner loop."""

    instructions: int
    accesses: list
    fp64: list

    def elements(self, size):
        """Return the elements that an iteration processes: 16-byte accesses through one address, times 16 / size.

        The elements of halves are floats in shared memory. 0: a loop without packs.
        """
        counts = {}
        for access in self.accesses:
            if access.size == 16:
                element = max(size, 4) if access.op in ("LDS", "STS") else size
                key = (access.op, access.base)
                counts[key] = counts.get(key, 0) + 16 // element
        return max(counts.values(), default=0)


@dataclasses.dataclass
class Kernel:
    """The machine code of a kernel for one architecture. `instance` is its name with template arguments."""

    arch: str
    symbol: str
    name: str = ""
    instance: str = ""
    dtype: str = ""
    instructions: int = 0
    wide: tuple = ()  # the kinds of 16-byte accesses of global memory
    loops: list = dataclasses.field(default_factory=list)

    def team(self):
        """Return (threads per row, elements per thread) of a kernel of rows in registers, else (0, 0)."""
        found = re.fullmatch(r"\w+_(?:short|medium)_rows<.*, (\d+), (\d+)>", self.instance)
        return tuple(map(int, found.groups())) if found else (0, 0)

    def may_be_single(self):
        return self.name in SINGLE or self.team()[0] == 1

    def is_in_packs(self):
        items, size = self.team()[1] or 16, SIZES.get(self.dtype, 4)
        return bool(IN_PACKS.fullmatch(self.name)) and items * size >= 16

    def per_element(self):
        """Return the instructions per element: all of a kernel of rows in registers, else those of loops over packs."""
        size = SIZES.get(self.dtype, 4)
        if items := self.team()[1]:
            return self.instructions / items
        counts = [(loop.instructions, loop.elements(size)) for loop in self.loops]
        return sum(instructions / elements for instructions, elements in counts if elements)


def access_of(opcode, operands):
    """Return the Access of an instruction, or None."""
    found = MEMORY.match(opcode)
    addresses = list(ADDRESS.finditer(operands))  # the last: a descriptor can precede it
    if not found or not addresses:
        return None
    address = addresses[-1]
    bits = re.search(r"\.(U?S?8|U?S?16|32|64|128)(?:\.|$)", found.group(2))
    size = int(re.sub(r"\D", "", bits.group(1))) // 8 if bits else 4
    base = " ".join(filter(None, address.group(1, 2)))
    return Access(found.group(1), base, int(address.group(3) or "0", 16), size)


def inner_loops(code):
    """Return the inner loops of [(address, opcode, operands)]."""
    addresses = [address for address, _, _ in code]
    ranges = []
    for address, opcode, operands in code:
        target = re.search(r"0x([0-9a-f]+)", operands) if opcode.split(".")[0] == "BRA" else None
        if target and int(target.group(1), 16) < address:
            ranges.append((int(target.group(1), 16), address))
    inner = [a for a in ranges if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in ranges)]
    loops = []
    for first, last in sorted(set(inner)):
        body = code[addresses.index(first) : addresses.index(last) + 1]
        accesses = [found for _, opcode, operands in body if (found := access_of(opcode, operands))]
        fp64 = [opcode for _, opcode, _ in body if FP64.match(opcode)]
        loops.append(Loop(len(body), accesses, fp64))
    return loops


def parse(text):
    """Return the kernels in the output of cuobjdump -sass."""
    kernels, code, arch = [], [], ""

    def finish():
        if kernels and code:
            kernel = kernels[-1]
            kernel.instructions = sum(opcode != "NOP" for _, opcode, _ in code)
            accesses = [access_of(opcode, operands) for _, opcode, operands in code]
            kernel.wide = tuple(sorted({a.op for a in accesses if a and a.size == 16 and a.op in ("LDG", "STG")}))
            kernel.loops = inner_loops(code)
        code.clear()

    for line in text.splitlines():
        if found := INSTRUCTION.match(line):
            code.append((int(found.group(1), 16), found.group(2), found.group(3)))
        elif found := re.search(r"^\s+code for (sm_\w+)", line):
            finish()
            arch = found.group(1)
        elif found := re.search(r"Function : (\S+)", line):
            finish()
            kernels.append(Kernel(arch, found.group(1)))
    finish()
    for kernel, signature in zip(kernels, demangle([k.symbol for k in kernels]) if kernels else [], strict=True):
        kernel.name, kernel.dtype = name_and_dtype(signature)
        found = re.search(rf"\b{kernel.name}(<.*?>)?\(", signature.replace("automl_ext::", ""))
        kernel.instance = kernel.name + (found.group(1) or "")
    return kernels


def disassemble(cuobjdump, path):
    """Return the machine code of an object file, of all architectures. nvdisasm must be next to cuobjdump."""
    return subprocess.run([cuobjdump, "-sass", path], check=True, capture_output=True, text=True).stdout


def taken_apart(loop, threads=32):
    """Return a pair of accesses of one thread that should be one 16-byte access, or None.

    Args:
        threads: number of threads that read single elements side by side.
    """
    narrow = [access for access in loop.accesses if access.op in ("LDG", "STG") and access.size < 16]
    for i, a in enumerate(narrow):
        for b in narrow[:i]:
            same = (a.op, a.base, a.size) == (b.op, b.base, b.size)
            if same and 0 < abs(a.offset - b.offset) < threads * a.size:
                return b, a
    return None


def problems(kernels):
    """Return the violations of the rules, one line each."""
    lines = []
    for kernel in kernels:
        where = f"{kernel.instance} {kernel.arch}"
        for loop in kernel.loops:
            if not kernel.may_be_single() and (pair := taken_apart(loop, kernel.team()[0] or 32)):
                a, b = pair
                lines.append(f"{where}: {a.op} of {8 * a.size} bits at offsets {a.offset} and {b.offset}, not of 128")
            if loop.fp64 and kernel.dtype != "double" and kernel.name not in EXCEPTIONS:
                lines.append(f"{where}: {len(loop.fp64)} FP64 instructions ({loop.fp64[0]}) in an inner loop")
        if kernel.is_in_packs() and kernel.wide != ("LDG", "STG"):
            lines.append(f"{where}: no 16-byte load or no 16-byte store")
    return lines


def figures(kernels):
    """Return {kernel: {dtype: {arch: [instructions of all instances, instructions per element of the worst]}}}."""
    result = {}
    for kernel in sorted(kernels, key=lambda k: (k.name, k.dtype, k.arch)):
        entry = result.setdefault(kernel.name, {}).setdefault(kernel.dtype, {}).setdefault(kernel.arch, [0, 0])
        entry[0] += kernel.instructions
        entry[1] = max(entry[1], round(kernel.per_element(), 1))
    return result


def instances(kernels):
    """Return {instance: [instructions, [[instructions, elements] of inner loops]]} for float32 on sm_90."""
    result = {}
    for kernel in sorted(kernels, key=lambda k: k.instance):
        if (kernel.dtype, kernel.arch) == ("float", "sm_90"):
            loops = [[loop.instructions, loop.elements(SIZES["float"])] for loop in kernel.loops]
            result[kernel.instance] = [kernel.instructions, loops]
    return result


def text(kernels, of_instances):
    """Return the figures and the instances as JSON, one line per kernel and dtype, and per instance."""
    lines = ['{"what": "instructions of all instances, instructions per element of the worst", "kernels": {']
    for name, dtypes in kernels.items():
        rows = [f"  {json.dumps(dtype)}: {json.dumps(archs)}" for dtype, archs in dtypes.items()]
        lines.append(
            f"{json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n}" + ("," if name != list(kernels)[-1] else "")
        )
    lines += ["},", '"what_instances": "instructions, [instructions, elements] of inner loops", "instances": {']
    lines.append(",\n".join(f"{json.dumps(name)}: {json.dumps(counts)}" for name, counts in of_instances.items()))
    return "\n".join([*lines, "}}"]) + "\n"


def rises(new, old, most=1.05):
    """Return the figures that rose by more than 5 % since the last run, one line each."""
    lines = []
    for name, dtypes in old.items():
        for dtype, archs in dtypes.items():
            for arch, before in archs.items():
                after = new.get(name, {}).get(dtype, {}).get(arch)
                for what, a, b in zip(("instructions", "instructions per element"), before, after or [], strict=False):
                    if b > most * a > 0:
                        lines.append(f"{name} {dtype} {arch}: {what} rose from {a} to {b}")
    return lines
