"""The two message rings between this side and the firmware, and the calls that travel in them.

`layout` holds the numbers, `memory` the shared block, `command` the sender, `status` the receiver, `port` the calls. Nothing here knows
what a function number means, and nothing here differs between the firmware versions that we drive.
"""
