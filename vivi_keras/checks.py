"""Checks of arguments, with messages in one form; the main line of errors."""

import difflib
import numbers
import re

# Lines that TensorFlow adds to an error raised in a graph.
_FRAME = (
    r"Graph execution error:$|Detected at node |<stack traces unavailable>"
    r"|\d+ root error|Exception encountered when calling "
)


def reason(error) -> str:
    """The most useful line of an error, such as a long one of TensorFlow."""
    lines = [
        re.sub(
            r"^( *\(\d+\) [A-Z_]+:)? *(\{\{.*?\}\} )?",
            "",
            re.sub(r"\x1b\[\d*m", "", line),  # Keras's bold type
        )
        for line in str(error).split("\n")
    ]
    useful = [line for line in lines if line and not re.match(_FRAME, line)]
    return re.sub(r"^ValueError: ", "", useful[0]) if useful else str(error)


def check_choice(name, value, choices):
    """Raises ValueError unless a value is a choice; suggests a similar one."""
    if value not in choices:
        texts = [choice for choice in choices if isinstance(choice, str)]
        near = difflib.get_close_matches(str(value), texts, 1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}."
            f" Got: {value!r}{hint}"
        )


def check_range(name, value, low, high, kind="a number"):
    """Raises ValueError if an argument is not a number in [low, high]."""
    wanted = numbers.Integral if kind == "an int" else numbers.Real
    if not isinstance(value, wanted) or not low <= value <= high:
        raise ValueError(
            f"{name} must be {kind} from {low} to {high}. Got: {value!r}"
        )


def check_whole(name, value, low, high):
    """Raises ValueError if an argument is not an integer in [low, high]."""
    check_range(name, value, low, high, "an int")
