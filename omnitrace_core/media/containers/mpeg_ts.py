"""The programmes of MPEG-TS files (ISO/IEC 13818-1, 2.4.4); PyAV does not tell them.

A broadcast may carry several programmes, such as a radio station beside a television channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.media.containers.declared import read_at

_PACKET = 188
# Tables are repeated several times per second; this many packets are 4 MB.
_MOST_PACKETS = 20_000
_READ_PACKETS = 500
_MOST_SECTION = 1 << 12
_PAT, _PMT = 0, 2


@dataclass(frozen=True, slots=True)
class Programme:
    """Its number, and the numbers (PIDs) of its tracks."""

    number: int
    tracks: tuple[int, ...]


def programmes(file: BinaryIO) -> list[Programme]:
    """All programmes, in the order of the file's list; none if the tables cannot be read."""
    numbers: dict[int, int] = {}  # by the PID of their table
    tracks: dict[int, tuple[int, ...]] = {}
    sections: dict[int, bytes] = {}
    for at in range(0, _MOST_PACKETS * _PACKET, _READ_PACKETS * _PACKET):
        block = read_at(file, at, _READ_PACKETS * _PACKET)
        for start in range(0, len(block), _PACKET):
            pid = _join(block[start : start + _PACKET], {_PAT, *numbers}, sections)
            section = _whole(sections.get(pid, b""))
            if not section:
                continue
            if section[0] == _PAT and pid == _PAT and not numbers:
                numbers = dict(_programmes_in(section))
            elif section[0] == _PMT and pid in numbers:
                tracks.setdefault(pid, tuple(_tracks_in(section)))
        if len(block) < _READ_PACKETS * _PACKET or (numbers and len(tracks) == len(numbers)):
            break
    return [Programme(number, tracks[pid]) for pid, number in numbers.items() if pid in tracks]


def _join(packet: bytes, wanted: set[int], sections: dict[int, bytes]) -> int:
    """Put the payload of a packet behind what its PID has; returns the PID, -1 if not wanted."""
    if len(packet) < _PACKET or packet[0] != 0x47:
        return -1
    pid = (packet[1] & 0x1F) << 8 | packet[2]
    has_fields, has_payload = packet[3] & 0x20, packet[3] & 0x10
    if pid not in wanted or not has_payload:
        return -1
    payload = packet[5 + packet[4] :] if has_fields else packet[4:]
    if packet[1] & 0x40:
        # A pointer to the beginning of the next section.
        sections[pid] = payload[1 + payload[0] :] if payload else b""
    elif pid in sections and len(sections[pid]) < _MOST_SECTION:
        sections[pid] += payload
    return pid


def _whole(section: bytes) -> bytes:
    """A section without its checksum, if all of it is there and it applies now."""
    if len(section) < 8:
        return b""
    end = 3 + ((section[1] & 0x0F) << 8 | section[2])
    return section[: end - 4] if len(section) >= end and section[5] & 1 else b""


def _programmes_in(section: bytes) -> list[tuple[int, int]]:
    """PIDs of the tables of programmes, and their numbers; 0 is no programme."""
    entries = [section[at : at + 4] for at in range(8, len(section) - 3, 4)]
    return [
        ((entry[2] & 0x1F) << 8 | entry[3], entry[0] << 8 | entry[1])
        for entry in entries
        if entry[0] or entry[1]
    ]


def _tracks_in(section: bytes) -> list[int]:
    """PIDs of a programme's tracks."""
    if len(section) < 12:
        return []
    found, at = [], 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section):
        found.append((section[at + 1] & 0x1F) << 8 | section[at + 2])
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return found
