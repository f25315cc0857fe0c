"""What ``framegate export`` asks about an ONNX file: options for what the file itself does not say."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.export.checks.pixel_scaling import MEANING, SCALINGS, scaling
from framegate.export.data.labels_file import check_count, read_labels
from framegate.export.graph.prepare import prepare
from framegate.export.graph.source import ImageInput, find_input, read_onnx, says_layout
from framegate.export.onnx_classifier import OnnxClassifier
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec

_OPTIONS = ("labels", "scaling", "mean", "std", "colour", "input_size", "resize", "layout", "output_name")


def add_onnx_options(parser: argparse.ArgumentParser) -> None:
    """The options that only an ONNX file needs."""
    group = parser.add_argument_group(
        "for an ONNX file", "What the file itself does not say. A Softmax at its end is found and removed."
    )
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="one label a line, in the order of the outputs (default: none, it has to be given)",
    )
    group.add_argument(
        "--scaling",
        choices=tuple(SCALINGS),
        help=f"how pixels become inputs. {MEANING} (default: none; the error message says which fits)",
    )
    group.add_argument(
        "--mean",
        metavar="R,G,B",
        help="instead of --scaling, with --std: (pixel - mean) / std, pixels 0..255 (default: that of --scaling)",
    )
    group.add_argument(
        "--std", metavar="R,G,B", help="see --mean; both in the network's channel order (default: that of --scaling)"
    )
    group.add_argument("--colour", choices=("rgb", "bgr", "grey"), help="channel order (default: rgb; grey if one)")
    group.add_argument(
        "--input-size", metavar="WxH", help="width and height of the input in pixels (default: what the file says)"
    )
    group.add_argument("--resize", choices=("bilinear", "area"), help="how images are resized (default: bilinear)")
    group.add_argument("--layout", choices=("nchw", "nhwc"), help="order of the input's axes (default: found out)")
    group.add_argument("--output-name", metavar="NAME", help="the output with the classes (default: the only one)")


def refuse_onnx_options(arguments: argparse.Namespace) -> None:
    """A checkpoint brings all of this with it; an option that is ignored would be a trap.

    Raises:
        UsageError: One was given.
    """
    for name in _OPTIONS:
        if getattr(arguments, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: only for .onnx files; {arguments.model} is taken for a checkpoint of "
                "framegate train, which records it"
            )


def is_onnx(model: Path) -> bool:
    """Whether a file is taken for an ONNX file: its ending says so."""
    return model.suffix.lower() == ".onnx"


def require_options(arguments: argparse.Namespace) -> None:
    """Name everything that is missing, at once.

    The scaling alone may be left out: then it is tried which one fits, which needs the labels and the images.

    Raises:
        FramegateError: Something is missing, or the ONNX file cannot be used.
    """
    missing = []
    if arguments.data is None and arguments.unseen is None:
        missing.append("--unseen DIR (photographs that it never saw, a folder for each label), or --data DIR")
    if arguments.out is None:
        missing.append("--out NAME.bundle (what to write)")
    if is_onnx(arguments.model):
        missing += _missing_of_onnx(arguments, scaling=bool(missing))
    if missing:
        one = "is" if len(missing) == 1 else "are"
        raise UsageError(f"export {arguments.model}: {one} missing: {'; '.join(missing)}")


def _missing_of_onnx(arguments: argparse.Namespace, scaling: bool) -> list[str]:
    """What an ONNX file needs besides."""
    path: Path = arguments.model
    model, missing = read_onnx(path), []
    if arguments.labels is None:
        missing.append("--labels FILE (a text file with one label a line, in the order of the outputs)")
    image = None
    if arguments.layout is None and not says_layout(model):
        missing.append("--layout nchw or nhwc (the input's shape does not say where the colours are)")
    else:
        image = find_input(model, path, arguments.layout)
    if image is not None and arguments.input_size is None and None in (image.width, image.height):
        missing.append("--input-size WxH, e.g. 224x224 (the file leaves the image size open)")
    names = [value.name for value in model.graph.output]
    if arguments.output_name is None and len(names) > 1:
        missing.append(f"--output-name, one of {', '.join(names)}")
    if (missing or scaling) and arguments.scaling is None and arguments.mean is None:
        missing.append(
            f"--scaling {'|'.join(SCALINGS)}, or --mean and --std (how pixels become inputs; left out when all else is "
            "given, it is tried which fits)"
        )
    return missing


def onnx_classifier(arguments: argparse.Namespace) -> OnnxClassifier:
    """The classifier that an ONNX file and the options describe.

    Raises:
        FramegateError: The file or an option cannot be used.
    """
    path: Path = arguments.model
    image = find_input(read_onnx(path), path, arguments.layout)
    width, height = image_size(arguments.input_size, image, path)
    labels = read_labels(arguments.labels)
    spec = input_spec(arguments, image, width, height)
    prepared = prepare(path, width, height, image.layout, arguments.output_name)
    check_count(arguments.labels, labels, prepared.classes)
    scaling_given = arguments.scaling is not None or arguments.mean is not None
    return OnnxClassifier(path, prepared, labels, spec, scaling_given)


def image_size(text: str | None, image: ImageInput, path: Path) -> tuple[int, int]:
    """Width and height of the input.

    Raises:
        UsageError: Neither the file nor the option says them, or they differ.
    """
    if text is None:
        if image.width is None or image.height is None:
            raise UsageError(f"model {path}: the file leaves the image size open; give --input-size WxH, e.g. 224x224")
        return image.width, image.height
    parts = text.lower().split("x")
    if not (len(parts) in (1, 2) and all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts)):
        raise UsageError(f"--input-size {text}: expected WxH in pixels, e.g. 224x224")
    width, height = int(parts[0]), int(parts[-1])
    if image.width not in (None, width) or image.height not in (None, height):
        raise UsageError(
            f"--input-size {text}: the file says {image.width or '?'}x{image.height or '?'}; leave the option out"
        )
    return width, height


def input_spec(arguments: argparse.Namespace, image: ImageInput, width: int, height: int) -> PreprocessSpec:
    """How pixels become the input, as far as the options say; where they do not, the usual.

    Raises:
        UsageError: They do not fit together, or not the network.
    """
    colour = arguments.colour or ("grey" if image.channels == 1 else "rgb")
    if (colour == "grey") != (image.channels == 1):
        raise UsageError(f"--colour {colour}: the network takes {image.channels} channels")
    if (arguments.mean is None) != (arguments.std is None):
        raise UsageError("--mean and --std belong together; give both, or --scaling")
    if arguments.mean is not None:
        if arguments.scaling is not None:
            raise UsageError("--scaling and --mean say the same thing; give one of them")
        mean, std = (_numbers(name, getattr(arguments, name), image.channels) for name in ("mean", "std"))
        if max(map(abs, mean)) <= 1 and max(std) < 1:
            times = [",".join(f"{value * 255:g}" for value in values) for values in (mean, std)]
            raise UsageError(
                f"--mean {arguments.mean} --std {arguments.std}: these are for pixels 0..1, framegate's pixels are "
                f"0..255; give --mean={times[0]} --std={times[1]}"
            )
    else:
        mean, std = scaling(arguments.scaling or "unit", colour)
    return PreprocessSpec(width, height, arguments.resize or "bilinear", "stretch", colour, mean, std)


def _numbers(name: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--{name} {text}: expected {'R,G,B' if channels == 3 else 'one number'}") from error
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise UsageError(f"--{name} {text}: {len(values)} numbers for {channels} channels")
    if not all(abs(value) < float("inf") for value in values) or (name == "std" and min(values) <= 0):
        raise UsageError(f"--{name} {text}: expected finite numbers{', above zero' if name == 'std' else ''}")
    return values
