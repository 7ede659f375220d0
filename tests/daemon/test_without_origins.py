"""A daemon without `origins` loads nothing of what only origins need."""

import re
import signal

import pytest

from tests.support.daemons import answers, daemon, until


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_no_library_for_origins_is_imported(tmp_path, workers):
    def list_imports(log):
        return {"PYTHONPROFILEIMPORTTIME": "1"}

    with daemon(tmp_path, lambda: None, list_imports, workers=workers) as running:
        until(lambda: answers(running.port))
        running.stop(signal.SIGTERM)
        imported = set(re.findall(r"\| +([\w.]+)$", running.log.read_text(), re.MULTILINE))
    assert {"tftpd.daemon.service", "tftpd.config.origins", "twisted.internet"} <= imported
    libraries = {name for name in imported if name.partition(".")[0] in ("obstore", "urllib3")}
    assert libraries == set()
