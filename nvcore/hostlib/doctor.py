"""What `nvcore doctor` proves about a running host: the books balance, and both sides of the firmware count the same objects.

Owns nothing; asks each session for its own count, on that GPU's life-cycle thread. Imported on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nvcore.api.errors import NvcoreError
from nvcore.api.offers import Finding

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware
    from nvcore.gpu.life import Gpu


_WAIT = 10.0


def check_gpu(gpu: Gpu) -> list[Finding]:
    """Findings of one GPU; "ok" ones say what was proved."""
    state, hardware, name = gpu.state, gpu.hardware, f"GPU {gpu.name}"
    if state.name in ("failed", "lost", "unsupported"):
        severity = "warning" if state.name == "unsupported" else "error"
        return [Finding(severity, f"{name} is {state.name}: {state.cause}", state.code, state.remedy)]  # type: ignore[arg-type]
    if hardware is None:
        return [Finding("note", f"{name} is {state.name}")]
    findings = [Finding("warning", text, "NVC-1005", "select only one of the plugins") for text in gpu.conflicts]
    reset, again = f"nvcore gpus reset {gpu.name}", f"mend the client, then: nvcore gpus reset {gpu.name}"
    findings += [Finding("note", f"{function} is not driven by {why}", "NVC-1010", again) for function, why in gpu.left_out.items()]
    wrong = hardware.ledger.check({**hardware.grants, "core/bar1": None})
    findings += [Finding("error", f"{name}: books do not balance: {text}", "NVC-4010", "report this with nvcore dump") for text in wrong]
    if not wrong:
        rows = ", ".join(f"{row.kind} {row.owned:#x} of {row.total:#x}" for row in hardware.ledger.rows())
        findings.append(Finding("ok", f"{name}: every unit is free, owned, quarantined or retired ({rows})"))
    quarantined = [row for row in hardware.ledger.rows() if row.quarantined]
    if quarantined or hardware.limbo:
        what = ", ".join(f"{row.kind} {row.quarantined:#x}" for row in quarantined) or "host memory"
        findings.append(Finding("warning", f"{name}: quarantined until the next reset: {what}", "NVC-4011", reset))
    return [*findings, *_check_objects(gpu, hardware)]


def _check_objects(gpu: Gpu, hardware: Hardware) -> list[Finding]:
    if not hardware.gate.open:
        return []
    try:  # both where clients make and close objects, so that none is counted on one side only
        counted = gpu.run(lambda: (dict(hardware.session.objects()), hardware.counts()), "doctor", _WAIT)
    except NvcoreError as error:
        return [Finding("error", f"GPU {gpu.name}: the firmware's objects cannot be counted: {error.what}", error.code, error.remedy)]
    objects, ours = cast("tuple[dict[str, int], ...]", counted)  # kinds that the session alone counts are its own affair
    differ = [f"{kind}: {count} against {objects.get(kind, 0)}" for kind, count in ours.items() if objects.get(kind, 0) != count]
    if differ:
        text = f"GPU {gpu.name}: core and firmware session count differently: {'; '.join(differ)}"
        return [Finding("error", text, "NVC-4012", "reset the GPU, and report this with nvcore dump")]
    text = ", ".join(f"{count} {kind}" for kind, count in sorted(objects.items()))
    return [Finding("ok", f"GPU {gpu.name}: objects in the firmware are the core's: {text or 'none'}")]
