"""The complete addresses of a published run's media, which only the input shard holds."""

from __future__ import annotations

from typing import IO

import pyarrow as pa

from omnitrace_core.addresses import plain_address, scrub
from omnitrace_core.errors import DamagedFile, StoreCredentials, StoreUnavailable
from omnitrace_core.runtime.node_faults import raise_if_node_fault
from omnitrace_core.samples.rows import SampleRow
from omnitrace_core.storage.files import FileChanged, open_version
from stages.arrow.input_columns import cast_to_sample_structs
from stages.arrow.parquet_reader import ParquetReader
from stages.arrow.python_values import python_values

_REMEDY = (
    "the run's tables hold addresses without query and user part; put the shard back, or run again"
)


class FullAddresses:
    """Finds addresses in the shard that was traced; reads one row group at a time.

    uri, identity: of the shard, as the manifest has them.
    """

    def __init__(self, uri: str, identity: str) -> None:
        self._uri = uri
        self._identity = identity
        self._gone: str | None = None
        # Addresses by row and part, of rows [start, end).
        self._start = self._end = 0
        self._rows: list[list[str]] = []

    def find(self, row_key: str, part_index: int, published: str) -> tuple[str, str | None]:
        """The complete address of a part, and if there is none, why.

        Then the published address is returned: it is complete if nothing was cut from it, and the
        media's hash tells whether it is the media that was traced.

        Raises:
            StoreUnavailable, StoreCredentials: the shard's store does not let us read it.
            NodeFault: this machine cannot read it.
        """
        row = int(row_key.rpartition(":")[2])
        if self._gone is None and not self._start <= row < self._end:
            self._load(row)
        if self._gone is not None:
            return published, self._gone
        addresses = self._rows[row - self._start]
        full = addresses[part_index] if part_index < len(addresses) else ""
        plain = plain_address(full)
        # Older runs published complete addresses, or cut other parts of them.
        if published not in (full, plain) and plain_address(published) != plain:
            return published, f"{self._uri} names other media at row {row}; {_REMEDY}"
        return full, None

    def _load(self, row: int) -> None:
        """Read the row group of a row, or note that the shard is not the one that was traced."""
        try:
            with open_version(self._uri, self._identity) as file:
                self._read_group(file, row)
        except (StoreUnavailable, StoreCredentials):
            raise
        except FileNotFoundError:
            self._gone = f"{self._uri}, which was traced, is gone; {_REMEDY}"
        except FileChanged:
            self._gone = f"{self._uri} has changed since it was traced; {_REMEDY}"
        # ImportError, ValueError: fsspec has no client for the address on this machine.
        except (OSError, DamagedFile, ImportError, ValueError) as error:
            raise_if_node_fault(error)
            self._gone = f"{self._uri} cannot be read ({scrub(str(error))}); {_REMEDY}"

    def _read_group(self, file: IO[bytes], row: int) -> None:
        with ParquetReader(file) as shard:
            group = next((group for group in shard.groups if row < group.end), None)
            if group is None:
                raise DamagedFile(f"it has no row {row}")
            rows: list[list[str]] = []
            for batch in shard.batches(group, ["messages"]):
                samples, _ = cast_to_sample_structs(pa.Table.from_batches([batch]))
                rows += [_addresses(found) for found in python_values(samples)]
        self._rows = rows
        self._start, self._end = group.first_row, group.end


def _addresses(row: SampleRow) -> list[str]:
    """The address of each part of a row, which may hold anything: only some rows were traced."""
    messages = [message for message in row["messages"] or () if message]
    parts = [part for message in messages for part in message["content"] or ()]
    return [(part and part["uri"]) or "" for part in parts]
