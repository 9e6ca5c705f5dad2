"""Versions, specifiers, requirements and markers: the answers of `packaging`, the outside judge."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Theirs
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion
from packaging.version import Version as TheirVersion

from nvcore.plugins.markers import evaluate
from nvcore.plugins.versions import Version, VersionSyntax, above, check, parse, satisfies

number = st.integers(0, 12).map(str)
release = st.lists(number, min_size=1, max_size=4).map(".".join)
version = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "1!", "v"]),
        release,
        st.sampled_from(["", "a1", "b2", "rc1", ".alpha.3", "-c4", "_pre5", "preview", "a"]),
        st.sampled_from(["", ".post1", "-2", ".rev3", "post", "-r4"]),
        st.sampled_from(["", ".dev1", "dev", "-dev3"]),
        st.sampled_from(["", "+local", "+local.7", "+a-1_b"]),
    ),
)


@given(version, version)
def test_versions_order_as_packaging_orders_them(one: str, other: str) -> None:
    ours = (Version(one).key > Version(other).key) - (Version(one).key < Version(other).key)
    theirs = (TheirVersion(one) > TheirVersion(other)) - (TheirVersion(one) < TheirVersion(other))
    assert ours == theirs


@given(st.text(alphabet="0123456789.!+-_abcdevoprst*", max_size=12))
def test_what_packaging_refuses_is_refused(text: str) -> None:
    try:
        TheirVersion(text)
        valid = True
    except InvalidVersion:
        valid = False
    try:
        Version(text)
        ours = True
    except VersionSyntax:
        ours = False
    assert ours == valid


@pytest.mark.parametrize("text", ["<0.post1", ">1.0a1", ">1.0a1.dev1", "<1.0"])
@pytest.mark.parametrize("installed", ["0.dev1", "1.0a1", "1.0.post1", "1.0a1.post1", "1.0.dev0", "0.post1.dev0"])
def test_the_edges_of_a_bound_lie_where_packaging_sees_them(installed: str, text: str) -> None:
    assert satisfies(installed, text) == SpecifierSet(text).contains(installed, prereleases=True)


operator = st.sampled_from(["==", "!=", "<=", ">=", "<", ">", "~="])


@given(version, st.lists(st.tuples(operator, version | release.map(lambda r: r + ".*")), min_size=1, max_size=3))
def test_specifiers_hold_as_in_packaging(installed: str, clauses: list[tuple[str, str]]) -> None:
    text = ",".join(op + of for op, of in clauses)
    try:
        theirs = SpecifierSet(text).contains(installed, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return
    assert satisfies(installed, text) == theirs


MARKERS = [
    'python_version < "3.12"',
    "python_version >= '3.8' and extra == 'test'",
    "sys_platform == 'linux' or os_name == 'nt'",
    "(sys_platform == 'win32' or python_version > '3.0') and implementation_name == 'cpython'",
    "platform_system == 'Linux'",
    "'linux' in sys_platform",
    "sys_platform not in 'win32 darwin'",
    "python_full_version >= '3.11.0'",
    "platform_machine != 'sparc'",
    "platform_python_implementation == 'CPython'",
    "extra == 'a' or extra == 'b'",
]


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_hold_as_in_packaging(marker: str) -> None:
    assert evaluate(marker) == Marker(marker).evaluate({"extra": ""})


term = st.sampled_from([*MARKERS, "os_name < 'a'", "platform_system >= 'Linux'", "extra <= ''", "'3' in python_version"])
marker_text = st.recursive(
    term, lambda inner: st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join) | inner.map("({})".format), max_leaves=8
)


@given(marker_text)
def test_terms_joined_and_grouped_hold_as_in_packaging(marker: str) -> None:
    assert evaluate(marker) == Marker(marker).evaluate({"extra": ""})


@pytest.mark.parametrize(
    "marker", ["", "()", "(os_name == 'a'", "os_name == 'a')", "os_name", "os_name == 'a' 'b'", "os_name == 'a' and", "\1"]
)
def test_a_marker_without_sense_is_refused(marker: str) -> None:
    with pytest.raises(VersionSyntax):
        evaluate(marker)


@given(st.text(alphabet="()'\" andornotinextra=<>~!python_versionos.3", max_size=40))
def test_any_marker_ends_in_an_answer_or_a_declared_error(marker: str) -> None:
    with suppress(VersionSyntax):
        assert evaluate(marker) in (True, False)


@pytest.mark.parametrize(
    "line",
    [
        "foo",
        "foo>=1",
        "foo (>=1,<2)",
        "foo[x,y]>=1",
        "Foo.Bar ~=1.0; python_version > '3'",
        "foo@ https://example.org/x ; extra == 'e'",
        "foo @ https://example.org/x;y",
        "foo==1.*",
        "foo >=1 , <2",
    ],
)
def test_requirements_are_taken_apart_as_in_packaging(line: str) -> None:
    name, specifiers, marker = parse(line)
    theirs = Theirs(line)
    assert name == theirs.name
    assert SpecifierSet(specifiers) == theirs.specifier
    assert bool(marker) == (theirs.marker is not None)


@pytest.mark.parametrize("line", ["", ">=1", "foo[x", "föö", "; python_version > '3'"])
def test_a_requirement_without_sense_is_refused(line: str) -> None:
    with pytest.raises(VersionSyntax):
        parse(line)
    with pytest.raises(InvalidRequirement):
        Theirs(line)


def test_a_requirement_of_an_extra_is_not_asked_for() -> None:
    assert check("toy", ["absent; extra == 'x'"], {}) is None


@pytest.mark.parametrize(
    ("lines", "installed", "remedy"),
    [
        (["absent>=2"], {}, "pip install 'absent>=2'"),
        (["thing>=2"], {"thing": "1.0"}, "pip install --upgrade 'thing>=2'"),
        (["nvcore==0.1.0"], {"nvcore": "0.2.0"}, "pip install --upgrade toy"),
        (["nvcore>=0.1,<0.2"], {"nvcore": "0.2.0"}, "pip install --upgrade toy"),
        (["nvcore~=0.1.0"], {"nvcore": "0.2.0"}, "pip install --upgrade toy"),
        (["nvcore>=0.3"], {"nvcore": "0.2.0"}, "pip install --upgrade 'nvcore>=0.3'"),
    ],
)
def test_the_pip_line_mends_the_right_side(lines: list[str], installed: dict[str, str], remedy: str) -> None:
    found = check("toy", lines, installed)
    assert found is not None and found[1] == remedy


def test_above_tells_a_plugin_left_behind_from_a_host_too_old() -> None:
    assert above("0.2", "==0.1") and above("2", ">=1,<2") and not above("0.2", ">=0.3") and not above("0.1", "==0.2")
