"""Limits for rendering a template."""

from tftpd.access.policy import RenderLimits


def test_unless_told_otherwise_a_template_makes_a_mebibyte_in_two_seconds():
    assert RenderLimits() == RenderLimits(size=1024 * 1024, seconds=2.0)
