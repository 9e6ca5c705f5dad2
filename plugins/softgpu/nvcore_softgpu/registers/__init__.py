"""The registers of the software GPU: one module a block, every register a row with a source and a meaning."""
