"""The optional C extension; setup.cfg has everything else."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "tftpd.dataplane._native",
            ["tftpd/dataplane/_native.c"],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
            py_limited_api=True,
            optional=True,  # without a compiler, the data plane in Python is used
        )
    ]
)
