"""pynetdicom's two reactor threads driven by events instead of polling, and proof against a bad message.

pynetdicom 3.0.4 wakes both threads of every association 1000 times a second (40 idle ones cost 0.65 core), and an
exception in the state machine ends the thread that reads, leaving the peer without an answer. These subclasses
change nothing in the protocol; they could replace ``DULServiceProvider.run_reactor`` and ``Association._run_reactor``
upstream as they stand. They use its private attributes, so a test pins the version that they were written for.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA

from firstread.integration.dicom.streaming import StoreCommand, StreamingDIMSE
from firstread.integration.dicom.transport import P_DATA_TF, BadPdu

if TYPE_CHECKING:
    from firstread.integration.dicom.sink import StoreSink
    from firstread.integration.dicom.transport import PduStream, PeerSocket

LOGGER = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often timers are looked at when nothing happens."""

_LINGER_S = 2.0
"""How long a connection that we end is drained, so that the peer reads our last PDU and not a reset."""

_WAITING_MESSAGES = 8
"""A peer may have one operation under way (PS3.7 D.3.3.3); past this many no more is read from it."""


_WAITING_PDUS = 16
"""So many PDUs may wait to be sent; who has more to say waits."""


_FROM_US = frozenset(("Evt7", "Evt8", "Evt9", "Evt11", "Evt12", "Evt14", "Evt15"))
"""Events of our own primitives on a standing association (PS3.8 Table 9-10)."""


class WakingQueue(queue.Queue[Any]):
    """A queue whose ``put`` wakes the thread that reads it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As :class:`queue.Queue`, then wakes."""
        super().put(item, block, timeout)
        self._wake()


class DataPdu:
    """A P-DATA-TF PDU whose fragments stay where they were read (PS3.8 9.3.5), valid until the next read."""

    def __init__(self, pdu: memoryview) -> None:
        """Raises ``ValueError`` when the items do not fill the PDU."""
        self.fragments: list[tuple[int, memoryview]] = []
        offset = 6
        while offset < len(pdu):
            if offset + 6 > len(pdu):
                raise ValueError("presentation data value item cut short")
            length, context_id = struct.unpack_from(">LB", pdu, offset)
            if length < 2 or offset + 4 + length > len(pdu):
                raise ValueError(f"presentation data value item of {length} bytes does not fit its PDU")
            self.fragments.append((context_id, pdu[offset + 5 : offset + 4 + length]))
            offset += 4 + length

    @property
    def presentation_data_value_list(self) -> list[tuple[int, memoryview]]:
        """What a P-DATA primitive carries."""
        return self.fragments

    def to_primitive(self) -> P_DATA:
        """The primitive that the state machine hands to DIMSE."""
        primitive = P_DATA()
        primitive._presentation_data_value_list = self.fragments
        return primitive


class EventDrivenDUL(DULServiceProvider):  # type: ignore[misc]
    """The upper layer's thread: sleeps until the socket or a queue has something (PS3.8 9.2)."""

    socket: PeerSocket
    _kill_thread: bool

    def __init__(self, assoc: EventDrivenAssociation) -> None:
        super().__init__(assoc)
        self.daemon = True
        self._wakeup_out, self._wakeup_in = socket.socketpair()
        self._wakeup_out.setblocking(False)
        self._wakeup_in.setblocking(False)
        self.event_queue = WakingQueue(self.wake)
        self.to_provider_queue = WakingQueue(self.wake)
        self.to_user_queue = WakingQueue(assoc.wake)
        self._drain_until: float | None = None
        self._looks = 0
        self.ended_by = ""

    @property
    def in_data_transfer(self) -> bool:
        """True while the association is established on the wire (PS3.8 9.2, Sta6)."""
        return bool(self.state_machine.current_state == "Sta6")

    def wake(self) -> None:
        """Ends the sleep of the reactor, from any thread."""
        if threading.get_ident() != self.ident:
            with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
                self._wakeup_out.send(b"\0")

    def send_pdu(self, primitive: Any) -> None:
        """As pynetdicom's, but a large message waits for the peer to take it off us instead of filling memory."""
        if threading.get_ident() != self.ident:
            while self.to_provider_queue.qsize() >= _WAITING_PDUS and self.is_alive() and not self._kill_thread:
                time.sleep(0.0005)
        super().send_pdu(primitive)

    def breathe(self) -> bool:
        """Waits until all is sent and the peer was listened to once more; False when the association has ended."""
        looks = self._looks
        while self.is_alive() and self.in_data_transfer:
            if self._looks != looks and not self.to_provider_queue.qsize():
                return True
            self.wake()
            time.sleep(0.0005)
        return False

    def kill_dul(self) -> None:
        """Stops the reactor."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """Stops the reactor when the state machine is idle; True when it has ended."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if threading.current_thread() is not self and self.is_alive():
            self.join(timeout=_TICK_S)
        return not self.is_alive()

    def run_reactor(self) -> None:
        """One event after the other until killed; an unexpected error aborts this association alone."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                self._step()
        except InvalidEventError:
            # What the peer sent has no place in this state, and pynetdicom's table does not know the pair.
            self._abort_hard(f"a PDU that has no place in state {self.state_machine.current_state}")
        except Exception as error:
            LOGGER.error("association aborted by an unexpected error", exc_info=error)
            self._abort_hard(f"unexpected error: {type(error).__name__}: {error}")
        finally:
            self._kill_thread = True
            with contextlib.suppress(queue.Empty):
                while True:  # a PDU that nobody takes would keep its whole buffer until the collector comes
                    self._recv_pdu.get(block=False)
            self._wakeup_out.close()
            self._wakeup_in.close()
            self.assoc.wake()

    def _step(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        # New input only when the events before it are done: pynetdicom queues a primitive's event a second time
        # when another event stands before it, and then finds the queue empty.
        if self.event_queue.empty() and not self._process_recv_primitive():
            reading = self.assoc.dimse.msg_queue.qsize() < _WAITING_MESSAGES
            if self.socket.wait(self._wakeup_in, self._patience(), reading=reading):
                self._is_transport_event()
            self._looks += 1
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            return
        if event in _FROM_US and self.state_machine.current_state == "Sta13":
            # Ended meanwhile by the peer or by its bad PDU: what we wanted to say has nobody to hear it.
            with contextlib.suppress(queue.Empty):
                self.to_provider_queue.get(block=False)
            return
        self.state_machine.do_action(event)

    def _patience(self) -> float:
        if self.state_machine.current_state == "Sta13":
            if self._drain_until is None:
                self._drain_until = time.monotonic() + _LINGER_S
            if time.monotonic() >= self._drain_until:
                self.socket.close()
                return 0.0
            return self._drain_until - time.monotonic()
        return _TICK_S

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            if self.socket.stream is None or self.socket.stream.discard():
                self.socket.close()
            return True
        self._read_pdu_data()
        return True

    def _read_pdu_data(self) -> None:
        """Reads one PDU and queues its event (Evt3 to Evt19); takes all P-DATA that stand in the buffer."""
        stream = self.socket.stream
        if stream is None:
            self.event_queue.put("Evt17")
            return
        while (pdu := self._next_pdu(stream)) is not None:
            if not self.in_data_transfer:
                self._recv_pdu.put(pdu)
                self.event_queue.put("Evt10")
                return
            # DT-2 as in the table (PS3.8 Table 9-10), without its two queues: a film is a hundred PDUs
            self.assoc.dimse.receive_primitive(pdu)
            if not stream.complete or not self._undisturbed():
                return

    def _next_pdu(self, stream: PduStream) -> DataPdu | None:
        """The next P-DATA. Of other PDUs the event is queued, of what is none as well: None."""
        try:
            read = stream.read()
            if read is None:
                return None
            self._idle_timer.restart()
            pdu_type, content = read
            if pdu_type == P_DATA_TF:
                return DataPdu(content)
        except (BadPdu, ValueError) as error:
            self._note(str(error))
            self.event_queue.put("Evt19")
            return None
        except OSError as error:
            self._note(f"connection lost: {error}")
            self.socket.close()
            return None
        try:
            pdu, event = self._decode_pdu(content)
        except Exception as error:  # any hostile byte may stand there; what it breaks in the decoder is not ours
            self._note(f"unreadable PDU of type 0x{pdu_type:02X}: {type(error).__name__}: {error}")
            self.event_queue.put("Evt19")
            return None
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)
        return None

    def _undisturbed(self) -> bool:
        """True while nothing else waits to be done than to read on."""
        waiting = self.event_queue.qsize() or self.to_provider_queue.qsize() or self._kill_thread
        return not waiting and self.assoc.dimse.msg_queue.qsize() < _WAITING_MESSAGES

    def _send(self, pdu: Any) -> None:
        super()._send(pdu)
        # what we say is activity too: else a slow store is followed by an idle timeout
        self._idle_timer.restart()

    def _note(self, why: str) -> None:
        self.ended_by = self.ended_by or why

    def _abort_hard(self, why: str) -> None:
        """Past the state machine: tells the peer (A-ABORT, PS3.8 9.3.8), closes, and tells the association."""
        self._note(why)
        abort = A_ABORT_RQ()
        abort.source = 0x02
        abort.reason_diagnostic = 0x00
        with contextlib.suppress(Exception):
            self.socket.send(abort.encode())
        with contextlib.suppress(Exception):
            self.socket.close()
        self.state_machine.current_state = "Sta1"
        indication = A_P_ABORT()
        indication.provider_reason = 0x00
        self.to_user_queue.put(indication)
        self.assoc.dimse.msg_queue.put((None, None))


class EventDrivenAssociation(Association):  # type: ignore[misc]
    """An association whose thread sleeps until there is a message, a release, an abort or a timeout."""

    dul: EventDrivenDUL
    dimse: StreamingDIMSE

    def __init__(self, ae: Any, mode: str) -> None:
        self._something = threading.Event()
        super().__init__(ae, mode)
        self.dul = EventDrivenDUL(self)
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout
        self.dimse = StreamingDIMSE(self, self.open_sink)
        self.dimse.msg_queue = WakingQueue(self.wake)
        self.daemon = True

    def open_sink(self, command: StoreCommand) -> StoreSink | None:
        """Where the data set of a C-STORE goes; None leaves it to pynetdicom."""
        return None

    def wake(self) -> None:
        """Ends the sleep of this association's thread, from any thread."""
        self._something.set()

    def kill(self) -> None:
        """Ends both threads; a connection that does not end by itself is cut."""
        self._reactor_checkpoint.set()
        self._kill = True
        self.is_established = False
        self._is_paused = True
        self.wake()
        patience = time.monotonic() + _LINGER_S + 3.0
        while self.dul.is_alive() and not self.dul.stop_dul():
            self.dul.wake()
            self.dul.join(timeout=0.05)
            if time.monotonic() > patience:
                self.dul.socket._shutdown_socket()
                self.dul.kill_dul()
                self.dul.join(timeout=1.0)
                return

    def _bind_defaults(self) -> None:
        """Intervention handlers alone: the logging ones format every PDU before they throw it away."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def between_messages(self) -> bool:
        """Called when nothing waits to be served; True ends the association's thread."""
        return False

    def _run_reactor(self) -> None:
        self._is_paused = False
        while not self._kill:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if not self._reactor_checkpoint.is_set():
                continue  # somebody asks, and took us for paused: the answer is not ours to take
            self._something.clear()
            context_id, message = self.dimse.get_msg(block=False)
            if message:
                self._serve_request(message, context_id)
                self.dul.wake()  # it may have stopped reading
                continue
            if self._ended() or self.between_messages():
                return
            if not self.dul.is_alive():
                self.kill()
                return
            if self.dul.idle_timer_expired():
                self.dul._note(f"idle for {self.network_timeout:g} s")
                self.abort()
                self.kill()
                return
            self._is_paused = True
            self._something.wait(_TICK_S)

    def _ended(self) -> bool:
        """Serves a release or an abort of the peer (PS3.8 7.2, 7.3); True when there was one."""
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
            self.kill()
            return True
        if self.acse.is_aborted():
            if not self.dul.ended_by:
                self.dul._note("A-ABORT by the peer" if self.acse.is_aborted("a-abort") else "connection lost")
            self.dul.receive_pdu(wait=False)
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
            self.kill()
            return True
        return False
