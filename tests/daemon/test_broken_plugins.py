"""Every kind of faulty plugin beside two good ones, in processes of their own: who says 7, with what reason, and who is torn down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.daemon.running import Running
from tests.plugins.building import HOST, OBSERVER, plugin

CLIENT = "from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_driver"
WITNESS = "import os; open(os.path.join(os.environ['STATE_DIRECTORY'], __name__ + '-{what}'), 'w').close()"
GOOD = ("before", "zafter")  # in the order of names, one on either side


class Kind(NamedTuple):
    """One kind of fault. index: told without importing anything; doctor: told by registering; else only the running host can tell."""

    state: str
    code: str
    index: bool
    doctor: bool
    words: str
    source: str


KINDS = {
    "raises": Kind("failed", "NVC-1101", False, True, "ZeroDivisionError", "1 / 0"),
    "exits": Kind("failed", "NVC-1102", False, True, "SystemExit: 3", "import sys; sys.exit(3)"),
    "newer": Kind("incompatible", "NVC-1104", True, True, "generation 2", ""),
    "hook": Kind("failed", "NVC-1108", False, True, "KeyError", CLIENT + "s(host): raise KeyError('x')"),
    "misspelt": Kind("failed", "NVC-1107", False, True, "did you mean nvcore_client_drivers?", CLIENT + "(host): return []"),
    "twice": Kind("failed", "NVC-1106", True, True, "toy-twice", ""),
    "lacks": Kind("incompatible", "NVC-1105", True, True, "absent-thing", ""),
    "hangs": Kind("failed", "NVC-1109", False, False, "did not return", OBSERVER.format(started="time.sleep(3600)", stopping="pass")),
}  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """`python -m nvcore` in an environment of its own that looks into this one, with all the faulty plugins and two good ones."""
    env = tmp_path_factory.mktemp("broken") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(env)], check=True, timeout=60)
    (site,) = (env / "lib").glob("python3*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    for name, kind in KINDS.items():
        family = "operator" if name == "hangs" else "client"
        if name == "twice":
            for dist in ("toy-twice", "toy-twice-too"):
                plugin(site, name, kind.source, family=family, dist=dist)
        else:
            requires = (HOST, "absent-thing>=1") if name == "lacks" else (HOST,)
            plugin(site, name, kind.source, family=family, generation=2 if name == "newer" else 1, requires=requires)
    for good in GOOD:
        plugin(site, good, OBSERVER.format(started=WITNESS.format(what="started"), stopping=WITNESS.format(what="stopped")))
    return (str(env / "bin" / "python"), "-m", "nvcore")


def check(rows: list[dict[str, object]], name: str, state: str, code: str, words: str) -> None:
    (faulty, *_) = found = [row for row in rows if row["name"] == name]
    assert len(found) == (2 if name == "twice" else 1)
    assert (faulty["state"], faulty["code"]) == (state, code) and words in str(faulty["reason"]) + str(faulty["remedy"])
    assert all(row["reason"] and row["remedy"] for row in found)


@pytest.mark.parametrize("name", KINDS)
def test_the_host_runs_names_it_and_ends_with_7_after_tearing_all_others_down(
    daemon: Callable[..., Running], command: tuple[str, ...], name: str
) -> None:
    kind = KINDS[name]
    only = f"before,{name},zafter"
    host = daemon("--only", only, command=command)

    def said(*words: str, code: int) -> list[dict[str, object]]:
        line = [*command, *words, "-o", "json"]
        done = subprocess.run(line, cwd=host.home, env=host.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == code and "Traceback" not in done.stderr, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)["plugins"]  # type: ignore[no-any-return]

    rows = said("plugins", "list", "--only", only, code=7 if kind.index else 0)
    if kind.index:
        check(rows, name, kind.state, kind.code, kind.words)
    rows = said("plugins", "doctor", "--only", only, code=7 if kind.doctor else 0)
    if kind.doctor:
        check(rows, name, kind.state, kind.code, kind.words)
    began = time.monotonic()
    host.start()
    assert (5 <= time.monotonic() - began < 20) == (name == "hangs")
    for words in (("plugins", "list"), ("plugins", "doctor")):
        rows = said(*words, code=7)
        check(rows, name, kind.state, kind.code, kind.words)
        assert [row["state"] for row in rows if row["name"] in GOOD] == ["started", "started"]
    assert f"plugin {name} {kind.state}" in host.run("status", code=7).stdout
    if name == "hangs":
        findings = [row for row in host.json("doctor")["findings"] if row["check"] == "plugins"]
        assert [row["severity"] for row in findings] == ["warning"], "a plugin that is left out does not make the host unhealthy"
    assert host.signal(signal.SIGTERM) == 7
    left = {path.name for path in Path(host.state).iterdir() if path.name.startswith("toy_")}
    assert left == {f"toy_{good}-{what}" for good in GOOD for what in ("started", "stopped")}
