"""TFTP protocol library without I/O: packets, option negotiation and state machines.

The package imports only the standard library, and it never uses sockets, files, threads or
clocks. It can be used with any event loop and it can be tested without a network. The program
that owns the socket passes in packets and the current time, and sends what a state machine
returns. `tftpd.protocol.machine` describes this interface.

Packets and options:
    `decode()` turns a datagram into a packet (`Rrq`, `Wrq`, `Data`, `Ack`, `ErrorPacket`,
    `Oack`), and `encode()` of a packet turns it into a datagram.
    `negotiate()` applies the limits of a server (`OptionLimits`) to the options of a request
    and returns `TransferOptions`.

State machines:
    `RequestMachine` sends a client's `TransferRequest` until the server accepts it.
    `Sender` sends a file, and `Receiver` receives one, on the server and on the client.
    `RetransmitTimer`, with the values of a `RetransmitPolicy`, decides when packets are sent
    again.

Results:
    `Outcome` tells how a transfer ended. `TransferResult` describes a transfer for logs and
    metrics. The state machines do not build it, because it contains the peer's address.

A server decodes a request, negotiates its options and creates a machine:

    request = decode(datagram)
    options = negotiate(request.options, OptionLimits(), Mode.OCTET, Direction.READ, size)
    sender = Sender(options, RetransmitTimer(RetransmitPolicy(), options.timeout), now)
    sender.next_send(now)  # the OACK, or the range of blocks that is sent first
"""

from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.errors import (
    ErrorCode,
    ErrorText,
    MalformedPacket,
    MalformedRequest,
    RequestRefused,
    ResourceExhausted,
)
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, TransferOptions, negotiate
from tftpd.protocol.netascii import NetasciiDecoder, encode_netascii
from tftpd.protocol.options import Option, Options
from tftpd.protocol.packets import (
    Ack,
    Data,
    ErrorPacket,
    Oack,
    Opcode,
    Packet,
    Request,
    Rrq,
    Wrq,
    decode,
)
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import BlockRange, Sender

__all__ = [
    "Ack",
    "BlockNumbering",
    "BlockRange",
    "Data",
    "Direction",
    "ErrorCode",
    "ErrorPacket",
    "ErrorText",
    "MalformedPacket",
    "MalformedRequest",
    "Mode",
    "NetasciiDecoder",
    "Oack",
    "Opcode",
    "Option",
    "OptionLimits",
    "Options",
    "Outcome",
    "Packet",
    "Receiver",
    "Request",
    "RequestMachine",
    "RequestRefused",
    "ResourceExhausted",
    "RetransmitPolicy",
    "RetransmitTimer",
    "Rrq",
    "Sender",
    "TransferMachine",
    "TransferOptions",
    "TransferRequest",
    "TransferResult",
    "Wrq",
    "decode",
    "encode_netascii",
    "negotiate",
]
