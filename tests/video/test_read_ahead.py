"""A thread that works ahead changes nothing but the time."""

import threading
import time

import pytest

from vivi_keras.video.read_ahead import ahead


@pytest.mark.parametrize("group", [1, 3, 2000])
def test_items_come_in_order_and_all(group):
    assert list(ahead(iter(range(1000)), group)) == [*range(1000)]
    assert list(ahead(iter([]), group)) == []


def test_it_works_ahead_but_no_further_than_told():
    made = []

    def items():
        for i in range(20):
            made.append(i)
            yield i

    found = ahead(items(), 3)
    assert next(found) == 0
    deadline = time.monotonic() + 5
    while len(made) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == 9  # three groups
    assert list(found) == [*range(1, 20)]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_errors_come_after_the_items_before_them(group):
    def items():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    found = ahead(items(), group)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def test_closed_early_its_thread_has_ended():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    source = items()
    found = ahead(source, 2)
    next(found)
    found.close()
    assert not any(t.name == "ahead" for t in threading.enumerate())
    source.close()
    assert closed
