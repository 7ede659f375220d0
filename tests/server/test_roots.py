"""Several roots under one prefix, and roots of a client's own, through the listener."""

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
    """A server with these roots below the tree, read and written."""

    def serve(*roots, ladder=(), mac=MAC, **policy):
        mount = Mount(
            (),
            tuple(parse_root(f"{tree}/{one}") for one in roots),
            read=ReadPolicy(),
            write=WritePolicy(**policy),
            serials=parse_serials(SERIALS),
        )
        mounts = Mounts([mount], NameRules(fallbacks=FallbackChain(ladder)))
        return MemoryServer(
            lambda report: replace(offer(report), mounts=mounts, neighbour=lambda peer: mac)
        )

    return serve


def _got(server, name):
    client = server.client()
    (answer,) = client.asks(Rrq(name, b"octet"))
    client.says(Ack(1))
    server.waits(10)
    assert server.idle
    return answer.payload if isinstance(answer, Data) else answer


def test_the_first_root_that_has_the_file_is_the_one_it_comes_from(serving):
    server = serving("{mac}", "default")
    assert _got(server, b"boot.cfg") == b"mine"
    assert _got(server, b"only") == b"only"
    assert _got(server, b"none") == NOT_FOUND


def test_a_client_without_a_directory_has_the_next(serving):
    assert _got(serving("{mac}", "default", mac=bytes(6)), b"boot.cfg") == b"default"
    assert _got(serving("{mac}", "default", mac=None), b"boot.cfg") == b"default"
    assert _got(serving("{mac}", mac=None), b"boot.cfg") == NOT_FOUND


def test_a_serial_number_leads_to_its_directory_and_past_it(serving):
    server = serving("{serial}", "default")
    assert _got(server, b"10000000/start4.elf") == b"pi"
    assert _got(server, b"10000000/only") == b"only"
    assert _got(server, b"20000000/start4.elf") == b"any"
    assert _got(server, b"start4.elf") == b"any"


def test_what_a_root_refuses_no_other_gives(serving, tree):
    (tree / OWN / "only").mkdir()
    assert _got(serving("{mac}", "default"), b"only") == ErrorPacket(2, "Access violation")


def test_no_link_leads_out_of_the_directory_before_the_clients_own(serving, tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "boot.cfg").write_bytes(b"secret")
    (tree / "192.0.2.7").symlink_to(elsewhere)
    assert _got(serving("{ip}", "default"), b"boot.cfg") == ErrorPacket(2, "Access violation")
    (tree / "192.0.2.7").unlink()
    (tree / "192.0.2.7").symlink_to(OWN)
    assert _got(serving("{ip}", "default"), b"boot.cfg") == b"mine"


def test_the_ladder_is_climbed_in_all_roots(serving):
    server = serving("{mac}", "default", ladder=(Fallback.CASE,))
    assert _got(server, b"CASE") == b"case"
    assert _got(server, b"BOOT.CFG") == b"mine"
    assert [(report.served_name, report.resolution_steps) for report in server.reports] == [
        (b"Case", ("case",)),
        (b"boot.cfg", ("case",)),
    ]


def test_a_serial_number_stays_in_a_name_that_is_spelled_otherwise(serving):
    server = serving("{serial}", "default", ladder=(Fallback.CASE,))
    assert _got(server, b"10000000/START4.ELF") == b"pi"
    assert server.reports[0].served_name == b"10000000/start4.elf"


def _put(server, name):
    client = server.client()
    (answer,) = client.asks(Wrq(name, b"octet"))
    if answer == Ack(0):
        client.says(Data(1, b"new"))
    server.waits(60)
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


def test_an_upload_never_goes_past_a_root_that_refuses_it(serving, tree):
    server = serving("{mac}", "default")
    assert _put(server, b"boot.cfg") == ErrorPacket(6, "File already exists")
    assert (tree / "default" / "boot.cfg").read_bytes() == b"default"


def test_links_are_denied_on_the_clients_own_way_too(offer, tree):
    (tree / "192.0.2.7").symlink_to(OWN)
    mount = Mount((), (parse_root(f"{tree}/{{ip}}"),), read=ReadPolicy(), symlinks=Symlinks.DENY)
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount])))
    assert _got(server, b"boot.cfg") == ErrorPacket(2, "Access violation")
