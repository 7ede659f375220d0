"""Every target with its corpus, with what was found once, and with some thousand mutations."""

import pytest

from fuzz.mutation import corpus, findings, mutations
from fuzz.running import CORPUS, FINDINGS
from fuzz.targets import LONGEST, NAMES, check_of

_SIZE = 300 << 10  # octets of all corpora

# Together some thousands, in seconds: a file is stored in some, and a page made in others.
_COUNTS = {"server": 400, "config": 300, "importing": 300, "status": 100, "templates": 300}
_COUNT = 500

FOUND = [path for target in NAMES for path in findings(target)]


@pytest.mark.parametrize("target", NAMES)
def test_what_is_in_the_corpus_holds(target):
    check, files = check_of(target), corpus(target)
    assert files, "a target without a corpus"
    for path in files:
        check(path.read_bytes())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_mended(path):
    check_of(path.parent.name)(path.read_bytes())


@pytest.mark.parametrize("target", NAMES)
def test_mutations_of_the_corpus_hold(target):
    check = check_of(target)
    for octets in mutations(target, _COUNTS.get(target, _COUNT), seed=1):
        try:
            check(octets)
        except Exception as error:
            error.add_note(f"the input: bytes.fromhex('{octets.hex()}')")
            raise


def test_a_corpus_is_small():
    files = [path for target in NAMES for path in corpus(target)]
    assert sum(path.stat().st_size for path in files) < _SIZE
    assert all(path.stat().st_size <= LONGEST[path.parent.name] for path in files)


def test_corpora_and_findings_belong_to_targets():
    places = [path.name for root in (CORPUS, FINDINGS) for path in root.iterdir() if path.is_dir()]
    assert set(places) <= set(NAMES)
