"""Manifests: how a firmware version behaves beyond its layouts, as one declared row a version.

Owns the behaviour keys that code here chooses by, and nothing else; sizes and numbers are in `data/` and are declared only there. Adding
a version is adding a data file and a row here and, where a key takes a value that no code knows yet, one adapter chosen by that key.
Any thread.
Source: open-gpu-kernel-modules at the tag of each version (message_queue_priv.h, rpc_global_enums.h, g_rpc-structures.h,
gsp_init_args.h, kernel_gsp.c, engine type headers); the first tag of a change is named beside its key.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore_fw_gsp.abi.errors import AbiVersionError

__all__ = ["MANIFESTS", "Manifest", "of"]


class Manifest(NamedTuple):
    """How one version behaves; keys read in no source are None."""

    version: str
    layout_only: bool
    """No image and no outside driver for it here: the layouts are checked, the behaviour is not run. Those that are booted
    (`images.find.VERSIONS`) are the others, which a test holds together."""
    queue_parameters: bool
    """Element size and alignment are passed in the init arguments (since 595.44.02); otherwise both sides know them."""
    reply_sequence: bool
    """Replies echo the request's sequence number (since 570.190 and 580.82.07); otherwise they are matched by function only."""
    sequencer: bool
    """The CPU-sequencer event may come while booting (to 590)."""
    intr_gsp_engine: int
    """Engine index of GSP in the interrupt table (a slot came in behind NVENC2 at 550)."""
    rm_engine_shift: int
    """What the RM engine type of SW and of all behind it is more than in 535."""
    log_regions: tuple[tuple[str, ...], tuple[str, ...]] | None
    """Log regions before RMARGS, in the order of the libos arguments, for (libos2, libos3) images."""
    differs: tuple[str, ...] = ()
    """JSON paths at which the golden transcript may differ from the preferred version's."""


_LOGS_535: Final = (("LOGINIT", "LOGINTR", "LOGRM"), ("LOGINIT", "LOGINTR", "LOGRM"))
_LOGS_570: Final = (("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC"), ("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC", "LOGKRNL"))
_LOGS_595: Final = (
    ("LOGINIT", "LOGRM", "LOGMNOC", "LOGDBG", "LOGROOT", "LOGRMON"),
    ("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC", "LOGDBG", "LOGROOT", "LOGRMON", "LOGKRNL"),
)

_V535: Final = Manifest(
    "535.113.01",
    layout_only=False,
    queue_parameters=False,
    reply_sequence=False,
    sequencer=True,
    intr_gsp_engine=0x31,
    rm_engine_shift=0,
    log_regions=_LOGS_535,
    differs=("$[*].record.address", "$[*].record.function", "$[*].answer.capabilities", "$[*].answer.firmware"),
)
_V550: Final = _V535._replace(version="550.163.01", layout_only=True, differs=(), intr_gsp_engine=0x32, rm_engine_shift=1)
_V570: Final = _V550._replace(version="570.144", layout_only=False, log_regions=_LOGS_570)
_V580: Final = _V570._replace(version="580.142", layout_only=True, reply_sequence=True, log_regions=None)
_V590: Final = _V580._replace(version="590.48.01")
_V595: Final = _V590._replace(version="595.45.04", queue_parameters=True, sequencer=False, log_regions=_LOGS_595)

MANIFESTS: Final = (_V535, _V550, _V570, _V580, _V590, _V595)
"""Every version whose layouts are known, oldest first."""


def of(version: str) -> Manifest:
    """The manifest of a version. Raises AbiVersionError."""
    for row in MANIFESTS:
        if row.version == version:
            return row
    raise AbiVersionError(f"no manifest for firmware version {version!r}", expected=" or ".join(row.version for row in MANIFESTS))
