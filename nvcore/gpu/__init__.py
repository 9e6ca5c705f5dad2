"""One GPU's life: boot, inventory, the ledger of resources, grants and leases, interrupts, faults, loss.

`life.Gpu` is a GPU; everything else in this package is a part of it. Knows no RPC layout, no DRM word and no vGPU type. Threads per GPU: a
receiver, a life-cycle thread, one thread on which client callbacks run (replaced when one hangs), and a delivery thread per attached
client.
"""
