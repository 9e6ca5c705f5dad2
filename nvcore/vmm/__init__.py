"""Range allocation, mappings of device memory that can be taken back, the tables of a flat map: a library that its caller owns.

Holds no thread, no lock and no state of the core; the caller's lock guards what it makes. Imported when a GPU boots, not before.
"""
