"""Hand-over: verdicts to driving logic in another process, another language, another machine; docs/handover.md.

Sender --message, protection--> a transport --> Receiver.feed, Receiver.verdict
"""

from framegate.runtime.handover.base import open_incoming, open_outgoing
from framegate.runtime.handover.clock import this_clock
from framegate.runtime.handover.message import VerdictMessage
from framegate.runtime.handover.objects import ObjectsReading, ObjectsReceiver, SeenObject
from framegate.runtime.handover.protection import read_data_id, read_key, stream_id
from framegate.runtime.handover.reading import Fault, Reading, State, WhyNot
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig
from framegate.runtime.handover.sender import Identity, Sender

__all__ = [
    "Fault",
    "Identity",
    "ObjectsReading",
    "ObjectsReceiver",
    "Reading",
    "Receiver",
    "ReceiverConfig",
    "SeenObject",
    "Sender",
    "State",
    "VerdictMessage",
    "WhyNot",
    "open_incoming",
    "open_outgoing",
    "read_data_id",
    "read_key",
    "stream_id",
    "this_clock",
]
