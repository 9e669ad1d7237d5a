"""Entry of a role's process, as the supervisor starts it."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path


def main() -> None:
    """Reads the settings anew and does the role's work, once the supervisor has opened the gate (``--gate-fd``)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--listening-fd", type=int)
    parser.add_argument("--gate-fd", type=int)
    asked = parser.parse_args()
    from firstread.agent.config import load_settings
    from firstread.agent.roles import load_libraries, run_role

    settings = load_settings(asked.config)
    listening = socket.socket(fileno=asked.listening_fd) if asked.listening_fd is not None else None
    if asked.gate_fd is not None:
        load_libraries(asked.role)
        if not os.read(asked.gate_fd, 1):
            return
        os.close(asked.gate_fd)
    run_role(asked.role, settings, listening)


if __name__ == "__main__":
    main()
