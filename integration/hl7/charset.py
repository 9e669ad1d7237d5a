"""Which bytes mean which characters: MSH-18 (HL7 table 0211) and Python's codecs."""

from __future__ import annotations

CODECS: dict[str, str] = {
    "": "ascii",
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)},
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp_ext",
    "ISO IR159": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE UTF-16": "utf-16",
    "UNICODE UTF-32": "utf-32",
}
"""Table 0211 to codec. The standard's default is ASCII; "UNICODE" alone is deprecated and means UTF-8 in practice."""

_SPELLINGS = {
    "UTF-8": "UNICODE UTF-8",
    "UTF8": "UNICODE UTF-8",
    "UNICODE UTF8": "UNICODE UTF-8",
    "ISO IR 87": "ISO IR87",
    "ISO IR 6": "ISO IR6",
    "ISO-8859-1": "8859/1",
    "ISO8859-1": "8859/1",
    "8859-1": "8859/1",
    "ISO_IR 100": "8859/1",
    "WINDOWS-1252": "8859/1",
}


def codec_of(charset: str) -> str | None:
    """Python's codec for one repetition of MSH-18, None for a name that table 0211 does not hold."""
    name = charset.strip().upper()
    return CODECS.get(_SPELLINGS.get(name, name))


def _declared(message: bytes) -> list[str]:
    """The repetitions of MSH-18, the first of them the default; empty ones left out."""
    header = message.split(b"\r", 1)[0].split(b"\n", 1)[0]
    fields = header.split(header[3:4] or b"|")
    if len(fields) < 18:
        return []
    repetition = fields[1][1:2] or b"~"
    names = fields[17].split(repetition)
    return [name.decode("ascii", errors="replace").strip() for name in names if name.strip()]


def decode(message: bytes) -> tuple[str, str, str]:
    """A message as text, the codec used, and a remark (empty where MSH-18 was right).

    What is not as declared is read all the same: UTF-8 if it is that, else Latin-1, because an order or a final report
    that is refused for one letter in a name stops the sender's whole queue; keys (accession, UIDs) are ASCII anyway.
    """
    if message[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return message.decode("utf-16", errors="replace"), "utf-16", ""
    names = _declared(message)
    codecs = [codec for codec in map(codec_of, names) if codec]
    wanted = next((codec for codec in codecs if codec.startswith("iso2022")), codecs[0] if codecs else "ascii")
    unknown = [name for name in names if codec_of(name) is None]
    remark = f"MSH-18 names an unknown character set ({unknown[0]})" if unknown else ""
    for codec in (wanted, "utf-8"):
        try:
            return message.decode(codec), codec, remark
        except UnicodeDecodeError:
            remark = remark or f"the bytes are not {names[0] if names else 'ASCII'} as MSH-18 says"
    return message.decode("latin-1"), "latin-1", remark
