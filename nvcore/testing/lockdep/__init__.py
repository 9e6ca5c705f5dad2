"""The lock validator: what `nvcore.locks` is made of in a process that sets `NVCORE_LOCKDEP`.

Owns the checked half of `nvcore.locks`: `checked` (locks, sections, assertions), `fence`, `reserve` and `ww` (the same classes, with their
rules). `nvcore.locks` imports it when the switch is set and never otherwise, so that a host loads none of it. `rules` names what is checked
and holds what was broken. No thread of its own.
"""
