"""The scripts, and `vivi`, which starts each of them by its name."""

import importlib
import sys

# Name -> (module with a function `run`, what it does).
COMMANDS = {
    "run": ("training.run", "do all steps for an archive, within a budget"),
    "prepare": ("training.prepare", "make a data set from videos"),
    "pretrain": ("training.pretrain", "train an encoder on a data set"),
    "adapt": ("training.adapt", "adapt an encoder, judged by your labels"),
    "export": ("export.main", "write a run as SavedModel, TFLite or ONNX"),
    "verify": ("export.verify", "check an exported encoder"),
    "evaluate": ("training.evaluate", "score encoders on tasks"),
    "embed": ("training.embed", "make an index of the shots of a data set"),
    "search": ("training.search", "find shots that look like an image"),
    "label": ("training.label", "suggest, fit and apply labels"),
}


def main():
    """What the command `vivi` does."""
    from vivi_keras import checks

    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("-h", "--help", "help"):
        print(_help())
        return
    try:
        checks.check_choice("The command of vivi", name, COMMANDS)
    except ValueError as error:
        sys.exit(f"vivi: {error}\nvivi --help lists the commands.")
    sys.argv = [f"vivi {name}", *arguments]
    importlib.import_module(f"vivi_keras.{COMMANDS[name][0]}").run()


def _help():
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "vivi: image encoders from unlabelled video.",
            "",
            "Example:",
            "  vivi run --videos=films --labels=labels.csv --output=out",
            "",
            "Commands (vivi COMMAND --help shows the flags of one):",
            *[f"  {n:{width}}  {text}" for n, (_, text) in COMMANDS.items()],
        ]
    )
