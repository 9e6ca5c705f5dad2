"""Debian packages that the harness itself needs on the machine: installed where we are root, named where we are not.

Only `dev.py system` and `dev.py bench` come here; demo and test change nothing outside .nvcore/.
"""

from __future__ import annotations

import os
import shutil

from devtools.say import Failed, clean_environment, say, step

__all__ = ["ensure"]


def ensure(*programs: str) -> None:
    """Have these programs (packages of the same name) on the machine if that can be done; say what is missing if not."""
    missing = [name for name in programs if shutil.which(name) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"  missing, and only root on a Debian machine can install them: {' '.join(missing)}")
        return
    try:
        with step(f"install {' and '.join(missing)}") as this:
            env = clean_environment(DEBIAN_FRONTEND="noninteractive")
            this.run(["apt-get", "-q", "update"], env=env, timeout=300)
            wait = ["-o", "DPkg::Lock::Timeout=300"]  # seconds: another installation may be under way
            this.run(["apt-get", "-q", "-y", *wait, "install", "--no-install-recommends", *missing], env=env, timeout=600)
    except Failed as error:
        say(f"  {error}")
