"""Output of templates, and the limits of the sandbox."""

import os
from dataclasses import replace

import jinja2
import pytest

from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.templates import sandbox as sandbox_module
from tftpd.templates.protocol import MAX_TEMPLATE_BYTES, RenderJob
from tftpd.templates.sandbox import TemplateSandbox

MAX_SIZE = 1 << 20


@pytest.fixture(scope="module")
def sandbox():
    """The sandbox of one process, used for all its jobs."""
    return TemplateSandbox()


@pytest.fixture
def render(sandbox, template):
    """Render a text that is stored as `t.j2`."""

    def make(text, max_size=MAX_SIZE, symlinks=Symlinks.INSIDE, world_readable=False, **variables):
        grant = template(text, symlinks=symlinks, world_readable=world_readable)
        return sandbox.render(RenderJob(grant, variables, max_size, 2.0))

    return make


@pytest.fixture
def refused(render):
    """Return the reason why a text is refused."""

    def make(text, **more):
        with pytest.raises(RequestRefused) as refusal:
            render(text, **more)
        assert refusal.value.code is ErrorCode.NOT_DEFINED
        assert refusal.value.text == ErrorText.TEMPLATE_FAILED
        assert "\n" not in refusal.value.reason
        return refusal.value.reason

    return make


def test_variables_are_inserted(render):
    text = "kernel {{ variables.kernel }} ip={{ ip }} {{ groups.host | upper }}\n"
    variables = {"ip": "10.0.0.7", "variables": {"kernel": "vmlinuz"}, "groups": {"host": "web"}}
    assert render(text, **variables) == b"kernel vmlinuz ip=10.0.0.7 WEB\n"


def test_a_line_with_only_tags_leaves_no_output(render):
    text = "a\n  {% for x in [1, 2] %}\n  {{ x }}\n  {% endfor %}\n{# why #}\nb\n"
    assert render(text) == b"a\n  1\n  2\nb\n"


def test_a_plus_sign_keeps_the_whitespace_around_a_tag(render):
    assert render("a\n  {%+ if true +%}\nb{% endif %}\n") == b"a\n  \nb"


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
def test_line_ends_at_the_end_of_the_file_are_kept(render, end):
    assert render(b"a {{ 1 }}" + end) == b"a 1" + end


def test_line_ends_are_those_of_the_template(render):
    assert render(b"a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n{{ 1 }}\r\n") == b"a\r\nb\r\n1\r\n"


def test_nothing_is_escaped_for_html(render):
    assert render("{{ a }} <b>", a='<"&>') == b'<"&> <b>'


def test_an_empty_template_gives_an_empty_file(render):
    assert render("") == b""


def test_bytes_that_are_not_utf8_are_kept(render):
    name = b"gr\xfc\xdfe/\xc3\xa9\xff"
    assert render("{{ name }}", name=os.fsdecode(name)) == name


def test_a_template_that_is_not_utf8_is_refused_with_a_line_number(refused):
    assert refused(b"a\nb\xff\n") == "not UTF-8 in line 2"


def test_an_undefined_variable_is_refused_with_a_line_number(refused):
    assert refused("a\n\n{{ kernel }}") == "line 3: 'kernel' is undefined"
    why = refused("{{ variables.kernel }}", variables={})
    assert why == "line 1: 'dict object' has no attribute 'kernel'"


def test_a_missing_variable_can_have_a_default(render):
    text = "{{ variables.kernel | default('vmlinuz') }} {{ 'mac' if mac else 'none' }}"
    assert render(text, variables={}, mac=None) == b"vmlinuz none"


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
def test_an_error_is_reported_with_a_line_number(refused, text, why):
    assert refused(text).startswith(why)


def test_a_variable_has_priority_over_a_method_with_the_same_name(render):
    assert (
        render("{{ variables.items }} {{ variables.get }}", variables={"items": 3, "get": 4})
        == b"3 4"
    )
    assert render("{{ variables.items() | list }}", variables={"a": 1}) == b"[('a', 1)]"


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
    "{{ dict['a'].mro()[1] }}",
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
def test_an_escape_from_the_sandbox_is_refused(refused, text):
    assert refused(text, variables={"list": [1, 2]})


def test_dict_accepts_pairs_and_keywords(render):
    assert render(
        "{{ dict([('a', 1)], b=2) }} {{ dict(variables, a=3) }}", variables={"a": 1, "c": 4}
    ) == (b"{'a': 1, 'b': 2} {'a': 3, 'c': 4}")


def test_text_from_a_client_is_not_rendered_as_a_template(render):
    assert (
        render("{{ name }}", name="{{ ''.__class__ }}{% for %}") == b"{{ ''.__class__ }}{% for %}"
    )


def test_a_file_larger_than_allowed_is_refused(render, refused):
    text = "{% for x in range(10) %}xxxxxxxxxx{% endfor %}"
    assert render(text, max_size=100) == b"x" * 100
    assert refused(text, max_size=99) == "the file is larger than 99 bytes"


def test_a_template_larger_than_allowed_is_refused(render, refused):
    assert render(b" " * MAX_TEMPLATE_BYTES) == b" " * MAX_TEMPLATE_BYTES
    why = refused(b" " * (MAX_TEMPLATE_BYTES + 1))
    assert why == f"has {MAX_TEMPLATE_BYTES + 1} bytes, the limit is {MAX_TEMPLATE_BYTES}"


@pytest.mark.parametrize("text", ["{% include 't.j2' %}", "{% import 't.j2' as t %}"])
def test_a_template_that_includes_itself_is_refused(refused, text):
    assert refused(text) == "line 1: nested too deeply, or includes itself"


def test_a_template_that_extends_itself_is_refused(refused):
    assert refused("{% extends 't.j2' %}")


def test_a_deeply_nested_expression_is_refused(refused):
    assert refused("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}") == (
        "nested too deeply, or includes itself"
    )


def test_templates_below_the_root_can_be_included(render, template):
    template("{{ ip }}!", "common/part.j2")
    template("{% macro hello(x) %}hello {{ x }}{% endmacro %}", "common/macros.j2")
    template("<{% block body %}{% endblock %}>", "base.j2")
    text = (
        "{% extends '/base.j2' %}{% block body %}{% include 'common//./part.j2' %}"
        "{% from 'common/macros.j2' import hello %} {{ hello('you') }}{% endblock %}"
    )
    assert render(text, ip="10.0.0.7") == b"<10.0.0.7! hello you>"


def test_included_names_are_relative_to_the_root(sandbox, template):
    template("inner", "part.j2")
    template("other", "sub/part.j2")
    grant = template("{% include 'part.j2' %}", "sub/t.j2")
    assert sandbox.render(RenderJob(grant, {}, MAX_SIZE, 2.0)) == b"inner"


def test_included_names_are_relative_to_the_clients_own_directory(sandbox, root, template):
    template("everyone's", "part.j2")
    template("mine", "52-54/part.j2")
    template("another's", "52-55/part.j2")
    (root / "52-54" / "link.j2").symlink_to("../part.j2")
    text = "{% include 'part.j2' %} {% include '/link.j2' %}"
    grant = replace(template(text, "52-54/sub/t.j2"), own=1)
    assert sandbox.render(RenderJob(grant, {}, MAX_SIZE, 2.0)) == b"mine everyone's"
    for name in ("../52-55/part.j2", "52-55/part.j2", ""):
        grant = replace(template(f"{{% include '{name}' %}}", "52-54/t.j2"), own=1)
        with pytest.raises(RequestRefused):
            sandbox.render(RenderJob(grant, {}, MAX_SIZE, 2.0))


def test_an_error_in_an_included_template_names_that_template(refused, template):
    template("\n{{ nothing }}", "part.j2")
    assert refused("{% include 'part.j2' %}") == "in part.j2 line 2: 'nothing' is undefined"
    template("\n\n{% if %}", "part.j2")
    assert refused("{% include 'part.j2' %}").startswith("in part.j2 line 3: Expected an")


def test_a_missing_include_can_be_ignored(render, refused):
    assert render("a{% include 'hosts/' ~ ip ~ '.j2' ignore missing %}b", ip="1") == b"ab"
    assert render("{% include ['x.j2', 'y.j2'] ignore missing %}b") == b"b"
    assert refused("\n{% include 'x.j2' %}") == 'line 2: there is no "x.j2"'
    assert "x.j2, y.j2" in refused("{% include ['x.j2', 'y.j2'] %}")


def test_the_first_existing_include_is_used(render, template):
    template("default", "default.j2")
    assert render("{% include [ip ~ '.j2', 'default.j2'] %}", ip="1") == b"default"


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
    ],
)
@pytest.mark.parametrize("how", ["{% include 'NAME' %}", "{% import 'NAME' as x %}{{ x }}"])
def test_no_file_outside_the_root_is_included(refused, root, name, how):
    (root / "link.j2").symlink_to("../outside/secret.j2")
    (root / "directory").symlink_to("../outside")
    (root / "absolute.j2").symlink_to(root.parent / "outside" / "secret.j2")
    (root / ".tftpd-upload-1").write_text("secret")
    os.mkfifo(root / "fifo")
    assert refused(how.replace("NAME", name))


def test_an_absolute_include_is_relative_to_the_root(render, refused, root):
    secret = root.parent / "outside" / "secret.j2"
    assert f'there is no "{secret}"' in refused(f"{{% include '{secret}' %}}")
    below = root / str(secret)[1:]
    below.parent.mkdir(parents=True)
    below.write_text("beneath")
    assert render(f"{{% include '{secret}' %}}") == b"beneath"


def test_a_refused_include_cannot_be_ignored(refused):
    why = refused("{% include '../outside/secret.j2' ignore missing %}")
    assert why == (
        'line 1: "../outside/secret.j2": a template name is relative to the root, without ".."'
    )


@pytest.mark.parametrize("name", [".tftpd-upload-1", ".TFTPD-Upload-1", "x/.Tftpd-upload-1"])
def test_names_of_unfinished_uploads_are_reserved_in_any_letter_case(refused, template, name):
    template("secret", name)
    assert "reserved for unfinished uploads" in refused(f"{{% include '{name}' %}}")


def test_the_link_policy_applies_to_includes(render, refused, root, template):
    template("inside", "real.j2")
    (root / "inner.j2").symlink_to("real.j2")
    (root / "outer.j2").symlink_to("../outside/secret.j2")
    assert render("{% include 'inner.j2' %}") == b"inside"
    assert refused("{% include 'inner.j2' %}", symlinks=Symlinks.DENY)
    assert render("{% include 'outer.j2' %}", symlinks=Symlinks.FOLLOW) == b"secret"


def test_includes_must_be_world_readable_if_the_policy_says_so(render, refused, root, template):
    template("part", "part.j2")
    (root / "part.j2").chmod(0o640)
    assert render("{% include 'part.j2' %}") == b"part"
    assert "o+r" in refused("{% include 'part.j2' %}", world_readable=True)


def test_a_missing_template_is_file_not_found(sandbox, template):
    with pytest.raises(RequestRefused) as refusal:
        sandbox.render(RenderJob(template(None), {}, MAX_SIZE, 2.0))
    assert refusal.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_changed_template_is_used_at_once(render, root, template):
    template("1", "part.j2")
    assert render("a{% include 'part.j2' %}") == b"a1"
    before = (root / "part.j2").stat()
    (root / "part.j2").write_text("2")
    os.utime(root / "part.j2", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert render("a{% include 'part.j2' %}") == b"a2"
    assert render("b{% include 'part.j2' %}") == b"b2"


def test_an_unchanged_template_is_compiled_once(render, template, monkeypatch):
    compiled = []
    compile_ = jinja2.Environment.compile

    def counted(environment, source, name):
        compiled.append(name)
        return compile_(environment, source, name)

    monkeypatch.setattr(jinja2.Environment, "compile", counted)
    template("{{ n }} once", "part.j2")
    for number in range(3):
        text = "{% for i in range(3) %}{% include 'part.j2' %}{% endfor %} once"
        assert render(text, n=number) == b"%d once%d once%d once once" % ((number,) * 3)
    assert compiled == ["t.j2", "part.j2"]


@pytest.mark.check
@pytest.mark.parametrize(("count", "size"), [(20, MAX_TEMPLATE_BYTES // 2), (1000, 1)])
def test_the_cache_of_compiled_templates_is_limited(render, sandbox, count, size):
    for number in range(count):
        render(f"{number}{' ' * size}")
    kept = sandbox._cache
    assert kept._size == sum(len(data) + 8192 for _, data in kept._codes) <= 4 << 20
    assert len(kept._codes) < count


def test_no_value_remains_for_the_next_client(render, template):
    template(
        "{% set n = namespace(count=0) %}"
        "{% macro count() %}{% set n.count = n.count + 1 %}{{ n.count }}{% endmacro %}",
        "count.j2",
    )
    text = "{% import 'count.j2' as c %}{{ c.count() }}{{ c.count() }}"
    assert render(text) == b"12"
    assert render(text) == b"12"


def test_variables_of_the_job_are_not_changed(render):
    variables = {"a": 1}
    render("{% set a = 2 %}{% set variables = {} %}{{ a }}", variables=variables, a=1)
    assert variables == {"a": 1}


def test_an_error_is_one_line_of_limited_length(refused):
    assert "\\n" in refused("{{ x['a\\nb'] }}", x={})
    assert len(refused("{{ x['" + "a" * 2000 + "'] }}", x={})) < 400


def test_a_jinja2_whose_sandbox_has_a_hole_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox_module, "_Environment", jinja2.Environment)
    with pytest.raises(ImportError, match=r"is unsafe: .* install 3\.1\.6 or newer"):
        TemplateSandbox()


@pytest.mark.parametrize("template", sandbox_module._ESCAPES)
def test_each_escape_works_without_a_sandbox(template):
    """Otherwise it would not detect a hole."""
    assert "class" in jinja2.Environment().from_string(template).render()
