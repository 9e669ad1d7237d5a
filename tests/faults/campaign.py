"""The fault campaign: ``python -m tests.faults.campaign --rounds N --seed S [--first F] [--only K] [--json FILE]``.

Each round sends studies to the installed agent while things go wrong, lets everything heal, waits until senders and
queues have ended, and asks the oracle. Exit code 0 only when it finds nothing in any round. Round K of a seed draws the
same studies and faults whenever it is played; how they meet in time is the machine's.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.faults import oracle
from tests.faults.plan import Fault, Round, draw
from tests.faults.rig import DISK_MB, Recovery, Rig
from tests.faults.senders import DcmtkScanner, Films, Scanner, Sent
from tests.models.tiny import make_tiny_bundle
from tests.system.agent import psutil_gone

RECEIVING_AGAIN_S = 10.0
"""After a kill, or after the agent was started again."""

DRAINED_S = 30.0
"""After everything healed and every film was acknowledged."""

GIVE_UP_S = 150.0

ROUND_MB = 40
"""What a round leaves on the disk at most."""


class Campaign:
    """Rounds on one rig; every round asks about all films so far, and says what it finds for the first time."""

    def __init__(self, rig: Rig, seed: int, patience: float) -> None:
        self._rig = rig
        self._receiving_again_s, self._drained_s = RECEIVING_AGAIN_S * patience, DRAINED_S * patience
        self._seed = seed
        self._films: list[Sent] = []
        self._recoveries: list[tuple[Fault, Recovery]] = []
        self._known: set[str] = set()
        self._unmet: list[str] = []
        self._lock = threading.Lock()
        self._crash = threading.Lock()
        self._archive = threading.Lock()

    def warm_up(self) -> None:
        """One study goes through before anything is broken: what is measured is coming back, not the first start."""
        films = Films(Random(f"{self._seed}/warm-up"))
        self._films.append(films.film(films.uid()))
        Scanner(self._rig.agent.dicom_port, self._films).run()
        left = self._drain(time.monotonic())
        if left:
            raise AssertionError(f"the agent does not work even when nothing is broken: {left}")

    def play(self, number: int) -> dict[str, Any]:
        """One round; what it drew, measured and found."""
        plan = draw(self._seed, number)
        self._recoveries, self._unmet = [], []
        began = time.monotonic()
        scanners, sent = self._scanners(plan)
        self._films += sent
        faults = [threading.Thread(target=self._meet, args=(fault, began), daemon=True) for fault in plan.faults]
        for thread in (*scanners, *faults):
            thread.start()
        for thread in faults:
            thread.join()
        self._heal()
        healed = time.monotonic()
        for thread in scanners:
            thread.join()
        all_sent = time.monotonic()
        left = self._drain(all_sent)
        drained_s = time.monotonic() - max(healed, all_sent)
        found = [one for one in oracle.findings(self._rig, self._films) if one not in self._known]
        self._known.update(found)
        if not self._until(lambda: not self._rig.orphans(), 40.0):
            found.append(f"roles outlive their supervisor: {self._rig.orphans()}")
        if drained_s > self._drained_s:
            found.append(
                f"the queues were not empty {self._drained_s:.0f} s after all had healed: {left or round(drained_s, 1)}"
            )
        for fault, recovery in self._recoveries:
            if recovery.seconds is None:
                found.append(f"nobody received {self._receiving_again_s:.0f} s after: {fault}")
        return {
            **plan.as_json(),
            "never_met": self._unmet,
            "films": len(sent),
            "refused_or_unanswered": sum(len(one.told) for one in sent) - len(sent),
            "receiving_again_s": [round(one.seconds or -1.0, 2) for _, one in self._recoveries],
            "drained_s": round(drained_s, 1),
            "took_s": round(time.monotonic() - began, 1),
            "findings": found,
        }

    def _scanners(self, plan: Round) -> tuple[list[Scanner], list[Sent]]:
        films = Films(Random(f"{self._seed}/{plan.number}/films"))
        port = self._rig.agent.dicom_port
        scanners, sent = [], []
        for one in plan.studies:
            study = films.uid()
            first = [films.film(study) for _ in range(one.films)]
            if one.deadly:
                first.append(films.film(study, deadly=one.deadly))
            if one.dies_in is None and len(scanners) == 0:
                scanners.append(DcmtkScanner(port, first, after_s=one.after_s))
            else:
                scanners.append(Scanner(port, first, after_s=one.after_s, dies_in=one.dies_in))
            if one.twice:
                scanners.append(Scanner(port, first, after_s=one.after_s))
            sent += first
            if one.late_after_s is not None:
                late = [films.film(study)]
                scanners.append(Scanner(port, late, after_s=one.after_s + one.late_after_s))
                sent += late
        return scanners, sent

    def _meet(self, fault: Fault, began: float) -> None:
        time.sleep(max(0.0, began + fault.at_s - time.monotonic()))
        _FAULTS[fault.kind](self, fault)

    def _heal(self) -> None:
        rig = self._rig
        rig.set_faults()
        rig.order.unlink(missing_ok=True)
        rig.free_disk()
        rig.pacs.script.clear()
        rig.ris.script.clear()
        rig.pacs.up()
        rig.ris.up()
        if not rig.runs:
            rig.start()
        for _, recovery in self._recoveries:
            recovery.join()

    def _drain(self, since: float) -> dict[str, Any]:
        quiet = 0
        while time.monotonic() - since < GIVE_UP_S:
            left = oracle.open_work(self._rig)
            quiet = 0 if left else quiet + 1
            if quiet >= 4:
                return {}
            if not self._rig.runs:
                self._rig.start()
            time.sleep(0.25)
        return left

    def _killed(self, fault: Fault) -> None:
        recovery = Recovery(self._rig, self._receiving_again_s)
        self._recoveries.append((fault, recovery))
        recovery.start()

    # What goes wrong, by its name

    def _kill_role(self, fault: Fault) -> None:
        if self._rig.signal_role(fault.detail["role"], signal.SIGKILL):
            self._killed(fault)
        else:
            self._unmet.append(str(fault))

    def _kill_all(self, fault: Fault) -> None:
        with self._lock:
            if self._rig.runs:
                self._rig.agent.kill()
            self._killed(fault)
            self._rig.start()

    def _kill_supervisor(self, fault: Fault) -> None:
        with self._lock:
            if self._rig.runs:
                self._rig.kill_supervisor()
            self._killed(fault)
            self._rig.start()

    def _crash_at(self, fault: Fault) -> None:
        with self._crash:  # there is one order at a time
            self._rig.crash_at(fault.detail["point"], fault.detail["count"])
            if self._until(lambda: not self._rig.order.exists()):
                self._killed(fault)
                return
            self._rig.order.unlink(missing_ok=True)
        self._unmet.append(str(fault))

    def _stop_role(self, fault: Fault) -> None:
        process = self._rig.signal_role(fault.detail["role"], signal.SIGSTOP)
        if process is None:
            self._unmet.append(str(fault))
        if process is not None:
            time.sleep(fault.detail["seconds"])
            with psutil_gone():
                process.send_signal(signal.SIGCONT)

    def _pacs_misbehaves(self, fault: Fault) -> None:
        self._rig.pacs.script.extend(fault.detail["ways"])
        self._until(lambda: not self._rig.pacs.script)

    def _ris_misbehaves(self, fault: Fault) -> None:
        self._rig.ris.script.extend(fault.detail["ways"])
        self._until(lambda: not self._rig.ris.script)

    def _pacs_down(self, fault: Fault) -> None:
        with self._archive:  # two processes cannot listen there
            self._rig.pacs.down()
            self._rig.archive.stop()
            time.sleep(fault.detail["seconds"])
            self._rig.pacs.up()
            self._rig.archive.start()

    def _ris_down(self, fault: Fault) -> None:
        self._rig.ris.down()
        time.sleep(fault.detail["seconds"])
        self._rig.ris.up()

    def _disk_full(self, fault: Fault) -> None:
        if not self._rig.disk:
            self._unmet.append(f"{fault} (no disk of its own could be mounted)")
            return
        self._rig.fill_disk()
        time.sleep(fault.detail["seconds"])
        self._rig.free_disk()

    def _hooked(self, fault: Fault, **faults: Any) -> None:
        self._rig.set_faults(**faults)
        time.sleep(fault.detail["seconds"])
        self._rig.set_faults()

    def _read_only(self, fault: Fault) -> None:
        self._hooked(fault, create="EROFS")

    def _fsync_fails(self, fault: Fault) -> None:
        self._hooked(fault, fsync=fault.detail["error"], role=fault.detail["role"])

    def _crash_before_fsync(self, fault: Fault) -> None:
        """The role dies with a file written and not synced, its first one from now on."""
        role = self._rig.signal_role(fault.detail["role"], 0)
        if role is None:
            self._unmet.append(str(fault))
            return
        self._rig.set_faults(fsync="kill", role=fault.detail["role"])
        met = self._until(lambda: not role.is_running() or role.status() == psutil.STATUS_ZOMBIE)
        self._rig.set_faults()
        if met:
            self._killed(fault)
        else:
            self._unmet.append(str(fault))

    def _clock_jumps(self, fault: Fault) -> None:
        self._hooked(fault, clock_s=fault.detail["seconds_off"])

    def _database_fails(self, fault: Fault) -> None:
        if not self._rig.fail_system_calls(fault.detail["role"], fault.detail["call"], fault.detail["seconds"]):
            self._unmet.append(str(fault))

    def _database_locked(self, fault: Fault) -> None:
        with self._rig.hold_database():
            time.sleep(fault.detail["seconds"])

    def _until(self, holds: Callable[[], bool], seconds: float = 8.0) -> bool:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


_FAULTS: dict[str, Callable[[Campaign, Fault], None]] = {
    "kill role": Campaign._kill_role,
    "kill all": Campaign._kill_all,
    "kill supervisor": Campaign._kill_supervisor,
    "crash at": Campaign._crash_at,
    "stop role": Campaign._stop_role,
    "pacs misbehaves": Campaign._pacs_misbehaves,
    "ris misbehaves": Campaign._ris_misbehaves,
    "pacs down": Campaign._pacs_down,
    "ris down": Campaign._ris_down,
    "disk full": Campaign._disk_full,
    "read-only": Campaign._read_only,
    "fsync fails": Campaign._fsync_fails,
    "crash before fsync": Campaign._crash_before_fsync,
    "database fails": Campaign._database_fails,
    "database locked": Campaign._database_locked,
    "clock jumps": Campaign._clock_jumps,
}


def run(
    folder: Path,
    rounds: list[int],
    seed: int,
    *,
    patience: float = 1.0,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Plays the rounds on a fresh rig; the log, with every finding. ``patience`` stretches the limits in time.

    ``keep`` gets the log so far after every round.
    """
    played: list[dict[str, Any]] = []
    rig = Rig(folder, make_tiny_bundle(folder / "tiny"), disk_mb=DISK_MB + ROUND_MB * len(rounds))
    try:
        rig.start()
        campaign = Campaign(rig, seed, patience)
        campaign.warm_up()
        for number in rounds:
            one = campaign.play(number)
            played.append(one)
            say(f"round {number}: {'; '.join(one['faults'])}")
            say(f"    {one['films']} films, {one['refused_or_unanswered']} sent again, drained in {one['drained_s']} s")
            if one["never_met"]:
                say(f"    never met: {'; '.join(one['never_met'])}")
            for finding in one["findings"]:
                say(f"    FOUND {finding}")
            keep(_log(seed, played))
    finally:
        rig.close()
    return _log(seed, played)


def _log(seed: int, played: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "rounds": played,
        "films": sum(one["films"] for one in played),
        "kills": sum(len(one["receiving_again_s"]) for one in played),
        "slowest_receiving_again_s": max((s for one in played for s in one["receiving_again_s"]), default=0.0),
        "slowest_drained_s": max((one["drained_s"] for one in played), default=0.0),
        "findings": sum(len(one["findings"]) for one in played),
    }


def _one_round_a_line(log: dict[str, Any]) -> str:
    rounds = ",\n".join(json.dumps(one) for one in log["rounds"])
    head = json.dumps({key: value for key, value in log.items() if key != "rounds"}, indent=1)
    return f'{head[:-2]},\n "rounds": [\n{rounds}\n]}}\n'


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first", type=int, default=1, help="begin with this round: the rest of a campaign that was cut off"
    )
    parser.add_argument("--only", type=int, help="play this round alone")
    parser.add_argument("--json", type=Path, help="write the log here")
    parser.add_argument("--patience", type=float, default=1.0, help="stretch the limits in time on a busy machine")
    parser.add_argument("--folder", type=Path, help="work here, and keep the agent's log")
    asked = parser.parse_args()
    rounds = list(range(asked.first, asked.rounds + 1)) if asked.only is None else [asked.only]
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="firstread-faults-"))

    def keep(log: dict[str, Any]) -> None:
        if asked.json is not None:
            asked.json.write_text(_one_round_a_line(log))

    log = run(
        folder, rounds, asked.seed, patience=asked.patience, say=lambda words: print(words, flush=True), keep=keep
    )
    summary = {key: value for key, value in log.items() if key != "rounds"}
    print(json.dumps(summary), f"log: {folder}", sep="\n")
    return 1 if log["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
