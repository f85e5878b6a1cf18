"""Which encoding text was probably written in, or read in by mistake. It serves errors only. No I/O.

Everything that the project reads is UTF-8, with or without a byte order mark. Other encodings are refused by name.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

UTF8_BOM = codecs.BOM_UTF8
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x78\x01", "deflate"),
    (b"\x78\x5e", "deflate"),
    (b"\x78\x9c", "deflate"),
    (b"\x78\xda", "deflate"),
    (b"PK\x03\x04", "zip"),
)
# The encodings that programs assume when nobody names one, by platform and region.
_ASSUMED = {
    "cp1252": "Windows-1252",
    "latin-1": "ISO-8859-1 (Latin-1)",
    "mac_roman": "Mac OS Roman",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1254": "Windows-1254",
    "koi8-r": "KOI8-R",
    "cp437": "code page 437",
    "cp850": "code page 850",
    "cp866": "code page 866",
    "gb18030": "GBK",
    "big5": "Big5",
    "cp932": "Shift JIS",
    "euc_kr": "EUC-KR",
}
# Text that went through more than three programs with a wrong encoding is rare.
_TIMES = 3


def packing(data: bytes) -> str | None:
    """Return the compression that `data` begins with, such as "gzip", or None."""
    return next((name for magic, name in _PACKED if data.startswith(magic)), None)


def not_utf8(data: bytes, declared: str = "") -> str | None:
    """Return a sentence without its end that says why `data` is not UTF-8 text, or None if it is.

    `declared` is the encoding that the sender named.
    """
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if marked:
        return f"it is {marked}, by its byte order mark"
    # Text without an ASCII character in the first four bytes cannot be told apart; JSON, CSV and YAML begin with some.
    zeros = [byte == 0 for byte in data[:4]]
    if zeros in ([False, True, True, True], [True, True, True, False]):
        return "it is probably UTF-32 without a byte order mark"
    if zeros[:2] in ([False, True], [True, False]) and data.count(0) >= len(data) // 3:
        return "it is probably UTF-16 without a byte order mark"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = f"byte 0x{data[error.start]:02x} in line {line}, position {error.start}, is not UTF-8"
        if _surrogates(data):
            return f"{at}: it is probably CESU-8, in which Java and some databases write emoji"
        if declared:
            return f"{at}: it is probably {declared}, as its charset says"
        return f"{at}: it is probably Windows-1252, ISO-8859-1 or another encoding with one byte per character"
    return None


def _surrogates(data: bytes) -> bool:
    try:
        return any("\ud800" <= char <= "\udfff" for char in data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return False


def misread(text: str) -> Iterator[tuple[str, str]]:
    """Yield what `text` was, if it is UTF-8 that was read in another encoding, and how it was misread.

    There may be several answers, or none. The second part continues the words "UTF-8 that was read as".
    """
    found: list[tuple[str, tuple[str, ...]]] = [(text, ())]
    for _ in range(_TIMES):
        found = [
            (before, (name, *names))
            for after, names in found
            for encoding, name in _ASSUMED.items()
            if (before := _undone(after, encoding)) is not None
        ]
        for before, names in found:
            repeated = len(names) > 1 and len(set(names)) == 1
            yield before, f"{names[0]}, {len(names)} times" if repeated else " and then as ".join(names)


def cut_emoji(text: str) -> str | None:
    """Return the encoding in which the first bytes of an emoji in UTF-8 read like the start of `text`, or None."""
    for encoding, name in _ASSUMED.items():
        if (_bytes_of(text[:2], encoding) or b"").startswith(b"\xf0\x9f"):
            return name
    return None


def _undone(text: str, encoding: str) -> str | None:
    """Return the text whose UTF-8 bytes read as `text` in `encoding`, or None."""
    data = None if text.isascii() else _bytes_of(text, encoding)
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _bytes_of(text: str, encoding: str) -> bytes | None:
    try:
        return b"".join(_byte_of(char, encoding) for char in text)
    except UnicodeError:
        return None


def _byte_of(char: str, encoding: str) -> bytes:
    """Return the bytes of a character.

    A byte that an encoding does not define is read as the control character of the same number, as browsers do
    (https://encoding.spec.whatwg.org/#single-byte-decoder).
    """
    try:
        return char.encode(encoding)
    except UnicodeEncodeError:
        byte = char.encode("latin-1")
        try:
            byte.decode(encoding)
        except UnicodeDecodeError:
            return byte
        raise
