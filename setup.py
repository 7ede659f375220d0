"""The optional C extension; setup.cfg has everything else."""

import os
import sysconfig

from setuptools import Extension, setup

# A free-threaded Python has no such ABI: the extension does not compile there, and bdist_wheel
# refuses the tag.
HAS_STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "tftpd.dataplane._native",
            ["tftpd/dataplane/_native.c"],
            extra_compile_args=[
                *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"),
                f"-ffile-prefix-map={os.getcwd()}=.",  # the same bytes from any directory
            ],
            py_limited_api=True,
            # Without a compiler, the data plane in Python is used, unless C is selected.
            optional=os.environ.get("TFTPD_DATAPLANE") != "C",
        )
    ],
    # One wheel for each architecture.
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if HAS_STABLE_ABI else {},
)
