"""The data plane in C with AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import subprocess
import sys
import sysconfig

import pytest

from tests.support.count_lines import CHECKOUT
from tests.support.programs import program

SOURCE = CHECKOUT / "tftpd/dataplane/_native.c"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
TESTS = ("tests/dataplane/test_planes.py", "tests/net/test_loans.py")
FUZZ = """
import tests.dataplane.sanitized
from tests.fuzz import harness
check = harness.load_target("dataplane")
for data in harness.read_corpus("dataplane"):
    check(data)
for data in harness.mutations("dataplane", {count}, seed={seed}):
    check(data)
"""


def _run(directory, source, *arguments):
    """Build the extension from a source, and run Python with it."""
    gcc = program("gcc")
    library = subprocess.check_output([gcc, "-print-file-name=libasan.so"], text=True).strip()
    if not os.path.isabs(library):
        pytest.skip("gcc has no AddressSanitizer")
    (directory / "native.c").write_text(source)
    extension = directory / "_native.abi3.so"
    include = sysconfig.get_path("include")
    options = ("-shared", "-fPIC", "-g", "-O1", "-std=c11", "-D_GNU_SOURCE", f"-I{include}")
    output = ("native.c", "-o", extension)
    subprocess.run([gcc, *options, *SANITIZERS, *output], cwd=directory, check=True)
    environment = dict(
        os.environ,
        LD_PRELOAD=library,
        # Python itself leaves memory behind. pymalloc would hide what is freed.
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(CHECKOUT),
        TFTPD_SANITIZED=str(extension),
    )
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=900
    )
    return done.returncode, done.stdout[-4000:] + done.stderr[-4000:]


def _run_tests(directory, source, *arguments):
    plugins = ("-p", "tests.dataplane.sanitized", "-p", "no:cacheprovider", "--capture=no")
    return _run(directory, source, "-m", "pytest", "-q", *plugins, *arguments)


@pytest.mark.check
def test_the_tests_of_the_data_plane_find_no_invalid_access(tmp_path):
    status, output = _run_tests(tmp_path, SOURCE.read_text(), *TESTS, "-k", "not python")
    assert status == 0, output


@pytest.mark.check
def test_fuzzing_finds_no_invalid_access(tmp_path):
    status, output = _run(tmp_path, SOURCE.read_text(), "-c", FUZZ.format(count=1000, seed=1))
    assert status == 0, output


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_long_fuzzing_finds_no_invalid_access(tmp_path, seed):
    status, output = _run(tmp_path, SOURCE.read_text(), "-c", FUZZ.format(count=30_000, seed=seed))
    assert status == 0, output


@pytest.mark.check
def test_a_write_behind_the_buffer_is_found(tmp_path):
    fault = SOURCE.read_text().replace(" || loan->blocks == loan->slots)", ")")
    assert fault != SOURCE.read_text()
    test = ("tests/dataplane/test_planes.py", "-k", "full_buffer and C")
    status, output = _run_tests(tmp_path, fault, *test)
    assert status != 0
    assert "AddressSanitizer: heap-buffer-overflow" in output, output
