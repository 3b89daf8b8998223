"""Stage `manifest` on small corpora of sound files."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.compose import text
from pipeline.data import build, hashing
from pipeline.errors import CorpusError, LeakageError, QuarantineError
from pipeline.reasons import REASONS
from pipeline.storage import tables as manifest

FILES = (
    "manifest.parquet",
    "truth.parquet",
    "annotations.parquet",
    "truth_annotations.parquet",
    "folds.parquet",
    "quarantine.parquet",
    "card.json",
)


@pytest.fixture
def ravdess(tmp_path, tone):
    """Six actors, two emotions, two statements."""
    root = tmp_path / "corpus"
    for actor in range(1, 7):
        for emotion in (3, 4):
            for statement in (1, 2):
                tone(
                    root / f"Actor_{actor:02}" / f"03-01-{emotion:02}-01-0{statement}-01-{actor:02}.wav",
                    frequency=200 + 40 * actor + 7 * emotion + statement,
                )
    return root


def read(folder, name):
    return pl.read_parquet(folder / f"{name}.parquet")


def test_one_split_hides_the_truth_of_the_test_clips(ravdess, tmp_path, settings):
    build.build_manifest(settings("ravdess", ravdess), tmp_path / "data")
    table, truth, folds = (read(tmp_path / "data", n) for n in ("manifest", "truth", "folds"))
    assert list(table.columns) == list(manifest.SCHEMA)
    assert table.height == 24 and table["id"].is_sorted() and table["content"].n_unique() == 24
    test = table.filter(pl.col("split") == "test")
    assert set(truth["id"]) == set(test["id"]) and truth["emotion"].null_count() == 0
    assert all(test[name].null_count() == test.height for name in manifest.LABELS)
    assert table.filter(pl.col("split") != "test")["emotion"].null_count() == 0
    assert folds.rename({"role": "split"}).select("id", "split").sort("id").equals(table.select("id", "split"))
    assert table["duration"].to_list() == [0.5] * 24
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert card["clips"] == 24 and card["speakers"] == 6 and card["licence"] == "CC BY-NC-SA 4.0"
    assert sum(sum(part["emotions"].values()) for part in card["roles"].values()) == 24


def test_folds_keep_labels_and_all_truth(ravdess, tmp_path, settings):
    build.build_manifest(settings("ravdess", ravdess, protocol={"kind": "kfold", "folds": 3}), tmp_path / "data")
    table, truth, folds = (read(tmp_path / "data", n) for n in ("manifest", "truth", "folds"))
    assert table["emotion"].null_count() == 0 and table["split"].null_count() == 24
    assert truth.height == 24 and folds.height == 72


def test_the_same_corpus_gives_the_same_bytes(ravdess, tmp_path, settings):
    build.build_manifest(settings("ravdess", ravdess), tmp_path / "one")
    build.build_manifest(settings("ravdess", ravdess), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_damage_becomes_quarantine_rows_with_reasons(ravdess, tmp_path, settings, tone):
    actor = ravdess / "Actor_01"
    names = sorted(actor.iterdir())
    names[0].write_bytes(b"")
    names[1].write_bytes(b"not a sound at all, whatever the name says")
    tone(names[2], amplitude=0.0)
    tone(names[3], seconds=0.02)
    tone(ravdess / "Actor_02" / "notes-of-actor.wav")
    tone(ravdess / "Actor_03" / "03-01-09-01-01-01-03.wav")
    shutil.copy(ravdess / "Actor_04/03-01-03-01-01-01-04.wav", ravdess / "Actor_04/03-01-03-01-02-01-04.wav")
    build.build_manifest(settings("ravdess", ravdess), tmp_path / "data")
    found = read(tmp_path / "data", "quarantine")
    assert sorted(found["reason"]) == ["duplicate", "empty", "name", "name", "silent", "too_short", "unreadable"]
    assert set(found["reason"]) <= set(REASONS)
    table = read(tmp_path / "data", "manifest")
    assert table.height == 24 - 5
    assert not set(found["id"].drop_nulls()) & set(table["id"])
    card = json.loads((tmp_path / "data/card.json").read_text())
    assert card["quarantine"]["name"] == 2


def test_too_much_damage_stops_after_the_table_is_written(ravdess, tmp_path, settings):
    for path in sorted((ravdess / "Actor_01").iterdir()):
        path.write_bytes(b"")
    with pytest.raises(QuarantineError, match=r"4 of 24 clips \(16.7%\) failed: 4 empty") as caught:
        build.build_manifest(settings("ravdess", ravdess, quarantine={"max_rate": 0.05}), tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert read(tmp_path / "data", "quarantine").height == 4
    assert not (tmp_path / "data/manifest.parquet").exists()


def test_strict_stops_at_the_first_damaged_clip(ravdess, tmp_path, settings, monkeypatch):
    sorted((ravdess / "Actor_01").iterdir())[0].write_bytes(b"")
    (tmp_path / "params.yaml").write_text(text(settings("ravdess", ravdess).model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["manifest"], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "data/manifest.parquet").is_file()
    with pytest.raises(QuarantineError, match="1 of 24 clips .* failed: 1 empty.*At most 0.0%"):
        run(app, ["manifest", "--strict"], catch_exceptions=False)
    assert run(app, ["corpus", "check"]).exit_code == 0 and run(app, ["corpus", "check", "--strict"]).exit_code == 3


def test_a_pointer_of_git_lfs_is_told_from_a_broken_file(ravdess, tmp_path, settings):
    stub = sorted((ravdess / "Actor_01").iterdir())[0]
    stub.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:9269ed5e\nsize 414429\n")
    build.build_manifest(settings("ravdess", ravdess), tmp_path / "data")
    (row,) = read(tmp_path / "data", "quarantine").to_dicts()
    assert (row["reason"], row["detail"]) == ("stub", "audio: fetch the files themselves with `git lfs pull`")


def test_an_unknown_corpus_and_an_absent_folder_are_one_line(tmp_path, settings):
    with pytest.raises(CorpusError, match="Unknown corpus 'ravdes'. Did you mean 'ravdess'"):
        build.build_manifest(settings("ravdes", tmp_path), tmp_path / "data")
    with pytest.raises(CorpusError, match="is not a folder"):
        build.build_manifest(settings("ravdess", tmp_path / "nowhere"), tmp_path / "data")


@pytest.fixture
def leaking(tmp_path, tone):
    """A table whose official splits share a speaker and a file."""
    root = tmp_path / "table"
    lines = ["id,audio,split,speaker,emotion"]
    for i, (part, who) in enumerate((("train", "a"), ("train", "b"), ("val", "c"), ("test", "a"), ("test", "d"))):
        tone(root / f"{i}.wav", frequency=200 + 20 * i)
        lines.append(f"{i},{i}.wav,{part},{who},happy")
    shutil.copy(root / "0.wav", root / "4.wav")
    (root / "clips.csv").write_text("\n".join(lines))
    return root


def test_a_leak_stops_or_is_reported_with_its_size(leaking, tmp_path, settings):
    options = {"table": "clips.csv"}
    with pytest.raises(LeakageError, match="train and test share 1 values of (speaker|content)"):
        build.build_manifest(settings("generic", leaking, options, protocol={"kind": "official"}), tmp_path / "data")
    build.build_manifest(
        settings("generic", leaking, options, protocol={"kind": "official", "on_leak": "report"}), tmp_path / "data"
    )
    leaks = json.loads((tmp_path / "data/card.json").read_text())["leaks"]
    assert {leak["column"]: (leak["clips"], leak["share"]) for leak in leaks} == {"speaker": (1, 0.5), "content": (1, 0.5)}


def test_duplicate_ids_and_paths_out_of_the_root_are_quarantined(leaking, tmp_path, settings):
    with (leaking / "clips.csv").open("a") as file:
        file.write("\n2,1.wav,train,z,sad\n9,../secret.wav,train,z,sad\n8,/etc/passwd,train,z,sad\n7,gone.wav,train,z,sad\n")
    params = settings("generic", leaking, {"table": "clips.csv"}, protocol={"kind": "official", "on_leak": "report"})
    build.build_manifest(params, tmp_path / "data")
    found = read(tmp_path / "data", "quarantine")
    assert sorted(found["reason"]) == ["duplicate", "escape", "escape", "missing"]
    # Each says in which line of which file.
    assert {detail[detail.rindex("(") :] for detail in found["detail"]} == {
        f"(clips.csv, line {number})" for number in (7, 8, 9, 10)
    }


def test_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    first = hashing.hash_media([str(path)])
    monkeypatch.setattr(hashing, "hash_file", lambda _: pytest.fail("hashed again"))
    assert hashing.hash_media([str(path)]) == first
    monkeypatch.undo()
    path.write_bytes(b"longer")
    assert hashing.hash_media([str(path)]) != first
    assert hashing.hash_media([str(tmp_path / "absent")]) == {str(tmp_path / "absent"): None}


def test_content_depends_on_bytes_cut_and_channel_only():
    row = {"id": "x", "audio": "a.wav", "video": None, "start": 1.0, "end": 2.0, "channel": "left", "text": "hello"}
    hashes = {"a.wav": "h"}
    one = hashing.identify_clip(row, hashes)
    assert one == hashing.identify_clip(row | {"id": "y", "text": "other", "audio": "b.wav"}, {"b.wav": "h"})
    for change in ({"start": 1.5}, {"end": None}, {"channel": "right"}):
        assert hashing.identify_clip(row | change, hashes) != one
    assert hashing.identify_clip(row, {"a.wav": "g"}) != one


def test_a_folder_of_frames_is_hashed_by_names_and_bytes(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f/00000.png").write_bytes(b"a")
    (tmp_path / "f/00001.png").write_bytes(b"b")
    first = hashing.hash_media([str(tmp_path / "f")])[str(tmp_path / "f")]
    (tmp_path / "f/labels.json").write_text("{}")
    assert hashing.hash_media([str(tmp_path / "f")])[str(tmp_path / "f")] == first
    (tmp_path / "f/00001.png").rename(tmp_path / "f/00002.png")
    assert hashing.hash_media([str(tmp_path / "f")])[str(tmp_path / "f")] != first


def test_real_ravdess(real, tmp_path, settings):
    if not (real / "ravdess/audio").is_dir():
        pytest.skip("no RAVDESS in the real data")
    from pipeline.data.corpora import open_corpus

    tables = open_corpus(settings("ravdess", real / "ravdess/audio").corpus).read()
    counts = tables.notes["clips per emotion"]
    assert counts.pop("neutral") == 72 and set(counts.values()) == {144} and len(counts) == 7
    assert len(tables.clips) == 1080 and tables.notes["actors"] == 18 and not tables.problems
