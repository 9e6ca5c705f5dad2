"""vfio: the client that drives the vgpu function: vGPU types, placement, life cycle."""

__version__ = "0.1.0"
