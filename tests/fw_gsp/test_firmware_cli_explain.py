"""Each problem code of the firmware rooms has a page for `nvcore explain`."""

import importlib
from pathlib import Path

import nvcore_fw_gsp
from nvcore.api.errors import NvcoreError

ROOMS = ("abi", "images", "vbios", "provision")


def test_every_code_has_a_page_with_cause_and_remedy():
    codes = set()
    for room in ROOMS:
        module = importlib.import_module(f"nvcore_fw_gsp.{room}.errors")
        kinds = [getattr(module, name) for name in module.__all__]
        assert kinds and all(issubclass(kind, NvcoreError) for kind in kinds)
        own = [kind.code for kind in kinds]
        assert len(set(own)) == len(own) and not codes & set(own)
        codes.update(own)
    for code in codes:
        text = (Path(nvcore_fw_gsp.__file__).parent / "explain" / f"{code}.md").read_text()
        assert text.startswith(f"# {code}: ")
        for heading in ("## Cause", "## What the host does", "## What to do"):
            assert heading in text
