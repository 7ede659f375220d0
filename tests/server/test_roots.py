"""Several roots for one path, and roots per client, through the listener."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import SERIALS, Mount, Mounts, parse_root, parse_serials
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import NameRules
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq

MAC = bytes.fromhex("525400abcdef")
OWN = "52-54-00-ab-cd-ef"
NOT_FOUND = ErrorPacket(1, "File not found")


@pytest.fixture
def tree(tmp_path):
    for name, content in {
        f"{OWN}/boot.cfg": b"mine",
        "10000000/start4.elf": b"pi",
        "default/boot.cfg": b"default",
        "default/start4.elf": b"any",
        "default/only": b"only",
        "default/Case": b"case",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def serving(offer, tree):
    """Builds a server that reads and writes these roots."""

    def serve(*roots, fallbacks=(), mac=MAC, **policy):
        mount = Mount(
            (),
            tuple(parse_root(f"{tree}/{one}") for one in roots),
            read=ReadPolicy(),
            write=WritePolicy(**policy),
            serials=parse_serials(SERIALS),
        )
        mounts = Mounts([mount], NameRules(fallbacks=FallbackChain(fallbacks)))
        return MemoryServer(
            lambda report: replace(offer(report), mounts=mounts, neighbour=lambda peer: mac)
        )

    return serve


def _got(server, name):
    client = server.client()
    (answer,) = client.request(Rrq(name, b"octet"))
    client.send(Ack(1))
    server.advance(10)
    assert server.idle
    return answer.payload if isinstance(answer, Data) else answer


def test_a_file_is_read_from_the_first_root_that_has_it(serving):
    server = serving("{mac}", "default")
    assert _got(server, b"boot.cfg") == b"mine"
    assert _got(server, b"only") == b"only"
    assert _got(server, b"none") == NOT_FOUND


def test_a_client_without_its_own_directory_uses_the_next_root(serving):
    assert _got(serving("{mac}", "default", mac=bytes(6)), b"boot.cfg") == b"default"
    assert _got(serving("{mac}", "default", mac=None), b"boot.cfg") == b"default"
    assert _got(serving("{mac}", mac=None), b"boot.cfg") == NOT_FOUND


def test_a_serial_number_selects_its_directory_and_falls_through(serving):
    server = serving("{serial}", "default")
    assert _got(server, b"10000000/start4.elf") == b"pi"
    assert _got(server, b"10000000/only") == b"only"
    assert _got(server, b"20000000/start4.elf") == b"any"
    assert _got(server, b"start4.elf") == b"any"


def test_a_file_that_one_root_refuses_is_not_served_from_another(serving, tree):
    (tree / OWN / "only").mkdir()
    assert _got(serving("{mac}", "default"), b"only") == ErrorPacket(2, "Access violation")


def test_no_link_escapes_the_parent_of_the_clients_directory(serving, tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "boot.cfg").write_bytes(b"secret")
    (tree / "192.0.2.7").symlink_to(elsewhere)
    assert _got(serving("{ip}", "default"), b"boot.cfg") == ErrorPacket(2, "Access violation")
    (tree / "192.0.2.7").unlink()
    (tree / "192.0.2.7").symlink_to(OWN)
    assert _got(serving("{ip}", "default"), b"boot.cfg") == b"mine"


def test_fallbacks_are_tried_in_all_roots(serving):
    server = serving("{mac}", "default", fallbacks=(Fallback.CASE,))
    assert _got(server, b"CASE") == b"case"
    assert _got(server, b"BOOT.CFG") == b"mine"
    assert [(report.served_name, report.resolution_steps) for report in server.reports] == [
        (b"Case", ("case",)),
        (b"boot.cfg", ("case",)),
    ]


def test_a_serial_number_is_kept_by_a_fallback(serving):
    server = serving("{serial}", "default", fallbacks=(Fallback.CASE,))
    assert _got(server, b"10000000/START4.ELF") == b"pi"
    assert server.reports[0].served_name == b"10000000/start4.elf"


def _put(server, name):
    client = server.client()
    (answer,) = client.request(Wrq(name, b"octet"))
    if answer == Ack(0):
        client.send(Data(1, b"new"))
    server.advance(60)
    assert server.idle
    return answer


def test_an_upload_goes_to_the_first_root_that_has_the_directory(serving, tree):
    server = serving("{mac}", "default")
    assert _put(server, b"saved") == Ack(0)
    assert (tree / OWN / "saved").read_bytes() == b"new"
    (tree / "default" / "sub").mkdir()
    assert _put(server, b"sub/saved") == Ack(0)
    assert (tree / "default" / "sub" / "saved").read_bytes() == b"new"
    assert _put(server, b"none/saved") == NOT_FOUND


def test_an_upload_stops_at_the_first_root_that_refuses_it(serving, tree):
    server = serving("{mac}", "default")
    assert _put(server, b"boot.cfg") == ErrorPacket(6, "File already exists")
    assert (tree / "default" / "boot.cfg").read_bytes() == b"default"


def test_links_are_denied_in_the_path_of_the_clients_directory_too(offer, tree):
    (tree / "192.0.2.7").symlink_to(OWN)
    mount = Mount((), (parse_root(f"{tree}/{{ip}}"),), read=ReadPolicy(), symlinks=Symlinks.DENY)
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount])))
    assert _got(server, b"boot.cfg") == ErrorPacket(2, "Access violation")
