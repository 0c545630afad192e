"""Runs an iterator in a thread, ahead of its reader."""

import contextlib
import queue
import threading
from collections.abc import Iterator

_END = object()


def ahead(items, group=1) -> Iterator:
    """Yields the items in order while a thread makes the next ones.

    An error of the iterator is raised here, after the items before it. When
    the generator is closed early, it waits for the thread to end, so that the
    source of the items can be closed afterwards.

    Args:
        items: iterator that releases Python's lock while it works.
        group: number of items passed on at once; larger groups cost less time.
            Up to three groups exist: one being filled, one ready, one being
            yielded.
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
        while thread.is_alive():  # it may wait for a free place in the queue
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.01)
        thread.join()
