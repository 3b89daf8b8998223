"""The characters of a text file that strangers wrote: by its mark, as UTF-8, as it was told, or as its bytes suggest."""

from __future__ import annotations

import codecs
import logging
import re
from pathlib import Path

from pipeline.errors import CorpusError

log = logging.getLogger(__name__)

#: Encodings that tables are met in, besides Unicode's own; others have to be told.
_PAIRED = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_WESTERN = ("cp1252", "cp1250", "cp1254")
CANDIDATES = (*_PAIRED, "cp1251", "koi8_r", "cp866", "mac_cyrillic", "cp1253", *_WESTERN)
_MARKS = (
    # UTF-32's mark begins as UTF-16's does.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH = re.compile(rb"[\x80-\xff]+")
#: Quotes, dashes, the ellipsis and the currencies of Windows' code pages, all at the same place in each.
_DASHES = re.compile(rb"[\x80\x82\x84-\x87\x89\x8b\x91-\x97\x99\x9b\xa0\xa9\xab\xae\xb0\xb1\xb7\xbb]+")
#: Signs that stand between letters, and letters, where Windows-1252 is read in place of its Eastern and Turkish kin.
_ODD = re.compile(
    r"(?<=[^\W\d_])[\u0080-\u009f¡-¦¨¬¯±-³¸-º¼-¿×÷]|[²³¹£¥¯](?=[^\W\d_])|(?<=[a-z])Ÿ|[þðýÞÐÝ]|œ\b|[ìù](?=[^\W\d_])"
    # Endings and pairs of Polish, Hungarian and Czech that no language of Windows-1252 has.
    r"|[szi]ê\b|[aeiouy]æ|õ(?![es])|ø[íáéì]"
)
#: Differences of the library's figures (both are shares) that decide nothing.
_CHAOS, _COHERENCE = 0.05, 0.1


def decode(data: bytes, path: Path, encoding: str | None = None) -> str:
    """The text of a file; what was not plain is said in one line of the log.

    UTF-8 (with or without mark), UTF-16 and UTF-32 are known by themselves. Lines of Windows-1252 between lines of
    UTF-8 are read as what they are. Anything else is told from its bytes.

    Args:
        encoding: as a person says it is; nothing is guessed then.

    Raises:
        CorpusError: it is not in that encoding, may be in several, or is no text.
    """
    if encoding is not None:
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except (UnicodeError, LookupError) as error:
            raise CorpusError(f"{path} is not in {encoding}, as corpus.options.encoding says ({error}).") from error
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _strict(data, name, path)
    if b"\x1b$" in data and data.isascii():
        log.warning("%s: read as iso2022_jp.", path)
        return _strict(data, "iso2022_jp", path)
    if b"\0" in data:
        return _strict(data, _unmarked(data, path), path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _by_lines(data, path)


def _strict(data: bytes, name: str, path: Path) -> str:
    try:
        return data.decode(name)
    except UnicodeError as error:
        raise CorpusError(f"{path} is damaged: not all of it is {name} ({error}).") from error


def _unmarked(data: bytes, path: Path) -> str:
    """UTF-16 without a mark, known by the empty halves of its ASCII."""
    for name, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(data) % 2 == 0 and data[high::2].count(0) > len(data) // 8 and 0 not in data[1 - high :: 2]:
            log.warning("%s: read as %s.", path, name)
            return name
    raise CorpusError(f"{path} is not a text file (it holds NUL bytes).")


def _by_lines(data: bytes, path: Path) -> str:
    lines = data.splitlines(keepends=True)
    foreign, utf8, damaged = [], 0, []
    for number, line in enumerate(lines):
        try:
            utf8 += line.decode("utf-8").isascii() is False
        except UnicodeDecodeError:
            # One lost byte does not make another encoding of a line.
            text = line.decode("utf-8", "replace")
            lost = text.count("\ufffd")
            if sum(not sign.isascii() for sign in text) >= 4 * lost:
                damaged.append(number)
            else:
                foreign.append(number)
    if utf8 + len(damaged) <= len(foreign) / 4:
        # Lines of another encoding that happen to be UTF-8.
        name = guess(data, path)
        log.warning("%s: not UTF-8, read as %s; corpus.options.encoding names another.", path, name)
        return _strict(data, name, path)
    name = guess(b"".join(lines[number] for number in foreign), path) if foreign else "utf-8"
    read = [line.decode("utf-8", "replace") for line in lines]
    for number in foreign:
        read[number] = lines[number].decode(name)
    if foreign:
        log.warning("%s: line %d and %d more are not UTF-8, read as %s.", path, foreign[0] + 1, len(foreign) - 1, name)
    if damaged:
        log.warning("%s: line %d and %d more hold bytes that are no UTF-8.", path, damaged[0] + 1, len(damaged) - 1)
    return "".join(read).removeprefix("\ufeff")


def guess(data: bytes, path: Path) -> str:
    """The encoding of text that is not Unicode.

    Raises:
        CorpusError: it may be one of several, or none that is known.
    """
    import charset_normalizer

    # Lines of ASCII alone tell nothing.
    told = b"".join(line for line in data.splitlines(keepends=True) if not line.isascii())
    found = [
        match
        for match in charset_normalizer.from_bytes(told, cp_isolation=list(CANDIDATES), preemptive_behaviour=False)
        if _decodes(data, match.encoding)
    ]
    latin = _latin(told)
    if latin is None:
        rivals = [*(match.encoding for match in found), "others"]
    elif latin:
        if _western(told, {match.encoding: match.coherence for match in found}):
            return "cp1252"
        # Its kin differ by a few letters, which no figure of the library tells apart.
        rivals = [match.encoding for match in found if match.encoding in _WESTERN]
    else:
        # One byte, one letter: every text has a meaning there, but few make words.
        found = [match for match in found if match.encoding in _PAIRED or match.coherence > _COHERENCE] or found
        found = [match for match in found if match.encoding not in _WESTERN] or found
        rivals = [
            match.encoding
            for match in found
            if match.chaos <= found[0].chaos + _CHAOS and match.coherence >= found[0].coherence - _COHERENCE
        ]
    if len(rivals) == 1 and rivals != ["cp1252"]:
        return rivals[0]
    may = f"it may be {' or '.join(rivals)}" if rivals else "it is none that is told by its bytes"
    raise CorpusError(f"{path} is not UTF-8; {may}. Say which in corpus.options.encoding, or save it as UTF-8.")


def _decodes(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _latin(data: bytes) -> bool | None:
    """Whether bytes beyond ASCII stand singly among ASCII's letters, as accents and typographic quotes do.

    None where all stand alone: one byte may be a word of any script.
    """
    among = apart = 0
    if _DASHES.fullmatch(b"".join(_HIGH.findall(data))):
        return True
    for run in _HIGH.finditer(data):
        beside = data[run.start() - 1 : run.start()].isalpha() or data[run.end() : run.end() + 1].isalpha()
        among += beside and len(run[0]) <= 2
        apart += len(run[0]) > 2 or (len(run[0]) == 2 and not beside)
    return 2 * among > 3 * apart if among or apart else None


def _western(data: bytes, coherence: dict[str, float]) -> bool:
    """Whether it is Windows-1252: neither its signs nor the library's languages speak against it."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    best = max(coherence.get(name, 0.0) for name in _WESTERN)
    return not _ODD.search(text) and best <= coherence.get("cp1252", best) + _COHERENCE
