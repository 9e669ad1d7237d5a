"""MLLP's frame is found in any chunking, and what is no frame is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstread.integration.hl7.framing import FrameDecoder, FramingError, frame

CONTENT = st.binary(max_size=60).map(lambda raw: raw.replace(b"\x0b", b"").replace(b"\x1c", b""))


@settings(max_examples=200, deadline=None)
@given(st.lists(CONTENT, max_size=5), st.data())
def test_messages_are_found_in_any_chunking(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, messages))
    decoder, found = FrameDecoder(100), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += decoder.feed(stream[:size])
        stream = stream[size:]
    assert found == messages
    assert not decoder.half_a_message


def test_a_message_byte_by_byte_is_one_message() -> None:
    decoder = FrameDecoder(100)
    found = [message for byte in frame(b"MSH|x\rPID|y\r") for message in decoder.feed(bytes([byte]))]
    assert found == [b"MSH|x\rPID|y\r"]


def test_line_ends_between_messages_are_free_and_other_bytes_are_counted() -> None:
    decoder = FrameDecoder(100, max_garbage_bytes=5)
    assert decoder.feed(b"\r\n\r\n" + frame(b"a") + b"\r\nxyz" + frame(b"b")) == [b"a", b"b"]
    assert decoder.garbage_bytes == 3
    with pytest.raises(FramingError, match="0B"):
        decoder.feed(b"GET / HTTP/1.1")


def test_a_message_that_begins_anew_replaces_its_half() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(b"\x0bMSH|half") == []
    assert decoder.feed(b"\x0bMSH|who") == []
    assert decoder.feed(b"le\x1c\r") == [b"MSH|whole"]
    assert decoder.feed(b"\x0bone\x0btwo\x1c\r" + frame(b"three")) == [b"two", b"three"]


def test_an_end_byte_before_other_text_is_content() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(b"\x0ba\x1c") == []
    assert decoder.feed(b"b\x1c\x0d") == [b"a\x1cb"]


@pytest.mark.parametrize("end", [b"\x1c\r", b"\x1c\n", b"\x1c"])
def test_messages_ended_as_some_devices_end_them_are_told_apart(end: bytes) -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(b"\x0bone" + end + b"\x0btwo" + end + b"\x0bthree") == [b"one", b"two"]


def test_only_the_last_byte_may_be_missing() -> None:
    decoder = FrameDecoder(100)
    decoder.feed(b"\x0bhalf")
    assert (decoder.lacks_last_byte, decoder.end_without_cr()) == (False, [])
    decoder.feed(b" and half\x1c")
    assert (decoder.lacks_last_byte, decoder.end_without_cr()) == (True, [b"half and half"])
    assert not decoder.half_a_message


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_message_past_the_bound_is_refused_with_its_beginning(chunk: int) -> None:
    decoder = FrameDecoder(50)
    stream = b"\x0bMSH|" + b"x" * 100 + b"\x1c\r"
    chunks = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
    with pytest.raises(FramingError, match="longer than 50 bytes") as raised:
        list(map(decoder.feed, chunks))
    assert raised.value.start.startswith(b"MSH|x")


def test_a_message_of_exactly_the_bound_is_taken() -> None:
    assert FrameDecoder(50).feed(frame(b"y" * 50)) == [b"y" * 50]
