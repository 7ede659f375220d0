"""The status page in a headless Chromium."""

import re
import socket
import tempfile
from contextlib import ExitStack

import pytest

from tests.status.pages import Page, SlowReader, resize, set_scheme, web
from tests.support.daemons import until
from tests.support.plain import ServerError, get, put
from tests.support.web_origin import web_origin
from tftpd import dataplane

pytestmark = [
    pytest.mark.check,
    pytest.mark.xdist_group("browser"),  # one process starts it
]

HOSTILE = b"<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_running_transfer_has_a_bar_that_moves_and_then_a_verdict(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "vmlinuz").write_bytes(b"x" * 10_000)
        page = Page(browser, served.port)
        until(lambda: page.texts("#state") == ["serving"])
        assert f", data plane: {dataplane.NAME}, " in page.texts("#about")[0]
        with SlowReader(served.running.port, b"vmlinuz") as client:
            client.read(3)
            until(lambda: page.bars() == [30])
            assert page.texts("#running .file") == ["vmlinuz"]
            assert page.texts("#running .percent") == ["30 %"]
            assert page.texts("#clients .text") == ["loading vmlinuz, 30 %"]
            assert page.texts("#fact-running") == ["1"]
            label = "return document.querySelector('progress').getAttribute('aria-label')"
            assert page.run(label) == "vmlinuz by 127.0.0.1"
            client.read(5)
            until(lambda: page.bars() == [80])
            client.read(3)
        until(lambda: page.texts("#clients .text") == ["booted"])
        assert page.bars() == []
        assert page.texts("#clients .chip") == ["kernel"]
        assert page.texts("#ended .outcome") == ["done"]
        assert page.texts("#none-running") == ["No transfer is running."]
        assert page.console_messages() == []


def test_a_complete_upload_is_shown_apart_from_running_transfers(tmp_path, browser):
    with web(tmp_path, retransmit={"dally": 60}) as served:
        (served.running.root / "file").write_bytes(b"x" * 10_000)
        page = Page(browser, served.port)
        put(served.running.port, b"new", b"x")
        with SlowReader(served.running.port, b"file") as client:
            client.read(1)
            until(lambda: page.texts("#running .file") == ["file", "↑ new"])
            assert page.texts("#count-running") == ["1, 1 complete"]
            assert page.texts("#fact-running") == ["1"]
        assert page.console_messages() == []


def test_a_client_is_shown_with_its_profile(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "kernel").write_bytes(b"x" * 5000)
        page = Page(browser, served.port)
        grub = (("blksize", 1024), ("tsize", 0))
        with SlowReader(served.running.port, b"kernel", grub) as client:
            client.read(1)
            until(lambda: any(note.startswith("grub, ") for note in page.texts("#running .note")))
            client.hang_up()
        until(lambda: page.texts("#ended .file-cell") == ["kernel grub"])
        assert page.console_messages() == []


def test_a_file_found_by_another_name_is_shown_with_both_names(tmp_path, browser):
    with web(tmp_path, names={"fallbacks": ["drive", "case"]}) as served:
        (served.running.root / "BCD").write_bytes(b"x" * 1000)
        page = Page(browser, served.port)
        get(served.running.port, b"BCD")
        until(lambda: page.texts("#ended .file") == ["BCD"])
        assert page.texts("#ended .served") == []
        assert page.texts("#resolved-names") == []
        get(served.running.port, b"c:bcd")
        until(lambda: page.texts("#ended .served") == ["as BCD (drive, case)"])
        assert page.texts("#ended .file") == ["c:bcd", "BCD"]
        assert page.texts("#resolved-names") == ["Files found by another name: drive 1, case 1"]
        assert page.console_messages() == []


def test_the_last_upload_of_each_device_is_shown_the_oldest_first(tmp_path, browser):
    with web(tmp_path) as served:
        for name in (b"sw1.cfg", b"sw2.cfg", b"sw1.cfg"):
            put(served.running.port, name, b"x" * 700)
        page = Page(browser, served.port)
        until(lambda: page.texts("#uploads .file") == ["sw2.cfg", "sw1.cfg"])
        assert page.texts("#uploads .size") == ["700 B", "700 B"]
        assert page.texts("#count-uploads") == ["2"]
        (served.running.root / "sw1.cfg").unlink()
        (served.running.root / "sw1.cfg").mkdir()
        with pytest.raises(ServerError):
            put(served.running.port, b"sw1.cfg", b"x")
        until(lambda: page.texts("#uploads .file") == ["sw1.cfg", "sw2.cfg"])
        assert " refused: " in page.texts("#uploads .outcome")[0]
        assert page.console_messages() == []


def test_origins_are_shown_with_their_last_failure(tmp_path, browser):
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="tftpd-cache-"))
        origin = stack.enter_context(web_origin())
        origin.answer = lambda handler, request: handler.reply(503)
        served = stack.enter_context(
            web(
                tmp_path,
                origins={"fleet": {"url": origin.url}},
                cache={"path": cache, "min_free": 0, "max_size": "10MB"},
                directories=[{"path": "/", "root": "origin:fleet", "read": True}],
            )
        )
        page = Page(browser, served.port)
        until(lambda: page.texts("#origins .outcome") == ["available"])
        assert page.texts("#cache") == ["Cache: 0 B of 10 MB, 0 objects, 0 evicted"]
        with pytest.raises(ServerError):
            get(served.running.port, b"kernel")
        until(lambda: page.texts("#origins .outcome") != ["available"])
        (text,) = page.texts("#origins .outcome")
        assert text.startswith("does not answer since 20")
        assert "503" in text
        assert page.texts("#origins .client") == ["fleet"]
        assert page.console_messages() == []


def test_the_filter_shows_one_client_and_is_kept_in_the_url(tmp_path, browser):
    with web(tmp_path) as served, ExitStack() as clients:
        (served.running.root / "file").write_bytes(b"x" * 10_000)
        for host in ("127.0.0.7", "127.0.0.8"):
            client = clients.enter_context(SlowReader(served.running.port, b"file", host=host))
            client.read(1)
        put(served.running.port, b"new", b"")
        page = Page(browser, served.port)
        until(lambda: len(page.texts("#clients .client")) == 3)
        assert len(page.bars()) == 2
        page.type_filter("0.8")
        assert page.texts("#clients .client") == ["127.0.0.8"]
        assert page.texts("#running .client") == ["127.0.0.8"]
        assert page.texts("#ended .client") == []
        assert page.texts("#count-clients") == ["1 of 3"]
        assert page.run("return location.hash") == "#search=0.8"
        page.browser.refresh()
        until(lambda: page.texts("#clients .client") == ["127.0.0.8"])
        page.type_filter("")
        until(lambda: len(page.texts("#clients .client")) == 3)
        page.type_filter("no such client")
        assert page.texts("#none-clients") == ["Nothing matches the search."]


def _miss(port, name, host):
    with SlowReader(port, name, host=host) as client:
        assert client.refused


def test_problems_come_first_and_can_be_shown_alone(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "file").write_bytes(b"x" * 10_000)
        port = served.running.port
        _miss(port, b"bios/initrd.gz", "127.0.0.2")
        get(port, b"file")
        with SlowReader(port, b"file", host="127.0.0.3") as client:
            client.read(1)
            page = Page(browser, served.port)
            until(lambda: len(page.texts("#clients .client")) == 3)
            assert page.texts("#clients .text")[0] == "not found only: bios/initrd.gz"
            page.type_filter("INITRD")
            assert page.texts("#clients .client") == ["127.0.0.2"]
            assert page.texts("#ended .file") == ["bios/initrd.gz"]
            assert page.texts("#running .file") == []
            page.type_filter("")
            page.run("document.getElementById('problems').click()")
            assert page.run("return location.hash") == "#problems=only"
            page.browser.refresh()
            until(lambda: page.texts("#clients .client") == ["127.0.0.2"])
            assert page.texts("#ended .client") == ["127.0.0.2"]
            assert page.texts("#count-clients") == ["1 of 3"]
            until(lambda: page.texts("#running .client") == ["127.0.0.3"])  # it is stuck
        assert page.console_messages() == []


def test_the_names_that_a_client_missed_are_one_row(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "file").write_bytes(b"x")
        port = served.running.port
        for number in (1, 2, 3, 4, 1):
            _miss(port, b"pxelinux.cfg/%d" % number, "127.0.0.2")
        _miss(port, b"other", "127.0.0.3")
        _miss(port, b"pxelinux.cfg/5", "127.0.0.2")
        get(port, b"file")
        page = Page(browser, served.port)
        until(lambda: page.texts("#count-ended") == ["8"])
        assert page.texts("#ended .client") == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        assert page.texts("#ended .outcome") == ["done", "5 not found, 6 requests", "not found"]
        names = ["pxelinux.cfg/5", "pxelinux.cfg/1", "pxelinux.cfg/4", "… and 2 more"]
        assert page.texts("#ended .file")[1].split("\n") == names


def test_the_timeline_of_a_client_has_its_running_transfer(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "kernel").write_bytes(b"x" * 10_000)
        port = served.running.port
        with pytest.raises(ServerError):
            get(port, b"loader.efi")
        with SlowReader(port, b"kernel") as client:
            client.read(3)
            page = Page(browser, served.port)
            until(lambda: page.texts("#clients .chip") == ["loader not found", "kernel 30 %"])
            page.run("document.querySelector('summary').click()")
            assert page.texts("#clients .steps .file") == ["loader.efi", "kernel"]
            until(
                lambda: page.texts("#clients .steps .outcome")[1].startswith(
                    "block 3 of 11, last ACK "
                )
            )
        assert page.console_messages() == []


def test_times_have_a_date_and_a_zone_and_the_block_size_is_explained(tmp_path, browser):
    with web(tmp_path) as served:
        put(served.running.port, b"new", b"x")
        page = Page(browser, served.port)
        until(lambda: len(page.texts("#ended .time")) == 1)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page.texts("#ended .time")[0])
        headings = page.texts(".ended:not(.uploads) th")
        assert re.fullmatch(r"Time \(\S+\)", headings[0])
        assert headings[7].split(" ")[::2] == ["windowsize", "blksize"]
        page.run("document.querySelector('summary').click()")
        last = r"Last packet: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \([A-Z]\S*\)"
        assert re.fullmatch(last, page.texts("#clients .previous")[0])


def test_a_client_is_shown_with_its_host_name(tmp_path, browser):
    variables = [{"clients": ["127.0.0.2"], "set": {"hostname": "<b>web1</b>"}}]
    with web(tmp_path, variables=variables) as served:
        for host in ("127.0.0.2", "127.0.0.3"):
            _miss(served.running.port, b"x", host)
        page = Page(browser, served.port)
        until(lambda: page.texts("#clients .identity") == ["<b>web1</b>"])
        page.type_filter("WEB1")
        assert page.texts("#clients .client") == ["127.0.0.2<b>web1</b>"]
        assert page.texts("#ended .client") == ["127.0.0.2<b>web1</b>"]


def test_a_hostile_name_is_shown_as_text_and_runs_no_script(tmp_path, browser):
    with web(tmp_path) as served:
        with pytest.raises(ServerError):
            get(served.running.port, HOSTILE)
        with SlowReader(served.running.port, HOSTILE) as refused:
            assert refused.refused
        (served.running.root / "<b>").write_bytes(b"x" * 5000)
        with SlowReader(served.running.port, b"<b>", host="127.0.0.9") as client:
            client.read(1)
            page = Page(browser, served.port)
            until(lambda: len(page.texts("#ended .file")) == 1)
            until(lambda: page.texts("#running .file") == ["<b>"])
            shown = HOSTILE.decode().replace('"', '\\"')
            assert page.texts("#ended .file") == [shown]
            assert f"not found only: {shown}" in page.texts("#clients .text")
            assert page.run("return document.querySelectorAll('main img, main b').length") == 0
            assert page.run("return document.title") == f"tftpd {socket.gethostname()}"
            assert page.console_messages() == []


def test_a_timeline_opens_and_stays_open(tmp_path, browser):
    with web(tmp_path) as served:
        (served.running.root / "grub.efi").write_bytes(b"x")
        get(served.running.port, b"grub.efi")
        page = Page(browser, served.port)
        until(lambda: page.texts("#clients .chip") == ["loader"])
        page.run("document.querySelector('summary').click()")
        assert page.texts("#clients .steps .file") == ["grub.efi"]
        with pytest.raises(ServerError):
            get(served.running.port, b"grub.cfg")
        until(lambda: page.texts("#clients .steps .file") == ["grub.efi", "grub.cfg"])
        assert page.texts("#clients .chip") == ["loader", "config not found"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_of_a_phone(tmp_path, browser, scheme):
    resize(browser, 390)
    set_scheme(browser, scheme)
    with web(tmp_path) as served:
        name = b"a-very-long-name-without-a-single-place-to-break-it" * 3
        (served.running.root / name[:150].decode()).write_bytes(b"x" * 10_000)
        with pytest.raises(ServerError):
            get(served.running.port, name)
        with SlowReader(served.running.port, name[:150]) as client:
            client.read(3)
            page = Page(browser, served.port)
            until(lambda: page.bars() == [30])
            page.run("for (const one of document.querySelectorAll('details')) one.open = true")
            assert page.run("return document.documentElement.scrollWidth") == 390
            ground = page.run("return getComputedStyle(document.body).backgroundColor")
            assert ground == {"light": "rgb(246, 247, 246)", "dark": "rgb(17, 21, 20)"}[scheme]


def test_the_page_shows_that_the_daemon_does_not_answer(tmp_path, browser):
    with web(tmp_path) as served:
        page = Page(browser, served.port)
        until(lambda: page.texts("#state") == ["serving"])
        served.running.stop()
        until(lambda: page.texts("#state")[0].startswith("no answer since "))


def test_devices_are_shown_with_their_last_upload(tmp_path, browser):
    devices = [
        {"name": "here", "network": "127.0.0.0/8"},
        {"name": "there", "network": "192.0.2.1"},
    ]
    with web(tmp_path, devices=devices) as served:
        put(served.running.port, b"sw1.cfg", b"x" * 700)
        page = Page(browser, served.port)
        until(lambda: page.texts("#devices .client") == ["there", "here"])
        assert page.texts("#devices .size") == ["", "700 B"]
        assert page.texts("#devices .time")[0] == "never"
        assert page.texts("#count-devices") == ["2"]
        assert page.console_messages() == []
