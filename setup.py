"""The compiled part of the package; all else stands in pyproject.toml."""

import glob

from setuptools import Extension, setup

# Without a C compiler with OpenMP the package installs all the same, and trains by torch's own functions.
kernels = Extension(
    "cifar_mlflow.learning.compiled._kernels",
    sources=["cifar_mlflow/learning/compiled/csrc/kernels.c"],
    depends=sorted(glob.glob("cifar_mlflow/learning/compiled/csrc/*.inc")),
    libraries=["m"],
    extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
    extra_link_args=["-fopenmp"],
    optional=True,
)

setup(ext_modules=[kernels])
