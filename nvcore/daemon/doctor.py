"""`nvcore doctor` inside the daemon: the core's checks and every plugin's, each an isolation boundary (hook)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvcore.api.offers import Finding

if TYPE_CHECKING:
    from nvcore.daemon.daemon import Daemon

__all__ = ["run_checks"]


def _row(check: str, plugin: str, finding: Finding) -> dict[str, Any]:
    return {
        "check": check,
        "plugin": plugin,
        "severity": finding.severity,
        "text": finding.text,
        "code": finding.code,
        "remedy": finding.remedy,
    }


def run_checks(daemon: Daemon) -> list[dict[str, Any]]:
    """Findings, the core's first."""
    rows = [_row("gpus", "nvcore", finding) for finding in daemon.host.doctor()]
    rows += [_row("plugins", "nvcore", finding) for finding in _plugins(daemon)]
    for offer in daemon.plugin_host.collect("nvcore_doctor_checks"):
        try:
            rows += [_row(offer.name, offer.plugin, finding) for finding in offer.run()]
        except Exception as error:  # isolation boundary: hook
            text = f"check {offer.name} failed: {type(error).__name__}: {error}"
            rows.append(_row(offer.name, offer.plugin, Finding("error", text, "NVC-1112", f"report it to the authors of {offer.plugin}")))
    return rows


def _plugins(daemon: Daemon) -> list[Finding]:
    found = []
    for state in daemon.plugin_host.states():
        if state["state"] in ("failed", "incompatible"):
            text = f"plugin {state['name']} is {state['state']}: {state['reason']}"
            found.append(Finding("warning", text, str(state.get("code") or "NVC-1010"), str(state.get("remedy") or "") or None))
    return found or [Finding("ok", "every selected plugin works")]
