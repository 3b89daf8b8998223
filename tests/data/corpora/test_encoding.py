"""Tables in other encodings: read as what they are, told in one line, or refused; never as noise."""

from __future__ import annotations

import logging

import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.corpora import open_corpus, table
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus

SAID = {
    "zh": ["我很开心", "他非常难过", "你为什么生气", "没什么特别的"],
    "zh_tw": ["我很開心", "他非常難過", "你為什麼生氣", "沒什麼特別的"],
    "ja": ["とても嬉しいです", "彼はとても悲しい", "なぜ怒っているの", "特に何もありません"],
    "ko": ["나는 정말 행복해요", "그는 매우 슬프다", "왜 화가 났어요", "특별한 것은 없어요"],
    "ru": ["Я очень рад", "Он очень грустный", "Почему ты злишься", "Ничего особенного"],
    "el": ["Είμαι πολύ χαρούμενος", "Γιατί είσαι θυμωμένος", "Τίποτα το ιδιαίτερο", "Καλημέρα"],
    "fr": ["Ça m’étonne, c’est déjà l’été", "Je suis très heureux", "à bientôt", "plain"],
    "es": ["señor ¿qué pasa?", "cuesta €5", "it’s – no…", "plain"],
    "cs": ["Jsem velmi šťastný člověk", "Proč se zlobíš, příteli", "To je všechno", "dobrý"],
}
TOLD = [
    ("zh", "gbk", "gb18030"),
    ("zh", "gb18030", "gb18030"),
    ("zh_tw", "big5", "big5"),
    ("zh_tw", "gbk", "gb18030"),
    ("ja", "shift_jis", "cp932"),
    ("ja", "iso2022_jp", "iso2022_jp"),
    ("ko", "euc_kr", "cp949"),
    ("ru", "cp1251", "cp1251"),
    ("ru", "koi8_r", "koi8_r"),
    ("ru", "cp866", "cp866"),
    ("el", "cp1253", "cp1253"),
    ("fr", "cp1252", "cp1252"),
    ("es", "cp1252", "cp1252"),
    ("cs", "cp1250", "cp1250"),
    ("ru", "utf-16-le", "utf-16-le"),
]


def rows(language):
    return "id,media,emotion,text\n" + "".join(f'{i},{i}.wav,happy,"{said}"\n' for i, said in enumerate(SAID[language]))


def texts(root, **options):
    found = open_corpus(Corpus(name="generic", root=str(root), options={"table": "t.csv", **options})).read()
    return [clip["text"] for clip in found.clips]


@pytest.mark.parametrize(("language", "encoding", "name"), TOLD)
def test_an_encoding_is_told_from_its_bytes_and_said(tmp_path, caplog, language, encoding, name):
    (tmp_path / "t.csv").write_bytes(rows(language).encode(encoding))
    assert texts(tmp_path) == SAID[language]
    (line,) = caplog.messages
    assert str(tmp_path / "t.csv") in line and f"read as {name}" in line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("language", SAID)
def test_unicode_is_read_without_a_word(tmp_path, caplog, language, encoding):
    (tmp_path / "t.csv").write_bytes(rows(language).encode(encoding))
    assert texts(tmp_path) == SAID[language] and not caplog.messages


@pytest.mark.parametrize(
    ("language", "encoding", "may"),
    [
        ("ja", "euc_jp", "gb18030"),
        ("ru", "mac_cyrillic", "cp1251"),
        ("fr", "mac_roman", "none that is told"),
    ],
)
def test_what_may_be_several_is_refused_and_can_be_said(tmp_path, language, encoding, may):
    (tmp_path / "t.csv").write_bytes(rows(language).encode(encoding))
    with pytest.raises(CorpusError, match=rf"t\.csv is not UTF-8; it .*{may}.*Say which in corpus\.options\.encoding") as caught:
        texts(tmp_path)
    assert "\n" not in str(caught.value)
    assert texts(tmp_path, encoding=encoding) == SAID[language]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1250", ["książka już źle", "zły"]),
        ("cp1250", ["Bardzo lubię tę piosenkę", "Nie wiem co powiedzieć"]),
        ("cp1250", ["Az őszi eső", "Szép idő van ma"]),
        ("cp1254", ["şimdi ağlıyor kızgınsın", "Teşekkür ederim"]),
        ("gbk", ["高兴", "悲伤", "愤怒"]),
        ("cp932", ["喜", "怒"]),
        ("cp1251", ["радость", "грусть"]),
        ("cp1252", ["À demain", "à"]),
    ],
)
def test_few_words_are_right_or_refused(tmp_path, encoding, said):
    (tmp_path / "t.csv").write_bytes("\n".join(["id,text", *(f"{i},{text}" for i, text in enumerate(said))]).encode(encoding))
    try:
        found = table.rows_of(tmp_path / "t.csv")
    except CorpusError as error:
        assert "corpus.options.encoding" in str(error)
        found = table.rows_of(tmp_path / "t.csv", encoding=encoding)
    assert [row["text"] for _, row in found] == said


@pytest.mark.parametrize("said", ["Well … ok", "so – and — then", "costs € 5", "“quoted”", "it is 20 °", "to © them"])
def test_punctuation_alone_is_of_windows(tmp_path, said):
    (tmp_path / "t.csv").write_bytes(f"id,text\n1,{said}\n2,plain\n".encode("cp1252"))
    assert [row["text"] for _, row in table.rows_of(tmp_path / "t.csv")] == [said, "plain"]


def test_letters_alone_may_be_of_any_script(tmp_path):
    (tmp_path / "t.csv").write_bytes("id,sex\n1,м\n2,ж\n".encode("cp1251"))
    with pytest.raises(CorpusError, match=r"Say which in corpus\.options\.encoding"):
        table.rows_of(tmp_path / "t.csv")


def test_a_wrong_or_unknown_encoding_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_bytes(rows("zh").encode("gbk"))
    with pytest.raises(CorpusError, match=r"t\.csv is not in utf-8, as corpus\.options\.encoding says"):
        texts(tmp_path, encoding="utf-8")
    for name in ("klingon", "hex", "rot13"):
        with pytest.raises(ParamsError, match="is no encoding; e.g. utf-8") as caught:
            texts(tmp_path, encoding=name)
        assert "\n" not in str(caught.value)


def test_lines_of_two_encodings(tmp_path, caplog):
    (tmp_path / "t.csv").write_bytes("id,text\n1,café\n2,déjà\n".encode() + "3,naïve\n".encode("cp1252"))
    assert [row["text"] for _, row in table.rows_of(tmp_path / "t.csv")] == ["café", "déjà", "naïve"]
    assert "line 4 and 0 more are not UTF-8, read as cp1252" in caplog.text


def test_a_lost_byte_costs_one_character_and_is_said(tmp_path, caplog):
    (tmp_path / "t.csv").write_bytes("id,text\n1,我很开心\n".encode() + "2,他非常难过".encode()[:-1] + b"\n")
    assert [row["text"] for _, row in table.rows_of(tmp_path / "t.csv")] == ["我很开心", "他非常难�"]
    assert "line 3 and 0 more hold bytes that are no UTF-8" in caplog.text


def test_bytes_of_no_text_are_refused(tmp_path):
    for data, said in ((b"id,te\0xt\n1,2\n", "NUL bytes"), (b"\xff\xfei\0d\0,\0t", "not all of it is utf-16")):
        (tmp_path / "t.csv").write_bytes(data)
        with pytest.raises(CorpusError, match=said):
            table.rows_of(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text('{"id": "1", "text": "half \\ud83d"}\n')
    with pytest.raises(CorpusError, match=r"t\.jsonl, line 1: .* holds half a character"):
        table.rows_of(tmp_path / "t.jsonl")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CorpusError, match=r"folder\.csv is not a file"):
        table.rows_of(tmp_path / "folder.csv")


@pytest.mark.parametrize(("encoding", "option"), [("gbk", None), ("cp1251", None), ("euc_jp", "euc_jp")])
def test_the_manifest_has_the_words(tmp_path, tone, settings, encoding, option):
    said = SAID[{"gbk": "zh", "cp1251": "ru", "euc_jp": "ja"}[encoding]]
    for i in range(len(said)):
        tone(tmp_path / f"c/{i}.wav", frequency=200 + 30 * i)
    lines = "".join(f"{i};{i}.wav;{text}\n" for i, text in enumerate(said))
    (tmp_path / "c/t.csv").write_bytes(f"sep=;\r\nid;media;text\n{lines}".encode(encoding))
    options = {"table": "t.csv"} | ({"encoding": option} if option else {})
    build.build_manifest(settings("generic", tmp_path / "c", options, protocol={"group": "id"}), tmp_path / "data")
    assert pl.read_parquet(tmp_path / "data/manifest.parquet")["text"].to_list() == said


@pytest.mark.parametrize("name", ["meld", "mosi", "ch_sims", "mer2023", "merr", "msp_podcast", "msp_improv", "afew_va"])
def test_every_corpus_with_tables_can_be_told(tmp_path, name):
    adapter = open_corpus(Corpus(name=name, root=str(tmp_path), options={"encoding": "GBK"}))
    assert adapter.options.encoding == "gbk"


def test_a_corpus_with_columns_of_its_own_takes_the_encoding(tmp_path, caplog):
    (tmp_path / "label.csv").write_bytes("video_id,clip_id,text,label,mode\nv,0001,とても嬉しいです,1.0,train\n".encode("euc_jp"))
    caplog.set_level(logging.WARNING)
    found = open_corpus(Corpus(name="ch_sims", root=str(tmp_path), options={"encoding": "euc_jp", "media": "none"})).read()
    assert found.clips[0]["text"] == "とても嬉しいです" and not caplog.messages
