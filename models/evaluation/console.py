"""Evaluations, comparisons and readers' agreement as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_evaluation(t: dict[str, Any], console: Console) -> None:
    """What ``as_json`` made of an evaluation, as tables."""
    data = t["data"]
    _line(
        console,
        f"{t['bundle']['name']} {t['bundle']['version']} on {data['films']} films of {data['patients']} patients",
    )
    if data["unreadable"]:
        first = data["unreadable"][0]["problem"]
        _line(console, f"{len(data['unreadable'])} films could not be read and are in no figure; the first: {first}")
    learned = t["bundle"]["learned_from"]["real_films"]
    if learned:
        _line(
            console,
            f"It learned from {learned} real films: where patients of this table are among them it is flattered",
        )
    refused = data["refused"]
    if refused["count"]:
        reasons = ", ".join(f"{code} {count}" for code, count in refused["by_reason"].items())
        _line(console, f"{refused['count']} films would be refused ({reasons}); they are counted in every figure")
    if data["phantoms"]:
        _line(console, f"{data['phantoms']} films are phantoms: no evidence about patients")
    table = _table(
        "label", "with", "without", "AUROC", "matched pairs", "AUPRC", "sens", "spec", "PPV", "NPV", "ECE", "Brier"
    )
    for name, one in t["labels"].items():
        title = f"{name} (exp.)" if one["experimental"] else name
        counts = [title, str(one["positives"]), str(one["negatives"])]
        if one["reason"]:
            table.add_row(*_cells([*counts, "too few films: no figure"]))
            continue
        matched = one["matched"]
        paired = "" if matched is None else f"{_figure(matched['auroc'])} [{matched['pairs']}]"
        row = [*counts, _figure(one["auroc"]), paired, _number(one["auprc"]["value"], 2), *_operating(one["operating"])]
        table.add_row(*_cells([*row, _number(one["calibration"]["ece"], 3), _number(one["calibration"]["brier"], 3)]))
    console.print(table)
    _print_normal(t["normal_abnormal"], console)
    _print_groups(t, console)
    _line(console, f"Intervals: AUROC {t['interval']['auroc']}; shares {t['interval']['shares']}.")
    if data["not_assessed"]:
        _line(console, f"Not assessed by this bundle, though films carry it: {', '.join(data['not_assessed'])}")


def print_comparison(t: dict[str, Any], console: Console) -> None:
    """What ``compare.as_json`` made of a comparison, as a table."""
    names = [f"{t[key]['name']} {t[key]['version']}" for key in ("first", "second")]
    _line(console, f"A: {names[0]}, B: {names[1]}, on {t['data']['read']} films of {t['data']['patients']} patients")
    table = _table(
        "label", "with", "without", "A", "B", "B - A", "p", "p (Holm)", "flips", "only A right", "only B right", "p"
    )
    for name, one in t["labels"].items():
        counts = [name, str(one["positives"]), str(one["negatives"])]
        calls = one["calls"]
        flips = ["", "", "", ""]
        if calls is not None:
            flips = [str(len(one["flips"])), str(calls["first_right"]), str(calls["second_right"]), _p(calls["p"])]
        if one["reason"]:
            table.add_row(*_cells([*counts, "too few films: no figure", "", "", "", "", *flips]))
            continue
        figures = [_figure(one[key]) for key in ("first", "second", "difference")]
        table.add_row(*_cells([*counts, *figures, _p(one["p"]), _p(one["p_holm"]), *flips]))
    console.print(table)
    _line(console, "B - A: 95 % by paired bootstrap of patients; p: DeLong by patient; last p: McNemar on all calls.")
    for key, name in (("only_first", names[0]), ("only_second", names[1])):
        if t[key]:
            _line(console, f"Only in {name}: {', '.join(t[key])}")


def print_readers(t: dict[str, Any], console: Console) -> None:
    """What ``readers.as_json`` made of several readers, as a table."""
    table = _table("label", "who", "against", "with", "without", "AUROC", "sens", "spec", "kappa")
    for name, one in t["labels"].items():
        if one["reason"]:
            table.add_row(*_cells([name, one["reason"]]))
            continue
        table.add_row(*_cells([name, "all readers", "each other (Fleiss)", "", "", "", "", "", _figure(one["fleiss"])]))
        rows = [("model", "consensus", one["model_against_consensus"])]
        rows += [("model", reader, found) for reader, found in one["model_against_reader"].items()]
        rows += [(reader, "majority of the others", found) for reader, found in one["reader_against_others"].items()]
        for who, against, found in rows:
            if found is None:
                continue
            counts = ["", who, against, str(found["positives"]), str(found["negatives"])]
            if found["reason"]:
                table.add_row(*_cells([*counts, "too few"]))
                continue
            shares = [_share(found["sensitivity"]), _share(found["specificity"])]
            auroc = _figure(found["auroc"]) if found["auroc"] else ""
            table.add_row(*_cells([*counts, auroc, *shares, _figure(found["kappa"]) if found["kappa"] else ""]))
        for pair in one["pairs"]:
            table.add_row(*_cells(["", pair["first"], pair["second"], "", "", "", "", "", _figure(pair["kappa"])]))
    console.print(table)


def _print_normal(one: dict[str, Any], console: Console) -> None:
    if one["reason"]:
        _line(console, f"Normal against abnormal: no figure, {one['reason']}")
        return
    _line(console, f"Normal against abnormal: AUROC {_figure(one['auroc'])} ({one['positives']} with a finding)")
    table = _table("abnormal is called", "threshold", "sens", "spec", "PPV", "NPV")
    rows = [("No Finding not called", one["operating"]), ("any judged finding called", one["any_finding"])]
    rows += [(f"at {100 * float(wanted):.0f} % sensitivity", found) for wanted, found in one["at_sensitivity"].items()]
    for words, found in rows:
        if found is not None:
            table.add_row(*_cells([words, _number(found["threshold"], 3), *_operating(found)]))
    console.print(table)


def _print_groups(t: dict[str, Any], console: Console) -> None:
    judged = [name for name, one in t["labels"].items() if not one["reason"] and not one["experimental"]]
    if not judged or not t["groups"]:
        return
    table = _table("group", "", "films", *judged)
    for group in t["groups"]:
        figures = [_figure(group["labels"][name]["auroc"]) for name in judged]
        table.add_row(*_cells([group["by"], group["level"], str(group["films"]), *figures]))
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(texts: list[str]) -> list[Text]:
    """As text, not as markup: a column of a table may hold square brackets."""
    return [Text(text) for text in texts]


def _line(console: Console, text: str) -> None:
    console.print(Text(text))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _figure(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _share(found: dict[str, Any] | None) -> str:
    return "" if found is None or found["value"] is None else f"{100 * found['value']:.0f} %"


def _operating(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", "", "", ""]
    return [_share(found[name]) for name in ("sensitivity", "specificity", "ppv", "npv")]


def _p(value: float | None) -> str:
    return "" if value is None else ("<0.001" if value < 0.001 else f"{value:.3f}")
