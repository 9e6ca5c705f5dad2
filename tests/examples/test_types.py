"""Plugins from outside are held to the Protocols by a type checker alone, as their authors can: one run over all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .page import blocks, write
from .test_strangers import LIMITS, folder_of

CLAIMS = """
import scratchpad.operator
import scratchpad.plugin
import toy_client
import toy_firmware
from nvcore.api.client import Client, ClientContext, ClientDriver
from nvcore.api.command import Command
from nvcore.api.families import InventoryFamily, Tenant
from nvcore.api.firmware import BootReport, FirmwareBackend, FirmwareSession, OpenContext
from nvcore.api.hooks import ClientPlugin, FirmwarePlugin
from scratchpad.cli import command

modules: tuple[ClientPlugin, ClientPlugin, FirmwarePlugin] = (toy_client, scratchpad.plugin, toy_firmware)
drivers: tuple[ClientDriver, ClientDriver] = (toy_client.Driver(), scratchpad.plugin.Driver(0x1000))
backend: FirmwareBackend = toy_firmware.Backend()
noun: Command = command


def clients(context: ClientContext) -> tuple[Client, Client]:
    return toy_client.Page(context), scratchpad.plugin.Pad(context, 0x1000)


def session(context: OpenContext, report: BootReport) -> tuple[FirmwareSession, InventoryFamily, Tenant]:
    made = toy_firmware.Session(context, report)
    return made, made, toy_firmware.Root("label", made)
"""


def test_strangers_and_the_plugin_of_the_page_fit_their_protocols(tmp_path: Path) -> None:
    for module in LIMITS:
        shutil.copy(folder_of(module) / f"{module}.py", tmp_path)
    for block in blocks():
        if block.file is not None and block.file.startswith("scratchpad/"):
            write(block, tmp_path)
    (tmp_path / "claims.py").write_text(CLAIMS)
    command = [
        sys.executable,
        "-P",
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        "claims.py",
        *(f"{m}.py" for m in LIMITS),
    ]
    done = subprocess.run([*command, "scratchpad"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
