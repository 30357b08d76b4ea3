"""Access to a chunk, the unit of work, as a one-row Arrow table that holds its samples.

Stages use a chunk only through this module: `state_rows` gives a view of each sample, and
`with_results` puts a stage's results into the samples' columns. Columns that a stage does not name
are passed on without a conversion to Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.addresses import plain_address
from omnitrace_core.attribution.curation import UnitKinds
from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import RunError
from omnitrace_core.positions import Positions
from omnitrace_core.records import Fold, Sample, SourceUnit, SpeechChunk, TokenTrace
from omnitrace_core.samples.build import build_sample
from omnitrace_core.samples.rows import SampleRow
from omnitrace_core.units.extents import Extent
from stages.arrow import codec, media_codec
from stages.arrow.chunk_media import ChunkMediaReader
from stages.arrow.columns import combined
from stages.arrow.nested import relist, restruct
from stages.arrow.python_values import python_values
from stages.arrow.state_schema import STATE, chunk_schema
from stages.guards.row_guard import RowError

Fields = Mapping[str, object]
INLINE_URI = "inline"


class _Columns:
    """The columns of a chunk; some are decoded for all of its samples at once."""

    def __init__(self, rows: pa.StructArray) -> None:
        self._rows = rows
        self._cache: dict[str, pa.Array] = {}

    def __getitem__(self, name: str) -> pa.Array:
        if name not in self._cache:
            self._cache[name] = self._rows.field(name)
        return self._cache[name]

    @cached_property
    def sample_rows(self) -> list[SampleRow]:
        """The input rows as plain dicts; inline media are views of Arrow's memory."""
        return python_values(self["sample"])

    @cached_property
    def media(self) -> ChunkMediaReader:
        """The decoded media of each sample, read from Arrow's memory."""
        return ChunkMediaReader(python_values(self["media"]))

    @cached_property
    def units(self) -> list[tuple[SourceUnit, ...]]:
        """Source units of each sample."""
        return codec.decode_units(self["units"])

    @cached_property
    def unit_kinds(self) -> list[UnitKinds]:
        """The kinds and modalities of the units: enough for curation, and cheaper to decode."""
        return codec.decode_unit_kinds(self["units"])


class StateRow:
    """A view of one sample of a chunk; each property decodes its column when it is read."""

    def __init__(self, columns: _Columns, index: int) -> None:
        self._columns = columns
        self.index = index

    def _value(self, name: str) -> pa.Scalar:
        return self._columns[name][self.index]

    @property
    def row_key(self) -> str:
        """Shard and row number of the input row."""
        return str(self._value("row_key").as_py())

    @property
    def failed(self) -> bool:
        """Whether an earlier stage recorded an error for this sample."""
        return bool(self._value("error").is_valid)

    @property
    def sample_id(self) -> str:
        """The id that the input row gives."""
        return str(self._value("sample")["sample_id"].as_py())

    @property
    def sample(self) -> Sample:
        """The input row as a sample; the read stage has checked every row that has no error."""
        return build_sample(self._columns.sample_rows[self.index])

    @property
    def media(self) -> dict[int, DecodedMedia]:
        """Decoded media by part index."""
        return self._columns.media.decode(self.index)

    @property
    def media_info(self) -> list[dict[str, Any]]:
        """MEDIA_INFO of each decoded media."""
        return self._value("media_info").as_py() or []

    @property
    def extents(self) -> dict[int, Extent]:
        """Extents of the decoded media by part index."""
        return media_codec.decode_extents(self.media_info)

    @property
    def units(self) -> tuple[SourceUnit, ...]:
        """Source units in `unit_id` order."""
        return self._columns.units[self.index]

    @property
    def unit_kinds(self) -> UnitKinds:
        """The kinds and modalities of the units."""
        return self._columns.unit_kinds[self.index]

    @property
    def speech(self) -> dict[int, tuple[SpeechChunk, ...]]:
        """Speech chunks by part index."""
        return codec.decode_speech(self._value("speech"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of decoding and unit building."""
        return tuple(self._value("notes").as_py() or ())

    @property
    def trace(self) -> TokenTrace:
        """The token trace."""
        return codec.decode_trace(self._value("trace"), len(self.units))

    @property
    def response(self) -> str:
        """The response, generated or replayed."""
        return str(self._value("trace")["response"].as_py())

    @property
    def char_spans(self) -> list[tuple[int, int]]:
        """[start, end) of each token in the response, in characters."""
        trace = self._value("trace")
        return list(zip(trace["char_starts"].as_py(), trace["char_ends"].as_py(), strict=True))

    def fold(self, signal: str) -> Fold:
        """A signal folded into the units. Raises: TraceError if it was not traced."""
        return codec.decode_fold(self._value("trace"), signal, len(self.unit_kinds))

    @property
    def positions(self) -> Positions | None:
        """The signals over the prompt's positions, if they are kept."""
        return codec.decode_positions(self._value("trace"))


def row_key(shard: str, row: int) -> str:
    """The key of an input row: its shard's name within the input, and its row number."""
    return f"{shard}:{row}"


def sample_structs(table: pa.Table) -> pa.StructArray:
    """The samples of a one-chunk table.

    Raises:
        RunError: the table is not exactly one whole chunk, because chunks were split or merged.
    """
    if len(table) != 1:
        raise RunError(f"a stage received {len(table)} chunks; it takes exactly one")
    rows = combined(table.column("samples")).flatten()
    expected = table.column("n_rows")[0].as_py()
    if len(rows) != expected:
        key = table.column("chunk_key")[0].as_py()
        raise RunError(f"chunk {key} holds {len(rows)} samples; {expected} were planned")
    return rows


def with_rows(table: pa.Table, rows: pa.StructArray) -> pa.Table:
    """The same chunk with these samples, of any struct type."""
    samples = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    names = ("chunk_key", "shard", "first_row", "n_rows", "rows")
    columns = [table.column(name) for name in names]
    return pa.table([*columns, samples], schema=chunk_schema(rows.type))


def state_rows(table: pa.Table) -> list[StateRow]:
    """A view of each sample in the chunk."""
    return views(sample_structs(table))


def views(rows: pa.StructArray) -> list[StateRow]:
    """A view of each of these STATE rows."""
    columns = _Columns(rows)
    return [StateRow(columns, index) for index in range(len(rows))]


def with_results(
    table: pa.Table,
    results: Sequence[Fields | RowError | None],
    *,
    fields: Sequence[str],
    drop: Sequence[str] = (),
    columns: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """Put one result per sample into the chunk; None leaves the sample's error as it is.

    fields: the STATE fields that a result fills; null for samples with an error. drop: fields that
    become null for all samples. columns: whole columns, for samples with an error too.
    """
    rows = sample_structs(table)
    filled = {name: rows.field(name) for name in STATE.names}
    for name in fields:
        values = [result[name] if isinstance(result, Mapping) else None for result in results]
        filled[name] = pa.array(values, type=STATE.field(name).type)
    for name in drop:
        filled[name] = pa.nulls(len(rows), STATE.field(name).type)
    filled.update(columns or {})
    errors = [
        error_fields(result) if isinstance(result, RowError) else earlier
        for result, earlier in zip(results, filled["error"].to_pylist(), strict=True)
    ]
    filled["error"] = pa.array(errors, type=STATE.field("error").type)
    return with_rows(table, pa.StructArray.from_arrays(list(filled.values()), fields=list(STATE)))


def error_fields(error: RowError) -> Fields:
    """An error as an ERROR struct."""
    return {"stage": error.stage, "code": error.code, "message": error.message}


def has_media(samples: pa.StructArray) -> bool:
    """Whether any part of these input rows is of another type than text."""
    messages = samples.field("messages").flatten()
    parts = messages.field("content").flatten()
    return bool(pc.any(pc.not_equal(parts.field("type"), "text")).as_py())


def without_inline_data(samples: pa.StructArray) -> pa.StructArray:
    """Input rows without the bytes of inline media and frames, whose uri becomes `inline`."""
    messages = samples.field("messages")
    message = messages.flatten()
    content = message.field("content")
    part = content.flatten()
    frames = part.field("frames")
    columns = {
        **_fields_without_data(part),
        "frames": relist(frames, _without_data(frames.flatten())),
    }
    stripped = relist(content, restruct(part, columns))
    message = restruct(message, {"role": message.field("role"), "content": stripped})
    fields = {field.name: samples.field(field.name) for field in samples.type}
    return restruct(samples, {**fields, "messages": relist(messages, message)})


def _without_data(media: pa.StructArray) -> pa.StructArray:
    return restruct(media, _fields_without_data(media))


def _fields_without_data(media: pa.StructArray) -> dict[str, pa.Array]:
    """The fields of structs that have `uri` and `data`, without the bytes."""
    columns = {field.name: media.field(field.name) for field in media.type}
    columns["uri"] = pc.if_else(pc.is_valid(columns["data"]), INLINE_URI, columns["uri"])
    columns["data"] = pa.nulls(len(media), columns["data"].type)
    return columns


def with_plain_addresses(values: pa.Array) -> pa.Array:
    """Values of any nested type with each field `uri` cut to its `plain_address`.

    What an address holds besides may be a password or a signature, which nobody should find in a
    published table.
    """
    if pa.types.is_list(values.type):
        return relist(values, with_plain_addresses(values.flatten()))
    if not pa.types.is_struct(values.type):
        return values
    columns = {}
    for field in values.type:
        column = values.field(field.name)
        is_address = field.name == "uri" and pa.types.is_string(field.type)
        columns[field.name] = _plain(column) if is_address else with_plain_addresses(column)
    return restruct(values, columns)


def _plain(addresses: pa.Array) -> pa.Array:
    """Most addresses have nothing to cut; they are not converted to Python."""
    may_be_cut = pc.fill_null(pc.match_substring_regex(addresses, "[?#@]|:.*:"), False)
    if not pc.any(may_be_cut).as_py():
        return addresses
    cut = [plain_address(address) for address in addresses.filter(may_be_cut).to_pylist()]
    return pc.replace_with_mask(addresses, may_be_cut, pa.array(cut, addresses.type))
