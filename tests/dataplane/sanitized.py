"""Plugin of pytest: load the data plane in C from the file that `TFTPD_SANITIZED` names."""

import importlib.util
import os
import sys

_NAME = "tftpd.dataplane._native"

_spec = importlib.util.spec_from_file_location(_NAME, os.environ["TFTPD_SANITIZED"])
sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[_NAME])
