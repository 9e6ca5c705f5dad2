"""From reset to a running GSP-RM and back: the boot flows as tables of stages, and the unload that works from any of them.

`flows` holds the tables, `stages` runs one, the other modules are what stages are made of. Everything runs on the opener's thread (the
GPU's life-cycle thread); nothing here is used after `open` but the unload.
"""
