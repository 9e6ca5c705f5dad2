"""Registers of the GPU's units as declarations, one module a unit. Data with documentation; holds no state and touches no device.

Offsets are BAR0 byte offsets, or offsets inside a unit where the unit exists several times (`falcon`, `riscv`).
"""
