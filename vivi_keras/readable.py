"""Names of files as text."""

import os


def readable(path):
    """A path as text that can be stored and shown anywhere.

    Bytes that are no UTF-8 and control characters appear escaped.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )
