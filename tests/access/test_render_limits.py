"""Limits for rendering a template."""

from tftpd.access.policy import RenderLimits


def test_the_default_limits_are_1_mib_and_2_seconds():
    assert RenderLimits() == RenderLimits(size=1024 * 1024, seconds=2.0)
