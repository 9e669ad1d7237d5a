"""Entry of a role's process, as the supervisor starts it."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path


def main() -> None:
    """Reads the settings anew and does the role's work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--listening-fd", type=int)
    asked = parser.parse_args()
    from firstread.agent.config import load_settings
    from firstread.agent.roles import run_role

    listening = socket.socket(fileno=asked.listening_fd) if asked.listening_fd is not None else None
    run_role(asked.role, load_settings(asked.config), listening)


if __name__ == "__main__":
    main()
