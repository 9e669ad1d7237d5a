"""One application/dicom part on its way to disk: a Part 10 file in pieces, its meta header left out (PS3.18 10.5.1)."""

from __future__ import annotations

from collections.abc import Callable

from firstread.integration.dicom.identity_check import is_uid
from firstread.integration.dicom.part10 import FileMeta, NotPart10, meta_is_complete, read_meta
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import CannotUnderstand, StoreFailure

_LARGEST_META = 1 << 20


class InstancePart:
    """Keeps what is wrong with an instance until its part is over; then ``done`` is told, once.

    The data set's bytes go to ``open_sink(meta)`` as they came; the sender's own meta header is read and left out.
    """

    def __init__(self, open_sink: Callable[[FileMeta], StoreSink], done: Callable[[InstancePart], None]) -> None:
        self.meta: FileMeta | None = None
        self.sink: StoreSink | None = None
        self.failure: StoreFailure | None = None
        self._open_sink = open_sink
        self._done = done
        self._begin = bytearray()

    def write(self, content: bytes | memoryview) -> None:
        """The next piece of the file."""
        if self.sink is not None:
            self.sink.write(content)
        elif self.failure is None:
            self._begin += content
            if meta_is_complete(self._begin) or len(self._begin) > _LARGEST_META:
                self._open()

    def end(self) -> None:
        """The file is over."""
        if self.sink is None and self.failure is None:
            self._open()
        self._done(self)

    def _open(self) -> None:
        begin, self._begin = bytes(self._begin), bytearray()
        try:
            meta = read_meta(begin)
            for uid, name in ((meta.sop_class_uid, "SOP Class"), (meta.sop_instance_uid, "SOP Instance")):
                if not is_uid(uid):
                    raise CannotUnderstand(f"Media Storage {name} UID in the meta header is malformed")
            if not is_uid(meta.transfer_syntax_uid):
                raise CannotUnderstand("Transfer Syntax UID in the meta header is malformed")
            self.meta = meta
            self.sink = self._open_sink(meta)
            self.sink.write(memoryview(begin)[meta.data_set_offset :])
        except NotPart10 as error:
            self.failure = CannotUnderstand(str(error))
        except StoreFailure as failure:
            self.failure = failure
