"""The status page for all users: contrast, keyboard, and a layout that does not move."""

import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.status.pages import Page, SlowReader, resize, set_scheme, web
from tests.support.daemons import until
from tests.support.plain import ServerError, get, put

pytestmark = [
    pytest.mark.check,
    pytest.mark.xdist_group("browser"),
]

TAB, ENTER, SPACE = "\ue004", "\ue007", "\ue00d"  # keys of WebDriver
MIN_TEXT_RATIO = 4.5  # WCAG 2.2, 1.4.3
MIN_PART_RATIO = 3.0  # 1.4.11: borders of inputs, bars, markers, the outline of the focus

# Relative luminance and ratio of WCAG 2.2. A style has colors as "rgb(r, g, b)" or with alpha.
LIBRARY = """
const parse = (color) => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
  return {r, g, b, a};
};
const blend = (top, below) => Object.fromEntries(['r', 'g', 'b'].map(
  (part) => [part, top[part] * top.a + below[part] * (1 - top.a)]));
const luminance = (color) => {
  const [r, g, b] = ['r', 'g', 'b'].map((part) => color[part] / 255).map(
    (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (one, two) => {
  const [low, high] = [luminance(one), luminance(two)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const groundOf = (node) => {
  for (let up = node; up; up = up.parentElement) {
    const color = parse(getComputedStyle(up).backgroundColor);
    if (color.a === 1) return color;
    if (color.a > 0) return blend(color, groundOf(up.parentElement));
  }
  return {r: 255, g: 255, b: 255};
};
const contrast = (node, color, ground) => {
  const style = getComputedStyle(node);
  const top = parse(color);
  top.a *= Number(style.opacity);
  return ratio(blend(top, ground), ground);
};
"""

TEXTS = """
const found = {};
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.getClientRects().length || node.tagName === 'NOSCRIPT') continue;
  const name = [node.tagName.toLowerCase(), ...node.classList].join('.');
  const value = contrast(node, getComputedStyle(node).color, groundOf(node));
  found[name] = Math.min(value, found[name] ?? 99);
}
const field = document.getElementById('filter');
const placeholder = getComputedStyle(field, '::placeholder').color;
found.placeholder = contrast(field, placeholder, groundOf(field));
return found;
"""

PARTS = """
const found = {};
const field = document.getElementById('filter');
const outside = groundOf(field.parentElement);
found.border = ratio(parse(getComputedStyle(field).borderTopColor), outside);
const summary = document.querySelector('summary');
const marker = getComputedStyle(summary, '::before');
const color = parse(marker.borderLeftColor);
color.a *= Number(marker.opacity);
found.marker = ratio(blend(color, groundOf(summary)), groundOf(summary));
return found;
"""


@contextmanager
def busy_page(tmp_path, browser, **settings):
    """Show a page with transfers, problems, uploads and devices."""
    devices = [
        {"name": "here", "network": "127.0.0.0/8"},
        {"name": "there", "network": "192.0.2.1"},
    ]
    variables = [{"clients": ["127.0.0.2"], "set": {"hostname": "web1"}}]
    with web(tmp_path, devices=devices, variables=variables, **settings) as served:
        root, port = served.running.root, served.running.port
        for name in ("pxelinux.0", "vmlinuz", "grubx64.efi", "file"):
            (root / name).write_bytes(b"x" * 100_000)
        get(port, b"pxelinux.0")
        put(port, b"sw1.cfg", b"x")
        for name in (b"pxelinux.cfg/1", b"pxelinux.cfg/2", b"grub.cfg"):
            with pytest.raises(ServerError):
                get(port, name)
        with ExitStack() as stack:
            readers = [
                stack.enter_context(SlowReader(port, name, host=host))
                for host, name in (("127.0.0.2", b"vmlinuz"), ("127.0.0.3", b"file"))
            ]
            for reader in readers:
                reader.read(20)
            with SlowReader(port, b"grubx64.efi", host="127.0.0.4") as probe:
                probe.hang_up()
            page = Page(browser, served.port)
            until(lambda: len(page.texts("#running .file")) == 2)
            page.run("for (const one of document.querySelectorAll('details')) one.open = true")
            yield page, readers


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_parts_have_enough_contrast(tmp_path, browser, scheme):
    set_scheme(browser, scheme)
    with busy_page(tmp_path, browser) as (page, _):
        until(lambda: len(page.texts("#running .note.bad")) == 2)  # they are stuck
        texts = page.run(LIBRARY + TEXTS)
        assert len(texts) > 30
        assert {name: value for name, value in texts.items() if value < MIN_TEXT_RATIO} == {}
        parts = page.run(LIBRARY + PARTS)
        assert {name: value for name, value in parts.items() if value < MIN_PART_RATIO} == {}


# All pairs that the style sheet may show, also those that no test shows.
PAIRS = """
const style = getComputedStyle(document.documentElement);
const probe = document.body.appendChild(document.createElement('i'));
const value = (name) => {
  probe.style.color = `var(--${name})`;
  return parse(getComputedStyle(probe).color);
};
const found = {};
for (const tone of ['good', 'busy', 'warn', 'bad', 'idle', 'text', 'quiet']) {
  for (const ground of ['ground', 'sheet', `${tone}-bg`]) {
    if (style.getPropertyValue(`--${ground}`)) {
      found[`${tone} on ${ground}`] = ratio(value(tone), value(ground));
    }
  }
}
// Bars and the outline of the focus.
for (const [part, ...grounds] of [['accent', 'track', 'ground', 'sheet'], ['bad', 'track']]) {
  for (const ground of grounds) {
    found[`${part} as a part on ${ground}`] = ratio(value(part), value(ground));
  }
}
probe.remove();
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_tone_has_enough_contrast_on_each_ground(tmp_path, browser, scheme):
    set_scheme(browser, scheme)
    with web(tmp_path) as served:
        page = Page(browser, served.port)
        pairs = page.run(LIBRARY + PAIRS)
    assert len(pairs) == 7 * 2 + 5 + 4
    wrong = {
        name: value
        for name, value in pairs.items()
        if value < (MIN_PART_RATIO if "as a part" in name else MIN_TEXT_RATIO)
    }
    assert wrong == {}


FOCUSED = """
const node = document.activeElement;
const style = getComputedStyle(node);
const box = node.getBoundingClientRect();
return {
  name: node.id || node.tagName.toLowerCase(),
  text: node.textContent.trim(),
  outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
  isVisible: box.width > 0 && box.top >= 0 && box.bottom <= innerHeight,
};
"""


def press(page, key):
    page.browser.switch_to.active_element.send_keys(key)
    return page.run(FOCUSED)


def test_everything_can_be_reached_and_used_with_the_keyboard(tmp_path, browser):
    with busy_page(tmp_path, browser) as (page, _):
        clients = page.texts("#clients summary .client .mono:first-child")
        n_clients = page.run("return document.querySelectorAll('summary').length")
        seen = []
        for _ in range(40):
            seen.append(press(page, TAB))
            if seen[-1]["text"] == "health":
                break
        names = [one["name"] for one in seen]
        assert names == ["problems", "filter", *["summary"] * n_clients, *["a"] * 3]
        assert [one["text"] for one in seen[-3:]] == ["JSON", "metrics", "health"]
        assert [one for one in seen if one["outline"] < 2] == []
        assert [one for one in seen if not one["isVisible"]] == []
        # Space toggles the checkbox, Enter opens and closes a client.
        page.run("document.getElementById('problems').focus()")
        press(page, SPACE)
        assert page.run("return location.hash") == "#problems=only"
        press(page, SPACE)
        page.run("document.querySelector('summary').focus()")
        is_open = "return document.querySelector('details').open"
        before = page.run(is_open)
        press(page, ENTER)
        assert page.run(is_open) != before
        assert len(clients) == n_clients


def test_the_focus_stays_where_it_is_when_rows_change(tmp_path, browser):
    with busy_page(tmp_path, browser) as (page, readers):
        page.run(
            "[...document.querySelectorAll('summary')].find("
            "(one) => one.textContent.includes('127.0.0.3')).focus()"
        )
        readers[1].read(90)  # its last block: the row moves behind those with problems
        until(
            lambda: (
                "vmlinuz" in page.texts("#running .file") and len(page.texts("#running .file")) == 1
            )
        )
        assert "127.0.0.3" in page.run(FOCUSED)["text"]


SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const describe = ({node, previousRect, currentRect}) => [node?.textContent?.slice(0, 30),
      previousRect.x, previousRect.y, currentRect.x, currentRect.y];
    window.shifts.push([entry.value, ...entry.sources.map(describe)]);
  }
}).observe({type: 'layout-shift', buffered: false});
window.answers = 0;
const fetched = window.fetch;
window.fetch = (...all) => { window.answers += 1; return fetched(...all); };
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_updates_do_not_move_what_is_on_the_page(tmp_path, browser, width):
    """Numbers grow, bars move, and ages go from `9 s` to `10 s`.

    A new verdict may move rows, because problems come first.
    """
    resize(browser, width)
    with busy_page(tmp_path, browser) as (page, readers):
        for reader in readers:
            reader.read(5)
        until(lambda: str(page.texts("#clients .text")).count("loading") == 2)
        page.run(SHIFTS)
        for _ in range(11):
            for reader in readers:
                reader.read(5)
            time.sleep(1)
        assert page.run("return window.answers") >= 4  # 10 on an idle machine
        assert page.run("return window.shifts") == []


HEIGHTS = """
return Object.fromEntries([...document.querySelectorAll('#running li, #clients li')].map(
  (row) => [row.textContent.slice(0, 9), row.offsetHeight]));
"""


def test_a_row_has_the_same_height_when_its_transfer_is_stuck(tmp_path, browser):
    with busy_page(tmp_path, browser) as (page, readers):
        for reader in readers:
            reader.read(1)
        until(lambda: page.texts("#running .note.bad") == [])
        before = page.run(HEIGHTS)
        until(lambda: len(page.texts("#running .note.bad")) == 2)
        assert page.run(HEIGHTS) == before
