"""Configuration: layers, origins, and errors with file and line."""

from __future__ import annotations

import os
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import ConfigError, DeniedError, PluginError
from nvcore.api.offers import ConfigSection
from nvcore.config.files import check, load, parse
from nvcore.config.lines import find_lines
from nvcore.config.model import Configuration, Tables
from nvcore.config.places import config_files, runtime_dir, socket_path, state_dir
from nvcore.config.sections import build, place


def write(folder: Path, **files: str) -> list[str]:
    paths = []
    for name, text in files.items():
        path = folder / f"{name}.toml"
        path.write_text(text)
        paths.append(str(path))
    return paths


def test_later_files_win_key_by_key_and_lists_are_replaced(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        a='[host]\nlog_level = "debug"\ngroup = "gpu"\n[plugins]\nonly = ["a"]\n'
        '[plugins.toy]\nx = 1\ny = 1\n[[gpu]]\nsource = "pci:1"\n[[gpu]]\nsource = "pci:2"\n',
        b='[host]\ngroup = "b"\n[plugins.toy]\ny = 2\n[[gpu]]\nsource = "pci:3"\n',
    )
    configuration = load(files=files, command_line={"host": {"log_level": "error"}})
    assert (configuration.host.log_level, configuration.host.group) == ("error", "b")
    assert [gpu.source for gpu in configuration.gpus] == ["pci:3"]
    assert configuration.sections == {"toy": {"x": 1, "y": 2}}
    assert configuration.plugins.only == ["a"]
    assert configuration.where("host", "log_level") == "command line"
    assert configuration.where("host", "group") == f"{files[1]}:2"
    assert configuration.where("plugins", "toy", "x") == f"{files[0]}:7"
    assert place(configuration.origins, ("gpu", 0)) == f"{files[1]}:5"
    assert configuration.where("gpu", 1, "source") == "default"
    assert configuration.where("host", "time_scale") == "default"


WRONG = {
    '[host]\ngroup = "a"\nsockett = "x"\n': (3, "did you mean socket?"),
    "[hosts]\n": (1, "did you mean host?"),
    "\nx = 1\n": (2, None),
    '[host]\nlog_level = "loud"\n': (2, None),
    "[host]\ntime_scale = true\n": (2, None),
    "[host]\ntime_scale = 0\n": (2, None),
    "[host]\ntime_scale = nan\n": (2, None),
    "host = 3\n": (1, None),
    '[[gpu]]\nsource = "pci:1"\n[[gpu]]\n\nsource = 3\n': (5, None),
    '[[gpu]]\nsource = "pci:1"\n[[gpu]]\nsorce = "x"\n': (4, "did you mean source?"),
    '[[gpu]]\nsource = "pci:1"\n[[gpu]]\nsource = "pci:2"\n[[gpu]]\nsource = "pci:1"\n': (6, None),
    "[[gpu]]\n": (1, None),
    '[[gpu]]\nsource = "nowhere"\n': (2, None),
    'gpu = "pci:1"\n': (1, None),
    "gpu = [1]\n": (1, None),
    '[plugins]\nonly = "a"\n': (2, None),
    "[plugins]\ndisable = [\n 1,\n]\n": (2, None),
    "[plugins]\ndisabled = []\n": (2, "did you mean disable?"),
    "plugins = 1\n": (1, None),
    "[plugins.only]\nx = 1\n": (1, None),
    "[host\n": (1, None),
    "a = 1\na = 2\n": (2, None),
    "[host]\ngroup = 'x\n": (3, None),  # as tomllib counts: the text ends behind line 2
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_refused_with_file_and_line(tmp_path: Path, text: str) -> None:
    line, remedy = WRONG[text]
    (path,) = write(tmp_path, x=text)
    with pytest.raises(ConfigError) as caught:
        load(files=[path])
    assert caught.value.where == f"{path}:{line}"
    assert caught.value.exit_code == 78
    if remedy:
        assert caught.value.remedy == remedy


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"[host]\ngroup = '\xff'\n")
    with pytest.raises(ConfigError) as caught:
        load(files=[str(path)])
    assert caught.value.where == f"{path}:2"
    with pytest.raises(ConfigError):
        load(files=[str(tmp_path / "absent.toml")])


def test_a_wrong_value_in_an_early_file_is_not_hidden_by_a_later_one(tmp_path: Path) -> None:
    files = write(tmp_path, a="[host]\ngroup = 1\n", b='[host]\ngroup = "ok"\n')
    with pytest.raises(ConfigError) as caught:
        load(files=files)
    assert caught.value.where == f"{files[0]}:2"


TRICKY = '''# a comment
"quoted.key" = 1
a.b . "c" = { inline = 1, [] = 2 }
text = """
not = "a key"
[not.a.table]
"""
raw = \'\'\'
x = 1\'\'\'
list = [
  "a]", # ]
  [1, 2],
]
after = 1
[table."with.dot".x]
y = "= [ # \\" "
[[array]]
z = 1
[[array]]
z = 2
[array.inner]
w = 3
'''


def test_lines_are_found_through_strings_lists_and_quoted_keys() -> None:
    found = find_lines(TRICKY.replace("[] = 2", "k = 2"))
    assert found[("quoted.key",)] == 2
    assert found[("a", "b", "c")] == 3
    assert (found[("text",)], found[("raw",)], found[("list",)], found[("after",)]) == (4, 8, 10, 14)
    assert found[("table", "with.dot", "x", "y")] == 16
    assert (found[("array", 0, "z")], found[("array", 1, "z")], found[("array", 1, "inner", "w")]) == (18, 20, 22)
    assert ("not",) not in found and ("x",) not in found


toml_keys = st.text(alphabet="abcz-_09", min_size=1, max_size=5)
toml_values = st.recursive(
    st.integers(-5, 5).map(str)
    | st.booleans().map(lambda b: str(b).lower())
    | st.sampled_from(['"x"', "'[#'", '"""\na = 1\n"""', '"\\""']),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(items) + "\n]"),
    max_leaves=4,
)


@given(st.dictionaries(toml_keys, st.dictionaries(toml_keys, toml_values, max_size=4), max_size=4))
def test_every_key_that_tomllib_sees_has_the_line_on_which_it_stands(tables: dict[str, dict[str, str]]) -> None:
    text = "".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in of.items()) for name, of in tables.items())
    found, lines = find_lines(text), text.splitlines()
    for name, table in tomllib.loads(text).items():
        assert lines[found[(name,)] - 1] == f"[{name}]"
        for key in table:
            assert lines[found[(name, key)] - 1].startswith(f"{key} = ")


@given(st.text(max_size=80) | st.text(alphabet="[]{}\"'=.#\n ab1hostgpuplugins", max_size=80))
def test_any_text_is_a_configuration_or_a_declared_error(text: str) -> None:
    try:
        tree, lines = parse(text, "x.toml")
        check(tree, {path: f"x.toml:{line}" for path, line in lines.items()})
    except ConfigError as error:
        assert error.where


VALID = '[host]\nlog_level = "debug"\ntime_scale = 2.5\n[[gpu]]\nsource = "pci:0000:41:00.0"\n'
VALID += '[plugins]\nonly = ["a", "b"]\n[plugins.toy]\nx = 1\n'


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.characters(max_codepoint=0x2FF)), min_size=1, max_size=4))
def test_mutations_of_a_valid_file_are_a_configuration_or_a_declared_error(changes: list[tuple[int, str]]) -> None:
    text = list(VALID)
    for at, char in changes:
        text[at] = char
    try:
        tree, lines = parse("".join(text), "x.toml")
        check(tree, {path: f"x.toml:{line}" for path, line in lines.items()})
    except ConfigError as error:
        assert error.where


def arbitrary(chooser: random.Random) -> bytes:
    """Bytes of no form, of TOML's alphabet, and of text in other encodings."""
    match chooser.randrange(40) % 5:
        case 4 if chooser.random() < 0.2:  # a number beyond int's text limit, a day that is none, tables nested beyond the parser
            return b"x = " + chooser.choice((b"9" * 5000, b"9999-99-99", b"[" * 2000, b"{a=" * 2000, b"0x" + b"f" * 40))
        case 0:
            return chooser.randbytes(chooser.randrange(200))
        case 1:
            return bytes(chooser.choices(b"[]{}\"'=.,#\n\r\t \\_-+:0x1aehostgpulisrce\xc3\xa9\xff\x00", k=chooser.randrange(60)))
        case 2:
            return VALID.encode() + b"\n" + chooser.randbytes(chooser.randrange(1, 9))
        case _:
            return chooser.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"")) + VALID.encode(chooser.choice(("utf-16", "utf-8", "latin-1")))


def mutated(chooser: random.Random) -> bytes:
    """The valid file with bytes changed, taken out and put in."""
    data = bytearray(VALID.encode())
    for _ in range(chooser.randint(1, 4)):
        at = chooser.randrange(len(data))
        data[at : at + chooser.randrange(3)] = chooser.randbytes(chooser.randrange(3))
    return bytes(data)


@pytest.mark.parametrize("make", [arbitrary, mutated])
def test_two_thousand_files_of_any_bytes_are_loaded_or_refused_by_name(tmp_path: Path, make: Callable[[random.Random], bytes]) -> None:
    chooser, path, read = random.Random(0), tmp_path / "x.toml", 0
    for _ in range(2000):
        path.write_bytes(make(chooser))
        try:
            read += isinstance(load(files=[str(path)]), Configuration)
        except ConfigError as error:
            assert error.where is not None and error.where.startswith(str(path))
    assert 20 < read < 1980


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="too large"):
        load(files=[str(path)])


def test_drop_ins_come_in_lexical_order_and_mask_vendor_files(tmp_path: Path) -> None:
    usr, etc = tmp_path / "usr", tmp_path / "etc"
    (etc / "conf.d").mkdir(parents=True)
    usr.mkdir()
    for path in (
        usr / "10-a.toml",
        usr / "20-b.toml",
        etc / "nvcore.toml",
        etc / "conf.d" / "20-b.toml",
        etc / "conf.d" / "05-c.toml",
        etc / "conf.d" / ".hidden.toml",
        etc / "conf.d" / "note.txt",
    ):
        path.write_text("")
    found = config_files("given.toml", environ={"NVCORE_CONFIG": "env.toml"}, usr=str(usr), etc=str(etc))
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        "usr/10-a.toml",
        "etc/nvcore.toml",
        "etc/conf.d/05-c.toml",
        "etc/conf.d/20-b.toml",
        "env.toml",
        "given.toml",
    ]


def test_places_follow_systemd_then_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_dir({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == "/run/a"
    assert state_dir({"STATE_DIRECTORY": "/var/lib/a"}) == "/var/lib/a"
    assert socket_path({"NVCORE_SOCKET": "/x.sock", "RUNTIME_DIRECTORY": "/run/a"}) == "/x.sock"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert socket_path({"XDG_RUNTIME_DIR": "/run/user/1000"}) == "/run/user/1000/nvcore/nvcore.sock"
    assert state_dir({"XDG_STATE_HOME": "/s"}) == "/s/nvcore"
    assert state_dir({"HOME": "/h"}) == "/h/.local/state/nvcore"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert (runtime_dir({}), state_dir({})) == ("/run/nvcore", "/var/lib/nvcore")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in /tmp of a user who is not there."""
    uid = 900_000_000 + os.getpid()
    monkeypatch.setattr("os.geteuid", lambda: uid)
    path = Path(f"/tmp/nvcore-{uid}")
    yield path
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def test_a_folder_in_tmp_that_is_somebody_elses_is_not_used(shared: Path, tmp_path: Path) -> None:
    inside = f"{shared}/nvcore"
    assert runtime_dir({}) == inside, "one that is not there is made by the daemon"
    shared.mkdir(mode=0o755)
    with pytest.raises(DeniedError, match=f"at {shared}; seen owner {os.getuid()}, drwxr-xr-x; set XDG_RUNTIME_DIR"):
        runtime_dir({})
    assert runtime_dir({"XDG_RUNTIME_DIR": "/run/user/1"}) == "/run/user/1/nvcore" and runtime_dir({"RUNTIME_DIRECTORY": "/x"}) == "/x"
    if os.getuid() == 0:
        os.chown(shared, os.geteuid(), 0)
        assert runtime_dir({}) == inside
        shared.chmod(0o775)
        with pytest.raises(DeniedError, match="drwxrwxr-x"):
            runtime_dir({})
    shared.rmdir()
    shared.symlink_to(tmp_path)
    with pytest.raises(DeniedError, match="lrwxrwxrwx"):
        runtime_dir({})


@attrs.frozen
class Inner:
    path: Path = Path("/x")


@attrs.frozen
class Record:
    count: int
    ratio: float = 1.0
    names: list[str] = attrs.field(factory=list)
    pair: tuple[int, ...] = ()
    maybe: str | None = None
    inner: Inner = attrs.field(factory=Inner)
    table: dict[str, int] = attrs.field(factory=dict)
    either: int | list[int] | None = None
    mode: Literal["fast", "safe", 3] = "safe"
    anything: Any = None
    even: int = attrs.field(default=2)

    @even.validator
    def _even(self, _: object, value: int) -> None:
        if value % 2:
            raise ValueError("an even number")


OFFER = ConfigSection(name="x", summary="", record=Record, plugin="toy")


def section(table: dict[str, object]) -> Configuration:
    lines: dict[tuple[str | int, ...], str] = {("plugins", "toy", key): f"f:{n}" for n, key in enumerate(table, 2)}
    return Configuration(Tables(), {"plugins": {"toy": table}}, {("plugins", "toy"): "f:1", **lines}, [])


def test_a_section_becomes_the_plugins_record() -> None:
    record = build(
        OFFER, section({"count": 3, "ratio": 2, "names": ["a"], "pair": [1, 2], "maybe": "m", "inner": {"path": "/y"}, "table": {"a": 1}})
    )
    assert record == Record(3, 2.0, ["a"], (1, 2), "m", Inner(Path("/y")), {"a": 1})
    assert build(OFFER, section({"count": 3, "either": [4], "mode": 3, "anything": True})) == Record(3, either=[4], mode=3, anything=True)


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"count": "3"}, "f:2"),
        ({"count": True}, "f:2"),
        ({"count": 1, "names": ["a", 2]}, "f:3"),
        ({"count": 1, "inner": {"path": 3}}, "f:3"),
        ({"count": 1, "inner": {"pth": "x"}}, "f:3"),
        ({"count": 1, "maybe": 1}, "f:3"),
        ({"count": 1, "table": {"a": "b"}}, "f:3"),
        ({}, "f:1"),
        ({"count": 1, "even": 3}, "f:1"),
        ({"count": 1, "more": 1}, "f:3"),
        ({"count": 1, "names": "a"}, "f:3"),
        ({"count": 1, "either": "a"}, "f:3"),
        ({"count": 1, "either": True}, "f:3"),
        ({"count": 1, "either": ["a"]}, "f:3"),
        ({"count": 1, "mode": True}, "f:3"),
    ],
)
def test_what_does_not_fit_the_record_is_refused_at_its_line(table: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(OFFER, section(table))
    assert caught.value.where == where and caught.value.expected


def test_a_value_that_fits_no_kind_of_several_is_answered_with_all_of_them() -> None:
    with pytest.raises(ConfigError) as caught:
        build(OFFER, section({"count": 1, "either": {"a": 1}}))
    assert (caught.value.expected, caught.value.seen) == ("a whole number or a list", "a table: {'a': 1}")


def test_a_misspelt_key_of_a_section_is_answered_with_the_key_that_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        build(OFFER, section({"count": 1, "nmaes": []}))
    assert caught.value.what == "unknown key 'nmaes' in [plugins.toy]" and caught.value.remedy == "did you mean names?"


def test_an_older_section_is_migrated_and_a_record_must_be_attrs() -> None:
    offer = ConfigSection(
        name="x", summary="", record=Record, migrate=lambda version, table: {"count": table["slots"] + version}, plugin="toy"
    )
    assert build(offer, section({"version": 1, "slots": 4})).count == 5
    with pytest.raises(PluginError):
        build(ConfigSection(name="x", summary="", record=int, plugin="toy"), None)


RELATIVE = [("socket", "here.sock"), ("state_dir", "./state"), ("state_dir", ""), ("socket", "/a\\u0000b"), ("state_dir", "/a\\u0000b")]


@pytest.mark.parametrize(("key", "value"), [*RELATIVE, ("socket", "/" + "s" * 107)])
def test_a_place_is_absolute_without_nul_and_a_socket_fits_the_kernels_limit(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"host.{key}") as refused:
        load(files=write(tmp_path, a=f'[host]\n{key} = "{value}"\n'))
    assert str(refused.value.where).endswith("a.toml:2")


def test_a_socket_of_the_kernels_limit_is_taken(tmp_path: Path) -> None:
    path = "/" + "s" * 106
    assert load(files=write(tmp_path, a=f'[host]\nsocket = "{path}"\n')).host.socket == path
