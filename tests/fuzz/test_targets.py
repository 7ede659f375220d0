"""A fault that is planted is found: each target asks what it says it asks."""

import os
from dataclasses import replace

import pytest

from fuzz.mutation import corpus, findings, mutations
from fuzz.targets import check_of
from tftpd.access import fallbacks, paths, profiles
from tftpd.access.mounts import Mounts
from tftpd.access.policy import Symlinks
from tftpd.config import loader, yaml_document
from tftpd.daemon import import_map
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.protocol import negotiation, netascii, packets
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.request import RequestMachine
from tftpd.server import packet_capture
from tftpd.server.listener import Listener
from tftpd.status import boots
from tftpd.storage.source import FileSource
from tftpd.storage.upload import Upload
from tftpd.templates import process, protocol, sandbox

_MOST = 3000


def _finds(target):
    """Whether the corpus, what was found, or mutations fail; by which exception."""
    check = check_of(target)
    files = [path.read_bytes() for path in (*corpus(target), *findings(target))]
    for octets in (*files, *mutations(target, _MOST, seed=1)):
        try:
            check(octets)
        except Exception:
            return True
    return False


def _plant(monkeypatch, owner, name, fault):
    """Have `name` of `owner` be what `fault` makes of it."""
    monkeypatch.setattr(owner, name, fault(getattr(owner, name)))


FAULTS = {
    "a decoder that lets another exception out": (
        "codec",
        packets,
        "_decode_options",
        lambda was: lambda fields: was(fields) if fields[:1] != [b"tsize"] else fields[99],
    ),
    "an ERROR whose message keeps its NUL": (
        "codec",
        packets.ErrorPacket,
        "encode",
        lambda was: lambda self: was(self)[:-1] + b"x\0",
    ),
    "a decoder that forgets a CR": (
        "netascii",
        netascii.Decoder,
        "decode",
        lambda was: lambda self, chunk, final=False: was(self, chunk, True),
    ),
    "a blksize above what was asked": (
        "options",
        negotiation._Negotiation,
        "terms",
        lambda was: lambda self: _larger(was(self)),
    ),
    "a step that is two": (
        "names",
        paths,
        "SELF",
        lambda was: b"",
    ),
    "a name whose escape characters are shown": (
        "names",
        paths,
        "_escaped",
        lambda was: lambda character: character,
    ),
    "a ladder without an end": (
        "names",
        fallbacks,
        "MOST_NAMES",
        lambda was: 10_000,
    ),
    "a .. that leaves its mount": (
        "names",
        Mounts,
        "locate",
        lambda was: lambda self, filename: was(self, filename.replace(b"..", b"x")),
    ),
    "an option that may be missing and is not": (
        "profiles",
        profiles,
        "_option",
        lambda was: lambda text: was(text.removesuffix("?")),
    ),
    "a key given twice whose line is lost": (
        "config",
        yaml_document.Document,
        "line",
        lambda was: lambda self, path: 0,
    ),
    "a root with a NUL that is asked for": (
        "config",
        loader,
        "_resolved",
        lambda was: lambda entry, key, base: os.path.realpath(os.path.join(base, entry[key])),
    ),
    "a quote that is not doubled": (
        "importing",
        import_map,
        "_quoted",
        lambda was: lambda text: "'" + text + "'",
    ),
    "a capture that is too large": (
        "pcap",
        packet_capture.PcapWriter,
        "_append",
        lambda was: lambda self, octets: was(self, octets + b"\0" * 4),
    ),
    "a page that fails for a name": (
        "status",
        boots,
        "short",
        lambda was: lambda name: name.decode(),
    ),
    "a listener that answers what is no request": (
        "server",
        Listener,
        "_receive",
        lambda was: (
            lambda self, datagram, peer: (
                self.transport.write(b"\0\5\0\4\0", peer)
                if datagram[:1] != b"\0"
                else was(self, datagram, peer)
            )
        ),
    ),
    "a session that leaves its file open": (
        "server",
        SendSession,
        "_close_file",
        lambda was: lambda self: None,
    ),
    "a session that leaves its port open": (
        "server",
        Session,
        "_end",
        lambda was: lambda self: None,
    ),
    "an upload that is never discarded": (
        "server",
        Upload,
        "discard",
        lambda was: lambda self: None,
    ),
    "an ACK before the file is stored": (
        "server",
        Receiver,
        "_accept",
        lambda was: lambda self, payload, now: (was(self, payload, now), self._accepted())[0],
    ),
    "a first packet without end": (
        "server",
        TransferMachine,
        "_worthwhile",
        lambda was: lambda self, now: self._patient(now),
    ),
    "a block of other octets": (
        "server",
        FileSource,
        "read",
        lambda was: (
            lambda self, buffers, offset, blocking: (
                was(self, buffers, offset, blocking),
                _spoil(buffers[0]),
            )[0]
        ),
    ),
    "a sandbox that gives what begins with an underscore": (
        "templates",
        sandbox._Environment,
        "is_safe_attribute",
        lambda was: lambda self, obj, attr, value: True,
    ),
    "a sandbox in which lists may be changed": (
        "templates",
        sandbox._Environment,
        "is_safe_attribute",
        lambda was: lambda self, obj, attr, value: not attr.startswith("_"),
    ),
    "a part by a link that leads out": (
        "templates",
        sandbox,
        "replace",
        lambda was: lambda grant, name: was(grant, name=name, symlinks=Symlinks.FOLLOW),
    ),
    "a file that is larger than it may be": (
        "templates",
        sandbox,
        "_join",
        lambda was: lambda pieces, size: was(pieces, 1 << 20),
    ),
    "a refusal that nobody trims": (
        "messages",
        protocol,
        "printable_text",
        lambda was: lambda text, max_chars: text,
    ),
    "a refusal in the words of who refuses": (
        "messages",
        process,
        "decode_refusal",
        lambda was: lambda body: RequestRefused(ErrorCode.NOT_DEFINED, "", body.decode("latin-1")),
    ),
    "a message of any length": (
        "messages",
        process,
        "receive_message",
        lambda was: lambda read_exactly, max_size: was(read_exactly, 1 << 32),
    ),
    "a job of which a part is lost": (
        "messages",
        protocol.RenderJob,
        "encode",
        lambda was: lambda self: was(replace(self, grant=replace(self.grant, own=0))),
    ),
    "a client that takes the blocks of strangers": (
        "client",
        Session,
        "_reply_to_unknown_tid",
        lambda was: lambda self, datagram, peer: self.datagramReceived(datagram, self.peer),
    ),
    "a client that believes any OACK": (
        "client",
        RequestMachine,
        "_agreed",
        lambda was: lambda self, oack: 1 // 0,
    ),
}


def _spoil(octets):
    octets[0] ^= 1


def _larger(agreed):
    oack = [(n, b"65464" if n == b"blksize" else v) for n, v in agreed.oack]
    return replace(agreed, oack=tuple(oack))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, monkeypatch):
    target, owner, name, plant = FAULTS[fault]
    if fault == "an ACK before the file is stored":

        def accepted(self):
            self._due = self._due or self.complete

        monkeypatch.setattr(Receiver, "_accepted", accepted, raising=False)
    _plant(monkeypatch, owner, name, plant)
    assert _finds(target)
