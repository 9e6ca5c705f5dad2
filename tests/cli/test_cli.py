"""The command line: exit codes, formats, streams (F33), nouns of plugins, and no plugin imported where none is used."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvcore.cli.args import Arguments
from nvcore.cli.context import Context
from nvcore.cli.main import main
from nvcore.cli.output import safe, table
from tests.plugins.building import CLIENT, OBSERVER, SECTION, distribution, plugin

ROOT = Path(__file__).parents[2]
GOOD = CLIENT.format(name="good", claim="toy-good")


class Site:
    """A folder of throwaway plugins, and `nvcore` run with nothing but them selected."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, ["absent-marker"]
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "NVCORE_SOCKET": str(folder / "no.sock"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def plugin(self, name: str, source: str, **more: Any) -> Path:
        self.names.append(name)
        return plugin(self.folder, name, source, **more)

    def command(self, *argv: str, select: bool = True) -> list[str]:
        self.names = [name for name in self.names if name != "absent-marker"]
        chosen = ["--only", ",".join(self.names)] if select and self.names else ["--no-plugins"] if select else []
        return [sys.executable, "-P", "-m", "nvcore", *chosen, *argv]

    def run(self, *argv: str, select: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*argv, select=select),
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def documents(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["generated_at"])
    return found


def test_list_imports_no_plugin_and_needs_neither_pluggy_nor_attrs(site: Site) -> None:
    site.plugin("loud", "raise SystemExit('imported')", family="client")
    code = (
        "import sys\nfrom nvcore.cli.main import main\ncode = main(['--only', 'loud', 'plugins', 'list'])\n"
        "heavy = {'pluggy', 'attr', 'attrs', 'argparse', 'json', 're', 'typing', 'importlib.metadata', 'rich', 'tomllib', 'toy_loud'}\n"
        "heavy &= set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-P", "-S", "-c", code], env=site.env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "loud" in done.stdout


def test_doctor_finds_what_list_cannot_and_both_exit_7_for_what_they_see(site: Site) -> None:
    site.plugin("good", GOOD, family="client")
    site.plugin("raises", "1 / 0", family="client")
    assert site.run("plugins", "list").returncode == 0
    done = site.run("plugins", "doctor", "--json")
    assert done.returncode == 7
    rows = {row["name"]: row for row in documents(done.stdout)["plugins"]}
    assert rows["raises"]["code"] == "NVC-1101" and rows["raises"]["remedy"] and rows["good"]["state"] == "registered"
    site.plugin("newer", "", family="client", generation=2)
    done = site.run("plugins", "list")
    assert done.returncode == 7
    assert "nvcore explain NVC-1104" in done.stdout and "pip install --upgrade nvcore" in done.stdout


def test_list_exits_7_for_whatever_the_index_alone_shows_to_be_wrong(site: Site) -> None:
    site.plugin("same", GOOD, family="client", dist="toy-first")
    assert site.run("plugins", "list").returncode == 0
    site.plugin("same", GOOD, family="client", dist="toy-second")
    done = site.run("plugins", "list")
    assert done.returncode == 7 and "claimed by toy-first and toy-second" in done.stdout
    assert site.run("-p", "no:toy-second", "plugins", "list").returncode == 0
    site.plugin("needy", "", requires=("absent-thing>=2",))
    done = site.run("--only", "needy", "plugins", "list", select=False)
    assert done.returncode == 7 and "do: pip install 'absent-thing>=2'" in done.stdout


def test_a_plugin_that_hangs_in_start_ends_with_the_process(site: Site) -> None:
    site.plugin("hangs", OBSERVER.format(started="time.sleep(3600)", stopping="pass"))
    code = (
        "from nvcore.plugins.host import PluginHost, Selection\nhost = PluginHost(limit=0.2)\nhost.load(Selection(only=['hangs']))\n"
        "host.start(None)\nhost.teardown()\nprint(host.plugin('hangs').code)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], env=site.env, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "NVC-1109\n", "")


QUICK = (
    "import sys\nfrom nvcore.plugins.host import PluginHost\nPluginHost.__init__.__kwdefaults__['limit'] = 0.1\n"
    "from nvcore.cli.main import main\nsys.exit(main())"
)


def test_a_plugin_that_waits_for_the_keyboard_while_it_is_imported_does_not_abort_the_process_at_its_end(site: Site) -> None:
    site.plugin("asks", "input()\n" + GOOD, family="client")
    site.plugin("good", GOOD, family="client")
    read, write = os.pipe()  # a terminal at which nobody types
    command = [sys.executable, "-P", "-c", QUICK, "--only", "asks,good"]
    (site.folder / "x.toml").write_text("[plugins]\nrequired = ['asks']\n")
    for words, code in ((["plugins", "doctor"], 7), (["config", "check", "--config", str(site.folder / "x.toml")], 1)):
        done = subprocess.run([*command, *words], env=site.env, stdin=read, capture_output=True, text=True, timeout=20)
        assert done.returncode == code and "Fatal" not in done.stderr, done.stderr
        assert "was abandoned in thread" in done.stdout + done.stderr
    os.close(read)
    os.close(write)


def test_a_terminal_that_reports_width_0_has_an_unknown_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda descriptor: os.terminal_size((0, 0)))
    monkeypatch.setattr("sys.stdout", sys.__stdout__)
    assert Context(Arguments()).columns is None


def test_a_disabled_plugin_is_shown_and_is_not_wrong(site: Site) -> None:
    site.plugin("newer", "", family="client", generation=2)
    done = site.run("-p", "no:newer", "plugins", "list", "--json")
    assert done.returncode == 0
    (row,) = (row for row in documents(done.stdout)["plugins"] if row["name"] == "newer")
    assert (row["state"], row["reason"]) == ("disabled", "-p no:newer")


def test_damage_on_the_path_is_listed_with_its_place(site: Site) -> None:
    info = site.plugin("hurt", "")
    (info / "METADATA").write_bytes(b"\xff")
    done = site.run("--no-plugins", "plugins", "list", select=False)
    assert done.returncode == 7 and str(info) in done.stdout and "NVC-1110" in done.stdout


@pytest.mark.parametrize("output", ["table", "wide", "json", "jsonl", "name"])
def test_every_format_shows_every_plugin(site: Site, output: str) -> None:
    site.plugin("good", GOOD, family="client")
    done = site.run("plugins", "list", "-o", output)
    assert done.returncode == 0 and "good" in done.stdout
    if output == "name":
        assert "good" in done.stdout.splitlines()
    if output == "jsonl":
        assert {json.loads(line)["name"] for line in done.stdout.splitlines()} >= {"good"}


def test_show_tells_one_plugin_and_exits_3_for_none(site: Site) -> None:
    site.plugin("good", GOOD, family="client")
    assert "families: client = toy_good" in site.run("plugins", "show", "good").stdout
    done = site.run("plugins", "show", "nobody")
    assert done.returncode == 3 and done.stdout == "" and "NVC-1002" in done.stderr


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["plugins", "list", "--bogus"], 2),
        (["plugins", "lizt"], 2),
        (["plugins", "list", "-o", "yaml"], 2),
        (["nonsense"], 2),
        (["--only"], 2),
        (["-p", "vfio", "plugins", "list"], 2),
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["explain", "9998"], 3),
        (["explain"], 0),
        (["explain", "nvc-1104"], 0),
        (["plugins", "stop", "vfio"], 5),
        (["--timeout", "soon", "plugins", "stop", "vfio"], 2),
        (["config"], 2),
        (["config", "check"], 0),
        (["--config", "/absent.toml", "config", "show"], 78),
    ],
)
def test_exit_codes(site: Site, argv: list[str], code: int) -> None:
    done = site.run(*argv, select=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr.startswith("error:")) == (code not in (0,) and argv != [])


def test_an_error_is_never_on_the_screen_with_exit_code_0(site: Site) -> None:
    done = site.run("plugins", "list", "-o", "yaml")
    assert done.stderr.startswith("error:") and done.returncode != 0 and done.stdout == ""


COMMAND = """
def noun(argv, io):
    if argv == ["fail"]:
        from nvcore.api.errors import NotRunningError
        raise NotRunningError("vm \\x1b[31m is down", remedy="start it")
    io.out("said " + " ".join(argv) + "\\n")
    rows = [{"name": "\\x1b[2Jevil", "n": None}]
    io.show("table", schema="toy/1", key="rows", rows=rows, columns=[("name", "NAME", "left"), ("n", "N", "right")])
    return 6
"""


def test_a_noun_of_a_plugin_is_imported_only_when_used(site: Site) -> None:
    points = {"nvcore.command.v1": {"gadget": "toy_gadget:noun"}, "nvcore.client.v1": {"gadgets": "toy_gadget_client"}}
    modules = {"toy_gadget": "print('imported')\n" + COMMAND, "toy_gadget_client": "raise SystemExit"}
    distribution(site.folder, "toy-gadget", points=points, modules=modules)
    site.names.append("gadgets")
    shown = site.run("--help")
    assert re.search(r"gadget +toy-gadget 1\.0", shown.stdout) and "imported" not in shown.stdout
    done = site.run("gadget", "a", "--only", "b", "--timeout", "3")
    assert done.returncode == 6 and "said a --only b\n" in done.stdout
    assert "\x1b" not in done.stdout and "\\x1b[2Jevil" in done.stdout
    failed = site.run("gadget", "fail")
    assert failed.returncode == 3 and "\x1b" not in failed.stderr and "do: start it" in failed.stderr
    refused = site.run("--no-plugins", "gadget", select=False)
    assert refused.returncode == 1 and "is disabled: --no-plugins" in refused.stderr


@pytest.mark.parametrize(
    ("source", "words"), [("1 / 0", "ZeroDivisionError"), ("import sys; sys.exit(0)", "SystemExit: 0"), ("noun = 3", "cannot be called")]
)
def test_a_broken_noun_says_why(site: Site, source: str, words: str) -> None:
    distribution(site.folder, "toy-gadget", points={"nvcore.command.v1": {"gadget": "toy_gadget:noun"}}, modules={"toy_gadget": source})
    done = site.run("gadget", select=False)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_a_noun_that_raises_is_one_line_with_its_plugin_and_its_place_and_a_traceback_for_its_author(site: Site) -> None:
    source = "def noun(argv, io):\n    return 1 / 0\n"
    distribution(site.folder, "toy-gadget", points={"nvcore.command.v1": {"gadget": "toy_gadget:noun"}}, modules={"toy_gadget": source})
    done = site.run("gadget", select=False)
    first = "error: command gadget of plugin toy-gadget raised ZeroDivisionError: division by zero"
    assert done.returncode == 1 and done.stderr.splitlines()[0] == f"{first} at {site.folder}/toy_gadget.py:2 (NVC-1010)"
    assert "Traceback" not in done.stderr
    done = site.run("gadget", select=False, PYTHONDEVMODE="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def test_a_closed_pipe_ends_quietly_also_at_the_last_flush(site: Site) -> None:
    for number in range(3):
        site.plugin(f"p{number}", GOOD, family="client")
    for verb in (["plugins", "list", "--json"], ["--help"], ["explain"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            site.command(*verb), env=site.env, cwd=site.folder, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
        )
        os.close(write)
        assert done.stderr == "" and done.returncode == 141


def test_an_ascii_stream_gets_ascii_and_nothing_crashes(site: Site) -> None:
    site.plugin("newer", "", family="client", generation=2)
    done = site.run("plugins", "list", "-o", "wide", PYTHONIOENCODING="ascii")
    assert done.returncode == 7 and done.stdout.isascii() and "-> nvcore explain NVC-1104" in done.stdout
    assert "→" in site.run("plugins", "list", PYTHONIOENCODING="utf-8").stdout


def test_closed_streams_are_no_failure(site: Site) -> None:
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *site.command("plugins", "list")], env=site.env, cwd=site.folder, timeout=60)
    assert done.returncode == 0


def test_what_a_plugin_prints_while_it_loads_does_not_spoil_the_data(site: Site) -> None:
    site.plugin("chatty", "print('hello')\n" + GOOD, family="client")
    for verb in ("doctor", "footprint"):
        done = site.run("plugins", verb, "--json")
        assert documents(done.stdout) and "hello" in done.stderr


@pytest.mark.parametrize("noun", ["plugins", "config", "explain"])
def test_every_noun_of_this_room_has_help(site: Site, noun: str) -> None:
    done = site.run(noun, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: nvcore {noun}")


def test_text_from_outside_is_inert() -> None:
    assert safe("\x1b[31mred\x07\u202e\n", False) == "\\x1b[31mred\\x07\\u202e\\n"
    assert safe("ö✓", True) == "\\xf6ok"
    assert table([{"a": "\x1b]0;x\x07", "b": None}], [], False) == "\n\n"


def test_arguments_take_values_attached_or_apart_and_stop_at_two_dashes() -> None:
    options = {"-o": "output", "--output": "output", "--watch": "watch=", "--all": "all?", "-p": "p"}
    given = Arguments().parse(["a", "-ojson", "--watch", "--all", "-p", "no:x", "-p", "no:y", "--", "-z"], options)
    assert given.words == ["a", "-z"] and given.text("output") == "json" and given.flag("watch") and given.flag("all")
    assert given.many("p") == ["no:x", "no:y"] and Arguments().parse(["--watch=2"], options).text("watch") == "2"


def test_config_check_names_file_and_line_and_exits_78(site: Site) -> None:
    site.plugin("settings", SECTION)
    file = site.folder / "x.toml"
    file.write_text("[plugins.settings]\nslotz = 1\n")
    done = site.run("config", "check", "--config", str(file))
    assert done.returncode == 78 and f"{file}:2" in done.stderr
    file.write_text("[host]\nlog_level = 'debug'\n[plugins.settings]\nslots = 1\n")
    assert site.run("config", "check", NVCORE_CONFIG=str(file)).returncode == 0
    shown = site.run("config", "show", "--origin", "--config", str(file))
    assert re.search(rf"plugins.settings.slots +1 +{file}:4", shown.stdout) and re.search(r"host.time_scale +1.0 +default", shown.stdout)
    values = documents(site.run("config", "show", "--json", "--config", str(file)).stdout)["values"]
    assert {"key": "host.log_level", "value": "debug", "origin": f"{file}:2"} in values


def test_config_check_says_of_two_plugins_in_conflict_nothing_about_their_sections(site: Site) -> None:
    for name in ("one", "two"):
        site.plugin(name, CLIENT.format(name=name, claim="same"), family="client")
    done = site.run("config", "check")
    assert done.returncode == 7 and "note: plugin one is registered: ClientOffer 'same' is claimed by one and two" in done.stderr
    assert "could be checked" not in done.stderr


def test_config_check_says_of_which_plugin_a_section_could_not_be_checked_and_why(site: Site) -> None:
    file = site.folder / "x.toml"
    file.write_text("[plugins]\nonly = ['vifo']\n")
    done = site.run("config", "check", "--config", str(file), select=False)
    assert done.returncode == 7 and "note: plugin vifo is " in done.stderr and "not installed" in done.stderr
    file.write_text("[plugins]\nrequired = ['vifo']\n")
    done = site.run("config", "check", "--config", str(file), select=False)
    assert done.returncode == 78 and "required plugin vifo" in done.stderr


def test_the_configurations_selection_is_heard(site: Site) -> None:
    site.plugin("good", GOOD, family="client")
    site.plugin("other", OBSERVER.format(started="pass", stopping="pass"))
    file = site.folder / "x.toml"
    file.write_text("[plugins]\ndisable = ['good']\n")
    rows = documents(site.run("plugins", "list", "--json", "--config", str(file)).stdout)["plugins"]
    assert {row["name"]: row["state"] for row in rows if row["name"] in site.names} == {"good": "disabled", "other": "selected"}


def _codes(path: Path) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"NVC-\d{4}", node.value)
    }


def test_every_code_of_the_core_has_a_page() -> None:
    codes = set().union(*map(_codes, (ROOT / "nvcore").rglob("*.py")))
    pages = {path.stem for path in (ROOT / "nvcore" / "explain").glob("NVC-*.md")}
    assert len(codes) > 30 and codes <= pages


def test_every_page_says_cause_and_remedy() -> None:
    for path in (ROOT / "nvcore" / "explain").glob("NVC-*.md"):
        text = path.read_text()
        assert text.startswith(f"# {path.stem}: ") and "\n## Cause\n" in text and "\n## What to do\n" in text, path


def test_a_plugins_pages_are_found_without_importing_it(site: Site) -> None:
    distribution(
        site.folder, "toy-paged", points={"nvcore.client.v1": {"paged": "toy_paged.client"}}, modules={"toy_paged.__init__": "1 / 0"}
    )
    (site.folder / "toy_paged" / "explain").mkdir()
    (site.folder / "toy_paged" / "explain" / "NVC-9001.md").write_text("# NVC-9001: a toy\n")
    assert site.run("explain", "NVC-9001").stdout == "# NVC-9001: a toy\n"


def test_main_may_be_called_in_process(capsys: pytest.CaptureFixture[str]) -> None:
    from nvcore import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nvcore {__version__}\n"
