"""fw_gsp: the firmware backend for GSP-RM: images, boot flows, queues, RPC, and ABI versions as data."""

__version__ = "0.1.0"
