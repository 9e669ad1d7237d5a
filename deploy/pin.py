"""Prints the versions that are installed here as pip constraints (``make constraints``)."""

from __future__ import annotations

import re
from importlib.metadata import distributions

# torch pins these itself, for its own platform; pip and its kin belong to whoever made the environment.
LEFT_OUT = re.compile(r"^(nvidia-|cuda-|triton$|pip$|setuptools$|wheel$|firstread$)")

HEADER = """\
# Versions that the tests passed with; make installs these. Renew: upgrade what you want in .venv, make test,
# make constraints. Without them (newest of everything): make CONSTRAINTS= demo
"""


def pins() -> list[str]:
    """``name==version`` of every distribution but those left out, in order."""
    found = {re.sub(r"[-_.]+", "-", each.name).lower(): each.version.split("+")[0] for each in distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if not LEFT_OUT.match(name)]


if __name__ == "__main__":
    print(HEADER + "\n".join(pins()))
