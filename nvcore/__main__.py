"""`python -m nvcore`: the command line. Imports nothing before it runs."""

from __future__ import annotations

import sys

from nvcore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
