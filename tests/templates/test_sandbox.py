"""What templates give, and what they do not get at."""

import os
from dataclasses import replace

import jinja2
import pytest

from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates.protocol import RenderJob
from tftpd.templates.sandbox import MAX_TEMPLATE_BYTES, TemplateSandbox

LEAVES = 1 << 20


@pytest.fixture(scope="module")
def templates():
    """What a process has for all its jobs."""
    return TemplateSandbox()


@pytest.fixture
def made(templates, template):
    """What a text gives, which is that of the file `t.j2`."""

    def make(text, size=LEAVES, symlinks=Symlinks.INSIDE, world_readable=False, **variables):
        grant = template(text, symlinks=symlinks, world_readable=world_readable)
        return templates.render(RenderJob(grant, variables, size, 2.0))

    return make


@pytest.fixture
def refused(made):
    """Why a text gives no file."""

    def make(text, **more):
        with pytest.raises(RequestRefused) as refusal:
            made(text, **more)
        assert refusal.value.code is ErrorCode.NOT_DEFINED
        assert refusal.value.text == ErrorText.TEMPLATE_FAILED
        assert "\n" not in refusal.value.reason
        return refusal.value.reason

    return make


def test_values_come_where_they_are_named(made):
    text = "kernel {{ variables.kernel }} ip={{ ip }} {{ groups.host | upper }}\n"
    variables = {"ip": "10.0.0.7", "variables": {"kernel": "vmlinuz"}, "groups": {"host": "web"}}
    assert made(text, **variables) == b"kernel vmlinuz ip=10.0.0.7 WEB\n"


def test_a_line_of_tags_leaves_nothing(made):
    text = "a\n  {% for x in [1, 2] %}\n  {{ x }}\n  {% endfor %}\n{# why #}\nb\n"
    assert made(text) == b"a\n  1\n  2\nb\n"


def test_a_plus_keeps_what_a_tag_would_take(made):
    assert made("a\n  {%+ if true +%}\nb{% endif %}\n") == b"a\n  \nb"


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
def test_the_end_of_the_file_stays(made, end):
    assert made(b"a {{ 1 }}" + end) == b"a 1" + end


def test_ends_of_lines_are_as_in_the_template(made):
    assert made(b"a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n{{ 1 }}\r\n") == b"a\r\nb\r\n1\r\n"


def test_nothing_is_escaped_for_html(made):
    assert made("{{ a }} <b>", a='<"&>') == b'<"&> <b>'


def test_an_empty_template_gives_an_empty_file(made):
    assert made("") == b""


def test_octets_that_are_not_utf8_come_out_as_they_came(made):
    name = b"gr\xfc\xdfe/\xc3\xa9\xff"
    assert made("{{ name }}", name=os.fsdecode(name)) == name


def test_a_template_that_is_not_utf8_is_refused_with_its_line(refused):
    assert refused(b"a\nb\xff\n") == "not UTF-8 in line 2"


def test_a_name_that_is_not_there_is_refused_with_its_line(refused):
    assert refused("a\n\n{{ kernel }}") == "line 3: 'kernel' is undefined"
    why = refused("{{ variables.kernel }}", variables={})
    assert why == "line 1: 'dict object' has no attribute 'kernel'"


def test_what_may_be_missing_can_have_a_default(made):
    text = "{{ variables.kernel | default('vmlinuz') }} {{ 'mac' if mac else 'none' }}"
    assert made(text, variables={}, mac=None) == b"vmlinuz none"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
        ("a\n{% for x in y %}\n\n", "line 3: Unexpected end of template"),
        ("a\n\n{% nonsense %}", "line 3: Encountered unknown tag 'nonsense'."),
        ("{{ 'x", "line 1: "),
        ("{{ x | nonsense }}", "line 1: No filter named 'nonsense'."),
        ("a\n{{ 1 / 0 }}", "line 2: ZeroDivisionError: division by zero"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError: "),
    ],
)
def test_an_error_is_told_with_its_line(refused, text, why):
    assert refused(text).startswith(why)


def test_a_fact_comes_before_a_method_of_its_name(made):
    assert (
        made("{{ variables.items }} {{ variables.get }}", variables={"items": 3, "get": 4})
        == b"3 4"
    )
    assert made("{{ variables.items() | list }}", variables={"a": 1}) == b"[('a', 1)]"


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ ['', ''] | map(attribute='__class__') | join }}",
    "{{ ([''] | groupby('__class__'))[0].grouper }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ range.__globals__ }}",
    "{{ range.__code__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self._TemplateReference__context.environment }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__class__}'.format_map({'0': ''}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ('{0.__class__}' | attr('format'))('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | map('attr', '__class__') | list }}",
    "{{ dict.mro() }}",
    "{{ dict.__subclasses__() }}",
    "{{ dict['a'].mro() }}",
    "{{ dict[1:2].mro() }}",
    "{{ dict.__code__ }}",
    "{{ (1).__class__.__base__ }}",
    "{{ variables.__class__ }}",
    "{{ variables | attr('__init__') }}",
    "{{ cycler('a').next.__func__ }}",
    "{{ cycler('a').reset.__self__.__class__ }}",
    "{{ namespace().__dict__ }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n.__class__ }}",
    "{{ config }}",
    "{{ request }}",
    "{{ get_flashed_messages }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum() }}",
    "{% import os %}",
    "{% import 'os' as os %}{{ os }}",
    "{% do 1 %}",
    "{% debug %}",
    "{{ variables.list.append(3) }}",
    "{{ variables.list.insert(0, 1) }}",
    "{{ variables.update({'a': 1}) }}",
    "{{ variables.pop('list') }}",
    "{{ variables.__setitem__('a', 1) }}",
    "{{ range(10000000) | length }}",
    "{{ ''.join.__self__.__class__ }}",
    "{{ ''.encode().__class__ }}",
    "{% call(x) ''.__class__ %}{% endcall %}",
    "{% for x in ''.__class__ %}{% endfor %}",
    "{% filter attr('__class__') %}x{% endfilter %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_the_sandbox_holds(refused, text):
    assert refused(text, variables={"list": [1, 2]})


def test_a_dict_is_made_of_pairs_and_of_names(made):
    assert made(
        "{{ dict([('a', 1)], b=2) }} {{ dict(variables, a=3) }}", variables={"a": 1, "c": 4}
    ) == (b"{'a': 1, 'b': 2} {'a': 3, 'c': 4}")


def test_text_of_a_client_is_never_a_template(made):
    assert made("{{ name }}", name="{{ ''.__class__ }}{% for %}") == b"{{ ''.__class__ }}{% for %}"


def test_a_file_larger_than_allowed_is_refused(made, refused):
    text = "{% for x in range(10) %}xxxxxxxxxx{% endfor %}"
    assert made(text, size=100) == b"x" * 100
    assert refused(text, size=99) == "the file is larger than 99 bytes"


def test_a_template_larger_than_allowed_is_refused(made, refused):
    assert made(b" " * MAX_TEMPLATE_BYTES) == b" " * MAX_TEMPLATE_BYTES
    why = refused(b" " * (MAX_TEMPLATE_BYTES + 1))
    assert why == f"has {MAX_TEMPLATE_BYTES + 1} bytes, the limit is {MAX_TEMPLATE_BYTES}"


@pytest.mark.parametrize("text", ["{% include 't.j2' %}", "{% import 't.j2' as t %}"])
def test_a_template_that_includes_itself_is_refused(refused, text):
    assert refused(text) == "line 1: nested too deeply, or includes itself"


def test_a_template_that_extends_itself_is_refused(refused):
    assert refused("{% extends 't.j2' %}")


def test_an_expression_without_end_is_refused(refused):
    assert refused("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}") == (
        "nested too deeply, or includes itself"
    )


def test_others_are_included_from_beneath_the_root(made, template):
    template("{{ ip }}!", "common/part.j2")
    template("{% macro hello(x) %}hello {{ x }}{% endmacro %}", "common/macros.j2")
    template("<{% block body %}{% endblock %}>", "base.j2")
    text = (
        "{% extends '/base.j2' %}{% block body %}{% include 'common//./part.j2' %}"
        "{% from 'common/macros.j2' import hello %} {{ hello('you') }}{% endblock %}"
    )
    assert made(text, ip="10.0.0.7") == b"<10.0.0.7! hello you>"


def test_names_are_those_beneath_the_root_wherever_it_is_included_from(templates, template):
    template("inner", "part.j2")
    template("other", "sub/part.j2")
    grant = template("{% include 'part.j2' %}", "sub/t.j2")
    assert templates.render(RenderJob(grant, {}, LEAVES, 2.0)) == b"inner"


def test_names_are_those_beneath_what_is_a_clients_own(templates, root, template):
    template("everyone's", "part.j2")
    template("mine", "52-54/part.j2")
    template("another's", "52-55/part.j2")
    (root / "52-54" / "link.j2").symlink_to("../part.j2")
    text = "{% include 'part.j2' %} {% include '/link.j2' %}"
    grant = replace(template(text, "52-54/sub/t.j2"), own=1)
    assert templates.render(RenderJob(grant, {}, LEAVES, 2.0)) == b"mine everyone's"
    for name in ("../52-55/part.j2", "52-55/part.j2", ""):
        grant = replace(template(f"{{% include '{name}' %}}", "52-54/t.j2"), own=1)
        with pytest.raises(RequestRefused):
            templates.render(RenderJob(grant, {}, LEAVES, 2.0))


def test_an_error_in_what_is_included_is_told_by_its_name(refused, template):
    template("\n{{ nothing }}", "part.j2")
    assert refused("{% include 'part.j2' %}") == "in part.j2 line 2: 'nothing' is undefined"
    template("\n\n{% if %}", "part.j2")
    assert refused("{% include 'part.j2' %}").startswith("in part.j2 line 3: Expected an")


def test_what_is_not_there_can_be_passed_over(made, refused):
    assert made("a{% include 'hosts/' ~ ip ~ '.j2' ignore missing %}b", ip="1") == b"ab"
    assert made("{% include ['x.j2', 'y.j2'] ignore missing %}b") == b"b"
    assert refused("\n{% include 'x.j2' %}") == 'line 2: there is no "x.j2"'
    assert "x.j2, y.j2" in refused("{% include ['x.j2', 'y.j2'] %}")


def test_the_first_of_several_that_is_there_is_included(made, template):
    template("default", "default.j2")
    assert made("{% include [ip ~ '.j2', 'default.j2'] %}", ip="1") == b"default"


@pytest.mark.parametrize(
    "name",
    [
        "../outside/secret.j2",
        "/../outside/secret.j2",
        "x/../../outside/secret.j2",
        "..\\\\outside\\\\secret.j2",
        "link.j2",
        "directory/secret.j2",
        "absolute.j2",
        ".",
        "",
        "..",
        "fifo",
        "x" * 5000,
        "x\\0y",
        ".tftpd-upload-1",
        ".TFTPD-Upload-1",
    ],
)
@pytest.mark.parametrize("how", ["{% include 'NAME' %}", "{% import 'NAME' as x %}{{ x }}"])
def test_nothing_is_included_from_elsewhere(refused, root, name, how):
    (root / "link.j2").symlink_to("../outside/secret.j2")
    (root / "directory").symlink_to("../outside")
    (root / "absolute.j2").symlink_to(root.parent / "outside" / "secret.j2")
    (root / ".tftpd-upload-1").write_text("secret")
    os.mkfifo(root / "fifo")
    assert refused(how.replace("NAME", name))


def test_an_absolute_name_is_one_beneath_the_root(made, refused, root):
    secret = root.parent / "outside" / "secret.j2"
    assert f'there is no "{secret}"' in refused(f"{{% include '{secret}' %}}")
    below = root / str(secret)[1:]
    below.parent.mkdir(parents=True)
    below.write_text("beneath")
    assert made(f"{{% include '{secret}' %}}") == b"beneath"


def test_what_is_refused_is_not_passed_over(refused):
    why = refused("{% include '../outside/secret.j2' ignore missing %}")
    assert why == (
        'line 1: "../outside/secret.j2": a template name is relative to the root, without ".."'
    )


def test_links_are_followed_as_the_directory_has_it(made, refused, root, template):
    template("inside", "real.j2")
    (root / "inner.j2").symlink_to("real.j2")
    (root / "outer.j2").symlink_to("../outside/secret.j2")
    assert made("{% include 'inner.j2' %}") == b"inside"
    assert refused("{% include 'inner.j2' %}", symlinks=Symlinks.DENY)
    assert made("{% include 'outer.j2' %}", symlinks=Symlinks.FOLLOW) == b"secret"


def test_what_is_included_must_be_readable_where_the_policy_says_so(made, refused, root, template):
    template("part", "part.j2")
    (root / "part.j2").chmod(0o640)
    assert made("{% include 'part.j2' %}") == b"part"
    assert "o+r" in refused("{% include 'part.j2' %}", world_readable=True)


def test_a_template_that_is_not_there_is_a_file_that_is_not_there(templates, template):
    with pytest.raises(RequestRefused) as refusal:
        templates.render(RenderJob(template(None), {}, LEAVES, 2.0))
    assert refusal.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_change_is_seen_at_once(made, root, template):
    template("1", "part.j2")
    assert made("a{% include 'part.j2' %}") == b"a1"
    before = (root / "part.j2").stat()
    (root / "part.j2").write_text("2")
    os.utime(root / "part.j2", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert made("a{% include 'part.j2' %}") == b"a2"
    assert made("b{% include 'part.j2' %}") == b"b2"


def test_what_is_the_same_is_compiled_once(made, template, monkeypatch):
    compiled = []
    compile_ = jinja2.Environment.compile

    def counted(environment, source, name):
        compiled.append(name)
        return compile_(environment, source, name)

    monkeypatch.setattr(jinja2.Environment, "compile", counted)
    template("{{ n }} once", "part.j2")
    for number in range(3):
        text = "{% for i in range(3) %}{% include 'part.j2' %}{% endfor %} once"
        assert made(text, n=number) == b"%d once%d once%d once once" % ((number,) * 3)
    assert compiled == ["t.j2", "part.j2"]


@pytest.mark.parametrize(("count", "size"), [(20, MAX_TEMPLATE_BYTES // 2), (1000, 1)])
def test_what_was_compiled_long_ago_is_forgotten(made, templates, count, size):
    for number in range(count):
        made(f"{number}{' ' * size}")
    kept = templates._cache
    assert kept._size == sum(len(octets) + 8192 for _, octets in kept._codes) <= 4 << 20
    assert len(kept._codes) < count


def test_nothing_is_left_for_the_next_client(made, template):
    template(
        "{% set n = namespace(count=0) %}"
        "{% macro count() %}{% set n.count = n.count + 1 %}{{ n.count }}{% endmacro %}",
        "count.j2",
    )
    text = "{% import 'count.j2' as c %}{{ c.count() }}{{ c.count() }}"
    assert made(text) == b"12"
    assert made(text) == b"12"


def test_facts_are_not_changed(made):
    variables = {"a": 1}
    made("{% set a = 2 %}{% set variables = {} %}{{ a }}", variables=variables, a=1)
    assert variables == {"a": 1}


def test_what_is_wrong_is_told_in_one_line_and_not_too_long(refused):
    assert "\\n" in refused("{{ x['a\\nb'] }}", x={})
    assert len(refused("{{ x['" + "a" * 2000 + "'] }}", x={})) < 400
