"""Progress outside a terminal: lines now and then with the time left, and one last line."""

import logging

import pytest

from pipeline import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return now


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_lines_say_what_is_left_and_the_last_one_that_it_is_done(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress.track(8, "frames") as advance:
        for second in (3, 6, 12, 20, 24, 28):
            clock[0] = second
            advance(1)
        clock[0] = 95
        advance(2)
    assert lines(caplog) == ["frames: 3 of 8, about 20 s left", "frames: 5 of 8, about 14 s left", "frames: 8 of 8 in 1 min 35 s"]


def test_what_fails_is_not_said_to_be_done(clock, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="broken"), progress.track(2, "audio") as advance:
        advance(1)
        raise ValueError("broken")
    assert lines(caplog) == []


def test_nothing_to_do_is_no_line(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress.track(0, "audio"):
        pass
    assert lines(caplog) == []
