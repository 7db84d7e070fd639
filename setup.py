"""The compiled part of the package; all else stands in pyproject.toml."""

from setuptools import Extension, setup

# Without a C compiler with OpenMP the package installs all the same, and trains by torch's own functions.
kernels = Extension(
    "cifar_mlflow.learning._kernels",
    sources=["cifar_mlflow/learning/kernels.c"],
    depends=["cifar_mlflow/learning/blocks.inc", "cifar_mlflow/learning/convolutions.inc"],
    libraries=["m"],
    extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
    extra_link_args=["-fopenmp"],
    optional=True,
)

setup(ext_modules=[kernels])
