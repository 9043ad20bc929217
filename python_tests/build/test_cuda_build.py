"""tools/ptxas.py, sass.py and cuda_build.py: the compiler's output is parsed, and violated rules are found."""

from __future__ import annotations

import json
import pathlib
import shutil

import cuda_build
import ptxas
import pytest
import sass

needs_demangler = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt")

# Lines of nvcc 13.0.
CLEAN = """\
[3/16] /usr/local/cuda/bin/nvcc -O3 -c probe_cuda.cu
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function \
'_ZN10automl_ext46_GLOBAL__N__1ef455f0_13_probe_cuda_cu_4c26d80513probe_forwardIddLi4EEEvPKT_PS2_l' for 'sm_80'
ptxas info    : Function properties for \
_ZN10automl_ext46_GLOBAL__N__1ef455f0_13_probe_cuda_cu_4c26d80513probe_forwardIddLi4EEEvPKT_PS2_l
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 2048 bytes smem, 376 bytes cmem[0], 88 bytes cmem[2]
ptxas info    : Compile time = 3.019 ms
ptxas info    : Compiling entry function \
'_ZN10automl_ext46_GLOBAL__N__1ef455f0_13_probe_cuda_cu_4c26d80513probe_forwardIddLi2EEEvPKT_PS2_l' for 'sm_80'
ptxas info    : Function properties for \
_ZN10automl_ext46_GLOBAL__N__1ef455f0_13_probe_cuda_cu_4c26d80513probe_forwardIddLi2EEEvPKT_PS2_l
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 26 registers, used 1 barriers, 376 bytes cmem[0], 88 bytes cmem[2]
ptxas info    : Compile time = 2.782 ms
"""
SPILLS = """\
ptxas info    : 272 bytes gmem
ptxas info    : Compiling entry function \
'_ZN36_GLOBAL__N__f54c8c69_4_s_cu_9f85044613spill_forwardIdLi64EEEvPKT_PS1_' for 'sm_90'
ptxas info    : Function properties for _ZN36_GLOBAL__N__f54c8c69_4_s_cu_9f85044613spill_forwardIdLi64EEEvPKT_PS1_
    1328 bytes stack frame, 1396 bytes spill stores, 1516 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 1328 bytes cumulative stack size
ptxas info    : Compile time = 112.654 ms
ptxas info    : Compiling entry function '_Z14plain_backwardPKfPfi' for 'sm_90'
ptxas info    : Function properties for _Z14plain_backwardPKfPfi
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers, used 0 barriers, 256 bytes cumulative stack size
ptxas info    : Compile time = 23.159 ms
ptxas info    : Function properties for _Z4slowIfET_PKS0_i
    0 bytes stack frame, 8 bytes spill stores, 0 bytes spill loads
"""
SLOW = "float slow<float>(float const*, int)"


@needs_demangler
def test_parse() -> None:
    four, two, spill, plain, slow = ptxas.parse(CLEAN + SPILLS)
    assert (four.name, four.dtype, four.arch, four.is_kernel) == ("probe_forward", "double", "sm_80", True)
    assert (four.registers, four.shared, four.stack, four.spill_stores, four.spill_loads) == (24, 2048, 0, 0, 0)
    assert (two.registers, two.shared) == (26, 0)
    assert (spill.name, spill.dtype, spill.arch) == ("spill_forward", "double", "sm_90")
    assert (spill.registers, spill.stack, spill.spill_stores, spill.spill_loads) == (32, 1328, 1396, 1516)
    assert (plain.name, plain.dtype, plain.registers, plain.stack) == ("plain_backward", "", 31, 256)
    assert (slow.name, slow.is_kernel, slow.registers, slow.spill_stores) == (SLOW, False, 0, 8)
    assert ptxas.parse("ninja: no work to do.\n") == []


@needs_demangler
def test_problems() -> None:
    assert ptxas.problems(ptxas.parse(CLEAN), ["probe_forward"], ["sm_80"]) == []
    assert ptxas.problems(ptxas.parse(CLEAN), ["probe_forward", "other"], ["sm_80", "sm_90"]) == [
        "other: not compiled for sm_80",
        "other: not compiled for sm_90",
        "probe_forward: not compiled for sm_90",
    ]
    assert ptxas.problems(ptxas.parse(SPILLS), [], ["sm_90"]) == [
        "spill_forward double sm_90: spills, 1396 bytes stored and 1516 loaded",
        "spill_forward double sm_90: a stack frame of 1328 bytes",
        f"{SLOW} sm_90: spills, 8 bytes stored and 0 loaded",
    ]
    many = CLEAN.replace("Used 24", "Used 128").replace("Used 26", "Used 129")
    assert ptxas.problems(ptxas.parse(many), [], ["sm_80"]) == [
        "probe_forward double sm_80: 129 registers, more than 128"
    ]
    assert ptxas.problems([], [], ["sm_80"]) == ["no kernel was compiled"]


@needs_demangler
def test_table_has_the_worst_instance() -> None:
    archs = ["sm_80", "sm_90"]
    rows = ptxas.table(ptxas.parse(CLEAN + SPILLS), archs)
    assert [(row["kernel"], row["dtype"]) for row in rows] == [
        ("plain_backward", ""),
        ("probe_forward", "double"),
        ("spill_forward", "double"),
    ]
    assert rows[1]["sm_80"] == {
        "instances": 2,
        "registers": 26,
        "spill_stores": 0,
        "spill_loads": 0,
        "stack": 0,
        "shared": 2048,
    }
    assert rows[1]["sm_90"]["instances"] == 0
    text = ptxas.table_text(rows, archs).splitlines()
    assert text[3].split() == ["probe_forward", "double", "2/0", "26/-", "0/-", "0/-", "0/-", "2048/-"]


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("void automl_ext::(anonymous namespace)::rows<automl_ext::bfloat16, float, 4>(int)", ("rows", "bfloat16")),
        ("void automl_ext::rows<(int)4, true, automl_ext::float16>(float const*)", ("rows", "float16")),
        ("void ns::_GLOBAL__N__1::wide<(bool)1, double>(float const*)", ("wide", "double")),
        ("plain(float const*, double)", ("plain", "")),
        ("__internal_trig_reduction_slowpathd", ("__internal_trig_reduction_slowpathd", "")),
    ],
)
def test_name_and_dtype(signature: str, expected: tuple[str, str]) -> None:
    assert ptxas.name_and_dtype(signature) == expected


def test_kernel_names() -> None:
    source = """
    // `__global__ void commented()` and __global__ functions
    /* __global__ void also(int) */
    template <typename T> __global__ void first(const T* x) {}
    template <typename T>
    static __global__ void __launch_bounds__(kThreads * (2)) second(const T* x) {}
    __global__ __launch_bounds__(256, 2)
    void third (int n);
    void host(int n);
    """
    assert ptxas.kernel_names(source) == ["first", "second", "third"]


def machine_code(*loop: str, dtype: str = "f", arch: str = "sm_90") -> str:
    """Return the output of cuobjdump for a kernel gumbel_long_rows<true, dtype> with a loop of these instructions."""
    lines = ["LDC R1, c[0x0][0x28]", *loop, "@P0 BRA 0x10", "EXIT", f"BRA {(len(loop) + 3) * 16:#x}", "NOP"]
    code = [f"        /*{16 * i:04x}*/    {line} ;   /* 0x00000a00ff017b82 */" for i, line in enumerate(lines)]
    return "\n".join([f"\tcode for {arch}", f"\t\tFunction : _Z16gumbel_long_rowsILb1E{dtype}EvPKT0_PS0_", *code])


PACKED = ("LDG.E.128 R4, desc[UR4][R2.64]", "FADD R4, R4, R5", "STG.E.128 desc[UR4][R6.64], R4")


@needs_demangler
def test_machine_code() -> None:
    (kernel,) = sass.parse(machine_code(*PACKED))
    assert (kernel.name, kernel.instance, kernel.dtype) == (
        "gumbel_long_rows",
        "gumbel_long_rows<true, float>",
        "float",
    )
    assert (kernel.arch, kernel.instructions, len(kernel.loops)) == ("sm_90", 7, 1)
    assert kernel.loops[0].instructions == 4
    assert kernel.per_element() == 1.0
    assert sass.problems([kernel]) == []
    assert sass.figures([kernel]) == {"gumbel_long_rows": {"float": {"sm_90": [7, 1.0]}}}
    assert sass.instances([kernel]) == {"gumbel_long_rows<true, float>": [7, [[4, 4]]]}


@needs_demangler
@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        (
            ("LDG.E R8, desc[UR4][R2.64+0x10]", "LDG.E R9, [R2.64+0x14]"),
            "LDG of 32 bits at offsets 16 and 20, not of 128",
        ),
        (("STG.E.U16 [R2.64], R8", "STG.E.U16 [R2.64+0x20], R8"), "STG of 16 bits at offsets 0 and 32, not of 128"),
        (("LDG.E R8, [R2.64]", "LDG.E R9, [R2.64+0x80]"), None),  # a warp apart
        (("LDG.E R8, [R2.64]", "LDG.E R9, [R10.64]"), None),
        (("F2F.F64.F32 R8, R4", "DADD R10, R10, R8"), "2 FP64 instructions (F2F.F64.F32) in an inner loop"),
        (("@!P1 DFMA R10, R10, R8, R12",), "1 FP64 instructions (DFMA) in an inner loop"),
    ],
)
def test_rules_of_inner_loops(instructions: tuple[str, ...], problem: str | None) -> None:
    where = "gumbel_long_rows<true, float> sm_90"
    expected = [f"{where}: {problem}"] if problem else []
    assert sass.problems(sass.parse(machine_code(*PACKED, *instructions))) == expected
    # In an outer loop and outside loops there are no rules.
    outer = machine_code("FADD R1, R1, R2", "@P1 BRA 0x10", *PACKED, *instructions)
    assert sass.problems(sass.parse(outer)) == []


@needs_demangler
def test_double_may_use_fp64_and_needs_packs() -> None:
    kernels = sass.parse(machine_code("DADD R10, R10, R8", dtype="d", arch="sm_100"))
    assert sass.problems(kernels) == ["gumbel_long_rows<true, double> sm_100: no 16-byte load or no 16-byte store"]


def test_rises_of_instructions() -> None:
    def figures(*numbers: float) -> dict:
        return {"rows": {"float": {"sm_90": list(numbers)}}}

    old = figures(1000, 10.0)
    assert sass.rises(figures(1050, 10.5), old) == []
    assert sass.rises({}, old) == []
    assert sass.rises(figures(1051, 10.6), old) == [
        "rows float sm_90: instructions rose from 1000 to 1051",
        "rows float sm_90: instructions per element rose from 10.0 to 10.6",
    ]
    instances = {"rows<float>": [1000, [[40, 4]]]}
    recorded = json.loads(sass.text(old | {"other": {"": {"sm_80": [1, 0]}}}, instances))
    assert recorded["kernels"]["rows"] == old["rows"]
    assert recorded["instances"] == instances


def test_requirements_of_the_tests() -> None:
    requires = """torch<2.12,>=2.11
numpy>=1.24

[plot]
matplotlib>=3.7

[test]
automl_ext[data,plot,tensorboard,toml]
pytest>=8
pytest-xdist>=3.5
mypy>=1.10

[toml]

[toml:python_version < "3.11"]
tomli>=2

[:sys_platform == "win32"]
colorama
"""
    assert cuda_build.test_requirements(requires) == [
        "numpy>=1.24",
        "pytest>=8",
        "pytest-xdist>=3.5",
        'colorama; sys_platform == "win32"',
    ]


def test_exported_sources(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, copy = tmp_path / "checkout", tmp_path / "cuda/src"
    copy.mkdir(parents=True)
    for name in ("kept.cpp", "new.cpp", "ignored.so", ".gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("*.so\n" if name == ".gitignore" else name)
    for name, value in {"ROOT": root, "HOME": copy.parent, "SOURCE": copy}.items():
        monkeypatch.setattr(cuda_build, name, value)
    cuda_build.run("git", "init", "--quiet", root)
    cuda_build.export_sources()
    assert sorted(path.name for path in copy.iterdir()) == [".gitignore", "kept.cpp", "new.cpp"]
    (copy / "built.o").touch()
    before = (copy / "kept.cpp").stat().st_mtime_ns
    (root / "new.cpp").unlink()
    (root / ".gitignore").write_text("*.so\n*.o\n")
    cuda_build.export_sources()
    assert sorted(path.name for path in copy.iterdir()) == [".gitignore", "built.o", "kept.cpp"]
    assert (copy / ".gitignore").read_text() == "*.so\n*.o\n"
    assert (copy / "kept.cpp").stat().st_mtime_ns == before
