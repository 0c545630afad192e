"""Items of an iterator, made by a thread before they are asked for."""

import contextlib
import queue
import threading
from collections.abc import Iterator

_END = object()


def ahead(items, group=1) -> Iterator:
    """Yields the items in order while a thread makes the next ones.

    What the iterator raises is raised here, after the items before it. Closed
    early, the generator returns when the thread has ended, so that what the
    items come from may be closed then.

    Args:
        items: iterator that releases Python's lock while it works.
        group: items handed over at once; fewer hand-overs cost less. Up to
            three groups wait: one is filled, one ready, one being yielded.
    """
    waiting = queue.Queue(1)
    stopped = threading.Event()

    def work():
        made, last = [], _END
        try:
            for item in items:
                made.append(item)
                if len(made) == group:
                    waiting.put(made)
                    made = []
                if stopped.is_set():
                    return
        except BaseException as raised:
            last = raised
        waiting.put(made)
        waiting.put(last)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while isinstance(made := waiting.get(), list):
            yield from made
        if made is not _END:
            raise made
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for a place
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.01)
        thread.join()
