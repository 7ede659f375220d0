"""Netascii in one chunk and in many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.protocol.netascii import NetasciiDecoder, encode_netascii

texts = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\r\n", b"\r\0"])).map(b"".join)


@pytest.mark.parametrize(
    ("local", "wire"),
    [
        (b"", b""),
        (b"plain", b"plain"),
        (b"one\ntwo\n", b"one\r\ntwo\r\n"),
        (b"a\rb", b"a\r\0b"),
        (b"a\r\nb", b"a\r\0\r\nb"),
        (b"\0", b"\0"),
    ],
)
def test_line_ends_are_translated_in_both_directions(local, wire):
    assert encode_netascii(local) == wire
    assert NetasciiDecoder().decode(wire, final=True) == local


@pytest.mark.parametrize(
    ("wire", "local"),
    [(b"a\rb", b"a\rb"), (b"a\r", b"a\r"), (b"a\nb", b"a\nb"), (b"\r\r\n", b"\r\n")],
)
def test_invalid_netascii_is_kept(wire, local):
    assert NetasciiDecoder().decode(wire, final=True) == local


@given(texts | st.binary())
def test_decoding_returns_the_encoded_bytes(text):
    assert NetasciiDecoder().decode(encode_netascii(text), final=True) == text


@given(st.lists(texts))
def test_chunks_are_encoded_like_the_whole_text(chunks):
    assert b"".join(map(encode_netascii, chunks)) == encode_netascii(b"".join(chunks))


@given(st.lists(texts))
def test_chunks_are_decoded_like_the_whole_text(chunks):
    decoder = NetasciiDecoder()
    parts = [decoder.decode(chunk) for chunk in chunks]
    parts.append(decoder.decode(b"", final=True))
    assert b"".join(parts) == NetasciiDecoder().decode(b"".join(chunks), final=True)
