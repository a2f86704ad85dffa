"""`osteofusion export`: from a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path

from osteofusion.parser import Parser


def run(arguments: list[str]) -> int:
    """Write the bundle.

    Returns:
        0.

    Raises:
        OsteofusionError: an option is wrong, or the checkpoint or its run cannot be read.
    """
    parser = Parser(
        prog="osteofusion export",
        description="Write a bundle: the model as ONNX graphs with everything it needs to answer, "
        "which `osteofusion serve` and `osteofusion predict --bundle` read. Probabilities are "
        "calibrated and thresholds chosen on the run's validation rows, and tested on its test "
        "rows.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="a run folder, or a checkpoint file"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="folder with the checkpoint's predictions, if it is not the one the checkpoint lies "
        "in: what `osteofusion test` made",
    )
    options = parser.parse_args(arguments)

    from osteofusion.serving.export import export_bundle
    from osteofusion.training.quiet import quiet

    with quiet():
        description = export_bundle(options.checkpoint, options.out, options.run)
    print(f"Bundle: {options.out} ({description.name}, {description.version})")
    print(f"Try:  osteofusion serve {options.out}")
    return 0
