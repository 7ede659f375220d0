"""Import all modules of packages: `python -m tests.portability.import_packages tftpd.net`."""

import importlib
import pkgutil
import sys

# `tftpd.dataplane._native` is optional; `__main__` would run.
OPTIONAL = ("_native", "__main__")

for package in map(importlib.import_module, sys.argv[1:]):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(OPTIONAL):
            importlib.import_module(module.name)
            print(module.name)
