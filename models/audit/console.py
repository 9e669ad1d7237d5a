"""An audit in the terminal: verdicts and their sentences first, then the figures behind them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

VERDICTS = {"shortcut": "SHORTCUT", "suspect": "suspect", "clean": "clean", "not_judged": "not judged"}
_STYLES = {"shortcut": "bold red", "suspect": "yellow", "clean": "green", "not_judged": "dim"}


def print_audit(t: dict[str, Any], console: Console) -> None:
    """Print an audit as JSON gives it (``as_json``)."""
    data, audited = t["data"], t["audited"]
    _line(
        console,
        f"{t['bundle']['name']} {t['bundle']['version']} on {audited['films']} films of {audited['patients']} patients "
        f"({data['films']} given, {data['refused']['count']} refused by the gate, "
        f"{len(data['unreadable'])} unreadable); "
        f"{audited['altered']} of them altered and read again",
    )
    table = _table("label", "verdict", "why")
    for one in t["verdicts"]:
        table.add_row(
            Text(one["label"]), Text(VERDICTS[one["verdict"]], _STYLES[one["verdict"]]), Text(one["sentence"])
        )
    console.print(table)
    judged = [one for one in t["verdicts"] if one["figures"]["auroc"] is not None]
    if not judged:
        return
    table = _table(
        "label",
        "with / without",
        "AUROC",
        "nuisances alone",
        "made alike (pairs)",
        "follows",
        "lost by noise",
        "turned by a mild change",
        "by a device",
        "map outside",
    )
    for one in judged:
        f = one["figures"]
        table.add_row(
            *(
                Text(cell)
                for cell in (
                    one["label"],
                    f"{f['positives']} / {f['negatives']}",
                    _figure(f["auroc"]),
                    _figure(f["nuisances"]),
                    f"{_figure(f['paired'])} ({f['pairs']})",
                    _figure(f["follows"]),
                    _figure(f["lost_by_noise"]),
                    _turned(f["flips"], f["flips_by"]),
                    _turned(f["device_flips"], f["device_flips_by"]),
                    "-" if f["outside_thorax"] is None else f"{100 * f['outside_thorax']:.0f} %",
                )
            )
        )
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _line(console: Console, text: str) -> None:
    console.print(Text(text))


def _turned(flips: dict[str, Any] | None, by: str | None) -> str:
    return "-" if flips is None else f"{100 * flips['value']:.0f} % ({by})"


def _figure(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
