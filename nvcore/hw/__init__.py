"""Facts about the hardware as data: chips, registers, page-table entries, the interrupt tree. Data with documentation, not behaviour."""
