"""Bytes with a checksum: whole, or none."""

import pytest

from pipeline.storage.checked_file import read_checked, write_checked


def test_what_was_written_is_read(tmp_path):
    for content in (b"", b"some bytes" * 100):
        write_checked(tmp_path / "a", content)
        assert read_checked(tmp_path / "a") == content
    assert read_checked(tmp_path / "b") is None and read_checked(None) is None


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c[:4], lambda c: b"", lambda c: c[:20] + b"x" + c[21:]])
def test_what_changed_since_is_none(tmp_path, change):
    write_checked(tmp_path / "a", b"some bytes" * 100)
    (tmp_path / "a").write_bytes(change((tmp_path / "a").read_bytes()))
    assert read_checked(tmp_path / "a") is None
