"""What the tables of the router's database hold, and the statements that change them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from dataclasses import replace
from typing import Any

from modelhub_tui import net
from modelhub_tui.identifiers import BadIdentifier, is_model_name, model_name
from modelhub_tui.service.router.records import (
    BadRecord,
    NodeRecord,
    Registration,
    Removal,
    is_identity,
    is_moment,
)
from modelhub_tui.values import dataclass

SCHEMA_VERSION = 3
MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Longer rows are not read: a registration with the most files takes 10 MB."""
_SCHEMAS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE models (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
    CREATE TABLE nodes (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
    """,
    "CREATE TABLE trash (name TEXT PRIMARY KEY, deleted_at REAL NOT NULL, body TEXT NOT NULL) STRICT;",
    """
    CREATE TABLE removals (seq INTEGER PRIMARY KEY AUTOINCREMENT, registration TEXT NOT NULL UNIQUE,
        removal TEXT NOT NULL, name TEXT NOT NULL, keep INTEGER NOT NULL) STRICT;
    """,
)
"""What each version of the schema added."""

Write = tuple[str, tuple[Any, ...]]
"""One statement and its values."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be used. It is kept until somebody removes it, and never taken for one that is not there."""

    table: str
    name: str
    """What it goes by: the name it is stored under, or where that is no name, one made of its checksum."""
    key: bytes
    """Its primary key, as it is."""
    reason: str
    """Why, in a few words that are safe to show."""
    at: float = 0.0
    """When a deleted model was deleted, as far as that can be read."""

    @property
    def named(self) -> bool:
        """Whether `name` is what it is stored under, so that nodes may know the model by it."""
        return self.key == self.name.encode()


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything remembered."""

    models: list[Registration]
    """In registration order."""
    nodes: list[NodeRecord]
    trash: list[tuple[Registration, float]]
    """Deleted models and when they were deleted, seconds since the epoch."""
    unreadable: list[Unreadable]
    removals: list[Removal]
    """The oldest first."""


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Bring a database of this version of the schema (0: an empty one) up to date, in one transaction.

    Raises:
        sqlite3.Error: It cannot be read or written.
    """
    db.execute("BEGIN IMMEDIATE")
    for schema in _SCHEMAS[version:]:
        for statement in filter(str.strip, schema.split(";")):
            db.execute(statement)
    if version == 0:
        db.execute("INSERT INTO meta VALUES ('store_id', ?)", (str(uuid.uuid4()),))
    if version < 3:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('count', '0')")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def identify(db: sqlite3.Connection) -> None:
    """Give an identity to every registration without one: of an earlier version, or edited by hand.

    Raises:
        sqlite3.Error: It cannot be read or written.
    """
    rows = read_rows(db)
    bare = [each for each in rows.models if not each.id], [each for each in rows.trash if not each[0].id]
    if not any(bare):
        return
    db.execute("BEGIN IMMEDIATE")
    for model in bare[0]:
        model = replace(model, id=str(uuid.uuid4()))
        db.execute(*put_model(model))
        if model.deleting:  # to those versions a deletion was not being listed
            for write in put_removal(Removal(str(uuid.uuid4()), model.id, model.name, keep=True)):
                db.execute(*write)
    for kept, at in bare[1]:
        db.execute(*put_trash(replace(kept, id=str(uuid.uuid4())), at))
    db.execute("COMMIT")


def read_rows(db: sqlite3.Connection) -> Rows:
    """Read all records, each by itself: one that cannot be used harms no other.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    rows = Rows([], [], [], [], [])
    # As blobs: SQLite checks no encoding, and the module refuses a whole query for one text that is no UTF-8.
    for table, key, order in (("models", "name", "seq"), ("nodes", "id", "rowid"), ("trash", "name", "rowid")):
        at = "deleted_at" if table == "trash" else "0.0"
        what = f"CAST({key} AS BLOB), {at}, length(CAST(body AS BLOB)), {order}"
        for raw_key, moment, length, row in db.execute(f"SELECT {what} FROM {table} ORDER BY {order}").fetchall():  # noqa: S608
            try:
                if length > MAX_RECORD_BYTES:
                    raise BadRecord(f"it is {length} bytes long")
                (body,) = db.execute(f"SELECT CAST(body AS BLOB) FROM {table} WHERE {order} = ?", (row,)).fetchone()  # noqa: S608
                record = (NodeRecord if table == "nodes" else Registration).from_json(net.loads(body, MAX_RECORD_BYTES))
                if raw_key != (record.id if isinstance(record, NodeRecord) else record.name).encode():
                    raise BadRecord("it is stored under another name")
                if table == "trash" and not is_moment(moment):
                    raise BadRecord("it was deleted at no time")
            except ValueError as error:  # BadRecord is one, as is what is no JSON
                reason = str(error) if isinstance(error, BadRecord) else "it is no JSON"
                rows.unreadable.append(
                    Unreadable(table, _safe_name(raw_key), raw_key, reason, moment if is_moment(moment) else 0.0)
                )
                continue
            if isinstance(record, NodeRecord):
                rows.nodes.append(record)
            elif table == "models":
                rows.models.append(record)
            else:
                rows.trash.append((record, moment))
    rows.trash.sort(key=lambda each: each[1])
    columns = "CAST(removal AS BLOB), CAST(registration AS BLOB), CAST(name AS BLOB), keep"
    for *raw, keep in db.execute(f"SELECT {columns} FROM removals ORDER BY seq").fetchall():  # noqa: S608
        order, registration, name = (each.decode("utf-8", "replace") for each in raw)
        # What is no order is not carried out; it stays, and does no harm.
        if is_identity(order) and is_identity(registration) and is_model_name(name):
            rows.removals.append(Removal(order, registration, name, keep=keep != 0))
    return rows


def _safe_name(key: bytes) -> str:
    """The name a row is stored under, or one that stands for it and can be typed."""
    try:
        return model_name(key.decode())
    except (BadIdentifier, UnicodeDecodeError):
        return f"unreadable-{hashlib.sha256(key).hexdigest()[:12]}"


# -- statements -------------------------------------------------------------------------------------------------------


def put_model(record: Registration) -> Write:
    """Write one registered model. Its place in the order stays."""
    return (
        "INSERT INTO models (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
        (record.name, json.dumps(record.to_json())),
    )


def drop_model(name: str) -> Write:
    """Forget one registered model."""
    return "DELETE FROM models WHERE name = ?", (name,)


def put_trash(record: Registration, deleted_at: float) -> Write:
    """Remember a deleted model."""
    return (
        "INSERT INTO trash VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET body = excluded.body, deleted_at = excluded.deleted_at",
        (record.name, deleted_at, json.dumps(record.to_json())),
    )


def drop_trash(name: str) -> Write:
    """Forget a deleted model."""
    return "DELETE FROM trash WHERE name = ?", (name,)


def put_removal(removal: Removal) -> tuple[Write, Write]:
    """Order nodes to remove a registration's files. It replaces an earlier order about it, and is the newest."""
    values = (removal.registration, removal.order, removal.name, int(removal.keep))
    insert = "INSERT INTO removals (registration, removal, name, keep) VALUES (?, ?, ?, ?)"
    return drop_removal(removal.registration), (insert, values)


def drop_removal(registration: str) -> Write:
    """Forget an order that every node has carried out."""
    return "DELETE FROM removals WHERE registration = ?", (registration,)


def put_meta(key: str, value: str) -> Write:
    """Store one setting."""
    return "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)


def drop_meta(key: str) -> Write:
    """Forget one setting."""
    return "DELETE FROM meta WHERE key = ?", (key,)


def put_node(record: NodeRecord) -> Write:
    """Write one node."""
    return (
        "INSERT INTO nodes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (record.id, json.dumps(record.to_json())),
    )


def drop_node(node_id: str) -> Write:
    """Forget one node."""
    return "DELETE FROM nodes WHERE id = ?", (node_id,)


def drop_unreadable(row: Unreadable) -> Write:
    """Remove a row that cannot be used."""
    key = "id" if row.table == "nodes" else "name"
    return f"DELETE FROM {row.table} WHERE CAST({key} AS BLOB) = ?", (row.key,)  # noqa: S608
