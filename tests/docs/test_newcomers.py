"""What a newcomer reads first leads nowhere that does not exist: sources, the order of commands, the signs of a panel."""

from __future__ import annotations

import re
from pathlib import Path

import nvcore_softgpu.plugin
from nvcore.cli.views import overview
from nvcore.testing.modules import offers_of

ROOT = Path(__file__).parents[2]


def test_the_page_of_run_names_no_source_that_nothing_serves() -> None:
    served = {scheme for offer in offers_of(nvcore_softgpu.plugin)["nvcore_buses"] for scheme in offer.schemes}
    named = re.findall(r"\b([a-z-]+):[a-z0-9]", (ROOT / "nvcore/cli/help/run.txt").read_text())
    assert named and set(named) <= served


def test_the_readme_uses_an_environment_after_it_was_made_and_installs_what_its_next_page_needs() -> None:
    text = (ROOT / "README.md").read_text()
    made, installed = text.index("-m venv --without-pip host"), re.search(r"--python host/bin/python install .*'nvcore\[([\w-]+)\]==", text)
    assert installed is not None and all(made < found.start() for found in re.finditer("host/bin/nvcore", text))
    host = re.search(r"# file: host.toml\n(.*?)```", (ROOT / "docs/operators.md").read_text(), re.DOTALL)
    assert host is not None and "softgpu:" in host[1] and installed[1] == "demo"


def test_the_authors_page_has_every_state_under_the_sign_that_is_drawn() -> None:
    page = (ROOT / "docs/plugin-authors.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `state` |"))
    said = {sign: set(re.findall(r"\w+", words)) for sign, words in re.findall(r"`(\S)` ([a-z, ]+);", row)}
    assert said == {getattr(overview.UNICODE, glyph): set(states.split()) for (glyph, _), states in overview._MARKS.items()}
    assert f"`{overview.UNICODE.unknown}`, for unknown" in row
