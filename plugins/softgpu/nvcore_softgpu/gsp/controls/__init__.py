"""Every control that the firmware of the model answers; anything else is "not supported" and counted.

Owns the merged table. Declarations only; the handlers live in one module per topic.
"""

from __future__ import annotations

from typing import Final

from nvcore_softgpu.gsp.controls import fifo, gpu, gr, memory, vgpu
from nvcore_softgpu.gsp.controls.call import Call, Control

__all__ = ["CONTROLS", "Call", "Control"]

CONTROLS: Final[dict[int, Control]] = {
    **gpu.CONTROLS,
    **fifo.CONTROLS,
    **gr.CONTROLS,
    **memory.CONTROLS,
    **vgpu.CONTROLS,
}
"""All of them, by number."""
