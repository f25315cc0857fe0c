"""``framegate sign``: vouch for a bundle with a private key, or make a pair of keys."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.export.commands.summaries import SUMMARIES
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.search import bundle_to_change
from framegate.runtime.bundle.signature import new_key, sign
from framegate.runtime.console import to_stdout
from framegate.runtime.errors import UsageError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``sign`` to the command line."""
    parser = commands.add_parser("sign", help=SUMMARIES["sign"])
    parser.add_argument(
        "bundle", nargs="?", help="folder NAME.bundle, into which its signature is written; left out with --new-key"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE.pem",
        help="private Ed25519 key to sign with (default: none, a signature needs one)",
    )
    parser.add_argument(
        "--new-key",
        type=Path,
        metavar="FILE.pem",
        help="sign nothing, but make a private key and FILE.pub.pem beside it (default: sign)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Sign, or make a key."""
    if arguments.new_key is not None:
        if arguments.bundle is not None or arguments.key is not None:
            raise UsageError("--new-key makes a key and signs nothing; sign with --key afterwards")
        public = new_key(arguments.new_key)
        to_stdout(f"private key: {arguments.new_key} (keep it)   public key, for --trust: {public}")
        return 0
    if arguments.bundle is None or arguments.key is None:
        raise UsageError("framegate sign BUNDLE --key KEY.pem, or framegate sign --new-key KEY.pem")
    bundle = Bundle.open(bundle_to_change(arguments.bundle))
    made = sign(bundle.path, bundle.digest, arguments.key)
    to_stdout(f"{bundle.path}: digest {bundle.digest[:16]} signed by key {made.fingerprint}")
    return 0
