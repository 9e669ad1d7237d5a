"""``models import``: published weights become a bundle that this product can verify, serve and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import JsonOption, fail, print_json
from firstread.agent.commands.lab_options import DeviceOption, ThreadsOption


def import_weights(
    file: Annotated[Path, typer.Argument(help="Weights: .pt, .pth, .ckpt, .safetensors or .onnx.")],
    arch: Annotated[
        str, typer.Option("--arch", help="resnet50, timm-resnet50, torchxrayvision-resnet50, onnx, or auto to guess.")
    ] = "auto",
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="FILE|LIST",
            help="Names of the outputs in order: a file, a list with commas (- leaves one out), chexpert, "
            "torchxrayvision.",
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the bundle, else the file's.")] = "",
    version: Annotated[str, typer.Option("--version", help="Its version.")] = "1.0.0",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the bundle, else NAME-VERSION here.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Side of the square in pixels, else the library's.")
    ] = None,
    mean: Annotated[str, typer.Option("--mean", metavar="N,N,N", help="Mean on greys from 0 to 1.")] = "",
    std: Annotated[str, typer.Option("--std", metavar="N,N,N", help="Standard deviation on greys from 0 to 1.")] = "",
    fit: Annotated[
        str, typer.Option("--fit", help="resize_then_crop, centre_crop or stretch, else as the library does.")
    ] = "",
    resize_to: Annotated[
        int | None, typer.Option("--resize-to", help="Shorter side in pixels before the square is cut out.")
    ] = None,
    resample: Annotated[
        str, typer.Option("--resample", help="bilinear, bicubic, box or gaussian, else as the library does.")
    ] = "",
    eight_bit: Annotated[
        bool | None, typer.Option("--eight-bit/--full-depth", help="Round greys to 256 steps as 8-bit pictures do.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", help="sigmoid (each label for itself) or softmax (one of all).")
    ] = "",
    thresholds: Annotated[
        Path | None,
        typer.Option("--thresholds", metavar="FILE", help='Operating points as JSON or TOML: {"Effusion": 0.4}.'),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="float32 keeps every bit, float16 halves the bundle.")
    ] = "float32",
    graph_output: Annotated[
        str, typer.Option("--graph-output", help="Which output of an ONNX file, where it has several.")
    ] = "",
    graph_gives: Annotated[
        str, typer.Option("--graph-gives", help="logits or probabilities, where an ONNX file does not tell.")
    ] = "",
    note: Annotated[str, typer.Option("--note", help="A sentence for the card, say where the weights come from.")] = "",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Makes a bundle of somebody's weights without running anything in the file, and compares the two."""
    from firstread.models.bundle import BundleError
    from firstread.models.data.film import DataError
    from firstread.models.importing.importer import Imported, Request
    from firstread.models.importing.importer import import_weights as make
    from firstread.models.importing.origins import Wanted

    try:
        done: Imported = make(
            Request(
                file=file,
                arch=arch,
                labels=labels,
                name=name,
                version=version,
                out=out,
                wanted=Wanted(
                    input_size=input_size,
                    fit=fit,
                    resize_to=resize_to,
                    resample=resample,
                    eight_bit=eight_bit,
                    mean=_numbers("--mean", mean),
                    std=_numbers("--std", std),
                ),
                output=output,
                thresholds=thresholds,
                precision=precision,
                graph_output=graph_output,
                graph_gives=graph_gives,
                note=note,
                device=device,
                threads=threads,
            )
        )
    except (DataError, BundleError) as error:
        fail(str(error))
    bundle, parity = done.bundle, done.parity
    if as_json:
        print_json(
            {
                "name": bundle.name,
                "version": bundle.version,
                "folder": str(bundle.folder),
                "architecture": done.arch,
                "weights_sha256": bundle.weights_sha256,
                "outputs": [{"name": given, "label": label} for given, label in done.outputs],
                "operating_points": dict(bundle.thresholds),
                "operating_points_from": dict(done.points.sources),
                "parity": {
                    "worst_difference": parity.worst_difference,
                    "label": parity.where,
                    "engine": parity.engine,
                    "films": parity.squares,
                },
                "remarks": list(done.remarks),
            }
        )
        return
    typer.echo(f"{bundle.name} {bundle.version} is in {bundle.folder} ({done.arch}, {bundle.input_size} px)")
    for given, label in done.outputs:
        if label is not None:
            point, source = bundle.thresholds[label], done.points.sources[label]
            said = f"{point:.4f}  ({source})" if source != "none" else f"{point:.4f}  (placeholder)"
            typer.echo(f"  {given:<28} -> {label:<20} {said}")
    for given in done.dropped:
        typer.echo(f"  {given:<28} -> left out")
    typer.echo(
        f"parity: {parity.engine} against the weights as they came, {parity.squares} phantoms: "
        f"worst difference {parity.worst_difference:.1e} ({parity.where})"
    )
    typer.echo("Every label is experimental: it raises nothing until the site's policy says so.")
    for remark in done.remarks:
        typer.echo(f"! {remark}")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        fail(f"{option} {text} is no list of numbers: write 0.485,0.456,0.406 or one number")
