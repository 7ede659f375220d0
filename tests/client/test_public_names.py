"""The public names of the library `tftpd.client`."""

import pytest

import tftpd.client


@pytest.mark.parametrize("name", tftpd.client.__all__)
def test_a_public_name_can_be_imported(name):
    assert getattr(tftpd.client, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'download'"):
        _ = tftpd.client.download
