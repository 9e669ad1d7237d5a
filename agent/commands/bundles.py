"""``models``: the bundles at hand, what they say of themselves, whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands import (
    lab_audit,
    lab_calibrate,
    lab_card,
    lab_compare,
    lab_evaluate,
    lab_explain,
    lab_import,
    lab_train,
    lab_tune,
)
from firstread.agent.commands.common import FAILED, ConfigOption, JsonOption, fail, print_json, settings_from

app = typer.Typer(no_args_is_help=True, help="Model bundles: list, show, verify.")

BundleArgument = Annotated[str, typer.Argument(metavar="[BUNDLE]", help="Name or folder; else the one in force.")]


@app.command("list")
def list_bundles(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """The shipped bundles and the one in force."""
    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle, reference_bundle

    chosen = settings_from(config).analysis.bundle
    # Hidden folders are bundles being written.
    folders = sorted(path.parent for path in reference_bundle().parent.glob("[!.]*/bundle.toml"))
    in_force = bundle_folder(chosen)
    found = []
    for folder in [*folders, *([] if in_force in folders else [in_force])]:
        entry: dict[str, object] = {"folder": str(folder), "in_force": folder == in_force}
        try:
            bundle = load_bundle(folder)
            entry |= {"name": bundle.name, "version": bundle.version, "labels": len(bundle.labels), "problem": None}
        except BundleError as error:
            entry |= {"name": folder.name, "version": None, "labels": None, "problem": str(error)}
        found.append(entry)
    if as_json:
        print_json(found)
        return
    for one in found:
        mark = "*" if one["in_force"] else " "
        typer.echo(f"{mark} {one['name']} {one['version'] or ''}  {one['problem'] or one['folder']}")


@app.command()
def show(bundle: BundleArgument = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What a bundle says of itself: labels, operating points, provenance, and its card."""
    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle

    try:
        loaded = load_bundle(bundle_folder(bundle or settings_from(config).analysis.bundle))
    except BundleError as error:
        fail(str(error))
    if as_json:
        print_json(
            {
                "name": loaded.name,
                "version": loaded.version,
                "folder": str(loaded.folder),
                "weights_sha256": loaded.weights_sha256,
                "input_size": loaded.input_size,
                "labels": [
                    {
                        "label": label,
                        "operating_point": loaded.thresholds.get(label),
                        "experimental": label in loaded.experimental,
                    }
                    for label in loaded.labels
                ],
                "provenance": dict(loaded.provenance),
            }
        )
        return
    typer.echo(f"{loaded.name} {loaded.version}  {loaded.input_size} px  weights {loaded.weights_sha256[:16]}")
    for label in loaded.labels:
        point = loaded.thresholds.get(label)
        experimental = "  experimental" if label in loaded.experimental else ""
        typer.echo(f"  {label:<20} {'no operating point' if point is None else f'{point:.3f}'}{experimental}")
    if loaded.card:
        typer.echo("\n" + loaded.card)


@app.command()
def verify(bundle: BundleArgument = "", config: ConfigOption = None) -> None:
    """Checks hashes, labels, shapes, and that the canaries come out right on this machine."""
    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models import canary
    from firstread.models.bundle import load_bundle, verify_bundle
    from firstread.models.engine import EngineError, open_engine

    settings = settings_from(config)
    folder: Path = bundle_folder(bundle or settings.analysis.bundle)
    problems = verify_bundle(folder)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(FAILED)
    loaded = load_bundle(folder)
    try:
        engine = open_engine(loaded, settings.analysis.device)
    except EngineError as error:
        fail(str(error))
    result = canary.check(engine, loaded)
    if not result.ok:
        fail(result.detail)
    typer.echo(
        f"{loaded.name} {loaded.version} is whole; {engine.name} answers its canaries "
        f"within {result.worst_difference:.2g}"
    )


app.command("evaluate")(lab_evaluate.evaluate)
app.command("compare")(lab_compare.compare)
app.command("train")(lab_train.train)
app.command("tune")(lab_tune.tune)
app.command("calibrate")(lab_calibrate.calibrate)
app.command("import")(lab_import.import_weights)
app.command("explain")(lab_explain.explain)
app.command("card")(lab_card.card)
app.command("audit")(lab_audit.audit)
