"""softgpu: GPUs in software, at register, DMA and message-queue level, strict enough that Linux's nouveau boots on them."""

__version__ = "0.1.0"
