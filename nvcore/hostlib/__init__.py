"""What belongs to the whole host and to no one GPU: shared parts, saved states, doctor, dump, describe.

Imported by `nvcore.host`; doctor and dump only on use.
"""
