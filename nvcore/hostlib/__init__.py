"""What belongs to the whole host and to no one GPU: saved states, doctor, dump, describe.

Imported by `nvcore.host`; doctor and dump only on use.
"""
