"""Mutants that are explained, and those that are not."""

import pytest

from tests.mutation.__main__ import FLOORS, unexplained
from tests.mutation.known import known, mutant, read


def test_a_mutant_is_known_by_its_function_and_its_lines():
    lines = ["-        return 1", "+        return 2 "]
    made = ("-return 1", "+return 2")
    assert mutant("tftpd.protocol.packets.x__decode__mutmut_2", lines) == (
        "tftpd.protocol.packets._decode",
        *made,
    )
    assert mutant("tftpd.protocol.packets.xǁAckǁ__init____mutmut_12", lines) == (
        "tftpd.protocol.packets.Ack.__init__",
        *made,
    )


def test_a_reason_is_for_all_that_follow_it():
    text = "# both\n# alike\n\na.f\n-  1\n+  2\n\na.g\n-  1\n\n# another\n\na.h\n"
    assert read(text) == {
        ("a.f", "-1", "+2"): "both alike",
        ("a.g", "-1"): "both alike",
        ("a.h",): "another",
    }


@pytest.mark.parametrize("floor", FLOORS)
def test_each_mutant_that_is_explained_has_a_reason(floor):
    for function, *lines in (reasons := known(floor)):
        assert function.startswith("tftpd.")
        assert {line[0] for line in lines} in ({"-"}, {"-", "+"})
    assert all(reasons.values())


def test_what_no_test_was_asked_about_is_not_explained(tmp_path, capsys):
    found = {
        "tftpd.protocol.block_numbers.x_f__mutmut_1": "killed",
        "tftpd.protocol.block_numbers.x_f__mutmut_2": "timed out",
        "tftpd.protocol.block_numbers.x_f__mutmut_3": "no test",
        "tftpd.protocol.block_numbers.x_f__mutmut_4": "not run",
    }
    assert unexplained("protocol", tmp_path, found) == 2
    assert (
        "# tftpd.protocol.block_numbers.x_f__mutmut_3: no test\n\ntftpd.protocol.block_numbers.f\n"
        in (capsys.readouterr().out)
    )
