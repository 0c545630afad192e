"""Items of an iterator, made by a thread before they are asked for."""

import contextlib
import queue
import threading
from collections.abc import Iterator

_END = object()


def ahead(items, size) -> Iterator:
    """Yields the items in order while a thread makes the next ones.

    What the iterator raises is raised here, after the items before it. Closed
    early, the generator returns when the thread has ended, so that what the
    items come from may be closed then.

    Args:
        items: iterator that releases Python's lock while it works.
        size: most items that wait.
    """
    waiting = queue.Queue(size)
    stopped = threading.Event()

    def work():
        error = None
        try:
            for item in items:
                waiting.put((item, None))
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        waiting.put((_END, error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for a place
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.01)
        thread.join()
