"""Contract tests that an author runs against a plugin: each clause that is broken is named, in a sentence.

Owns nothing: the checks are in `contract_client`, `contract_backend` and `contract_module`, the clauses in `contract`. The test's thread.
"""

from __future__ import annotations

from nvcore.testing.contract import CLAUSES, BrokenContract
from nvcore.testing.contract_backend import check_backend
from nvcore.testing.contract_client import check_client
from nvcore.testing.contract_module import check_plugin_module

__all__ = ["CLAUSES", "BrokenContract", "check_backend", "check_client", "check_plugin_module"]
