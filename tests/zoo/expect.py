"""What a reader must find of a table, for a connector and a target, and which dead letters there must be."""
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from model import DELETE, EMPTY_INSERT, FULL_INSERT, INSERT, SNAPSHOT, TO_EMPTY, TO_FULL, UPDATE


@dataclass(frozen=True)
class Letter:
    table: str
    row: int
    reason: str


@dataclass
class Expected:
    rows: pa.Table
    kinds: list  # name and kind of each column
    absent: list  # columns that the connector leaves out
    letters: list  # since the phase before
    losses: list  # sentences
    unlike: dict  # a row's number to its column and value, to explain differences


def expected(zoo, table, context, phase, before):
    """Of phase 0, the initial snapshot, or 1. `before` is what was expected of phase 0: a row whose update is rejected stays as it was."""
    shown = [(column, column.view(context.names())) for column in table.columns]
    views = [(column, view) for column, view in shown if view.kind != "absent"]
    replaced, gone, letters, losses, stays = {}, set(), [], [], set()
    for number, column, value in table.cases():
        if column.view(context.names()).kind == "absent":
            continue
        for base, stage, since in ((SNAPSHOT, "snapshot", 0), (DELETE, "snapshot", 0), (INSERT, "stream", 1), (UPDATE, "stream", 1)):
            outcome = value.outcome(context.names(stage=stage))
            if since > phase or not outcome:
                continue
            row = base + number
            replaced.setdefault(column.name, {})[row] = "NULL" if outcome.what == "dead" else outcome.detail
            losses.append(f"{table.name}.{column.name} {value.sql} {stage}: {outcome.what} {outcome.detail}: {outcome.why}")
            if outcome.what == "dead":
                (stays if base == UPDATE else gone).add(row)
                letters += [Letter(table.name, row, outcome.detail)] if since == phase else []
    for column, _ in views:
        if column.streamed and phase:
            replaced[column.name] = dict.fromkeys(streamed_rows(table), column.streamed)
            losses.append(f"{table.name}.{column.name} stream: reads {column.streamed}: the connector leaves the column out")
    rows = zoo.select(table, views, replaced)
    rows = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(sorted(gone | stays), pa.int64()))))
    if stays:
        rows = pa.concat_tables([rows, before.rows.filter(pc.is_in(before.rows["id"], pa.array(sorted(stays), pa.int64())))])
    losses += [f"{table.name}.{column.name}: {view.loses}" for column, view in shown if view.loses]
    return Expected(rows.sort_by("id").combine_chunks(), [("id", "int"), *((column.name, view.kind) for column, view in views)],
                    [column.name for column, view in shown if view.kind == "absent"], letters, sorted(set(losses)), {})


def streamed_rows(table):
    """The rows that are inserted or updated after the initial snapshot."""
    numbers = [number for number, _, _ in table.cases()]
    return [FULL_INSERT, EMPTY_INSERT, TO_FULL, TO_EMPTY, *(base + number for base in (INSERT, UPDATE) for number in numbers)]
