"""Compile mix.cpp against the stable interface of torch: one library for torch ≥ 2.10 and Python ≥ 3.10."""

import setuptools
from torch.utils.cpp_extension import BuildExtension, CppExtension

library = CppExtension(
    "sparse_mix._mix",
    ["mix.cpp"],
    extra_compile_args=["-O2", "-DTORCH_TARGET_VERSION=0x020a000000000000"],
    py_limited_api=True,
)
setuptools.setup(
    ext_modules=[library],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
