"""
Where events are kept: one append-only table, in SQLite by default, in any SQLAlchemy URL otherwise.

A writer may be killed at any moment: an append is one transaction, so it is there whole or not at all.
Readers never block the writer nor wait for it (WAL), and follow it by the growing id. Rows cannot be
changed or removed: triggers refuse it. What the events mean is not known here.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from colossi.errors import RunError, WorkFailed
from colossi.ledger.events import KINDS, Event

APPLICATION = 0x636F6C6F  # "colo", in SQLite's header field for the kind of file (PRAGMA application_id)
VERSION = 1  # of the table below
PATIENCE = 120.0  # [s] for others' transactions. An append takes well under 1 ms, and many fsyncs of a
# busy disk where several machines share the ledger, which then has an older journal than WAL.
ROUND = 0.1  # [s] of SQLite's own waiting: it looks again after 1 ms at first, and ever more seldom. Where
# others append without a pause, who looks every 0.1 s waits for 10 s; so it begins anew.
PAGE = 1000  # events read per query: a long read must not pin the WAL

# NORMAL, not FULL: in WAL mode it costs no fsync per commit, the file cannot be corrupted, and a killed
# process loses nothing, as the kernel has the pages. A power cut may lose the last few events, never
# leave half of one; a checkpoint proves itself by its own marker, not by the ledger.
PRAGMAS = (f"PRAGMA busy_timeout = {ROUND * 1000:.0f}", "PRAGMA synchronous = NORMAL")

METADATA = sa.MetaData()
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("incarnation", sa.Integer, nullable=False),
    sa.Column("step", sa.BigInteger),
    # JSON as Python writes it: floats by repr, so to the last bit, and a loss may be NaN.
    sa.Column("data", sa.Text, nullable=False),
)
INSERT = sa.insert(EVENTS)

# The third one: INSERT OR REPLACE removes a row without asking the triggers on DELETE.
REFUSALS = {
    "events_never_change": "BEFORE UPDATE ON events",
    "events_never_go": "BEFORE DELETE ON events",
    "events_never_replaced": "BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id)",
}


Done = TypeVar("Done")


class Ledger:
    """Append events, read them in order. Open one in each process; threads may share it."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self._engine = engine
        self.where = where

    @classmethod
    def create_or_open(cls, where: str | Path) -> "Ledger":
        """The ledger at a path (SQLite) or an SQLAlchemy URL, made if it is not there."""
        engine = _engine(where)
        ledger = cls(
            engine, engine.url.render_as_string(hide_password=True) if _is_url(where) else str(where)
        )
        with ledger._refused_as_not_a_ledger():
            ledger._in_turn(lambda connection: _prepare(connection, ledger.where))
        return ledger

    @classmethod
    def open(cls, where: str | Path) -> "Ledger":
        """The same, but a ledger that is not there is an error and nothing is made."""
        if not _is_url(where) and not Path(where).is_file():
            raise RunError(f"{where}: there is no ledger", "give the folder of a run, e.g. runs/laptop")
        return cls.create_or_open(where)

    def append(self, *events: Event) -> None:
        """All of them or, if we are killed meanwhile, none; on return they are visible to every reader."""
        unknown = {event.kind for event in events} - KINDS.keys()
        if unknown:
            raise ValueError(f"no such kind of event: {sorted(unknown)}; the kinds are {list(KINDS)}")
        if not events:
            return
        rows = [_row(event) for event in events]

        def write(connection: sa.Connection) -> None:
            # IMMEDIATE: a transaction that reads first and then wants to write may be refused at once.
            with connection.execution_options(begin="BEGIN IMMEDIATE").begin():
                connection.execute(INSERT, rows)

        try:
            self._in_turn(write)
        except SQLAlchemyError as error:
            raise WorkFailed(
                f"{self.where}: cannot write to the ledger: {_cause(error)}",
                "is the disk full, or the file read-only?",
            ) from error

    def events(self, kind: str | None = None, after: int = 0) -> Iterator[tuple[int, Event]]:
        """(id, event) in the order of appending, those with an id above `after`; call again to follow."""
        while page := self._page(kind, after):
            yield from page
            after = page[-1][0]

    def newest(self) -> int:
        """The highest id so far; 0 for a new ledger."""
        return self._highest(EVENTS.c.id)

    def next_incarnation(self) -> int:
        """One more than the highest so far; 1 for a new ledger."""
        return self._highest(EVENTS.c.incarnation) + 1

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _page(self, kind: str | None, after: int) -> list[tuple[int, Event]]:
        query = sa.select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(PAGE)
        if kind is not None:
            query = query.where(EVENTS.c.kind == kind)
        with self._damage_is_ours():
            rows = self._in_turn(lambda connection: connection.execute(query).all())
            return [(row.id, _event(row)) for row in rows]

    def _highest(self, column: sa.Column[int]) -> int:
        """0 for a new ledger."""
        query = sa.select(sa.func.max(column))
        with self._damage_is_ours():
            return self._in_turn(lambda connection: connection.scalar(query)) or 0

    def _in_turn(self, work: Callable[[sa.Connection], Done]) -> Done:
        """When others' transactions let us; it may be done again, as a transaction is whole or not at all."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._engine.connect() as connection:
                    return work(connection)
            except sa.exc.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise

    @contextmanager
    def _damage_is_ours(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, json.JSONDecodeError) as error:
            raise RunError(f"{self.where}: cannot read the ledger: {_cause(error)}") from error

    @contextmanager
    def _refused_as_not_a_ledger(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            self.close()
            raise RunError(f"{self.where}: not a ledger of colossi: {_cause(error)}") from error
        except RunError:
            self.close()
            raise


def _row(event: Event) -> dict[str, object]:
    return {
        "time": event.time,
        "kind": event.kind,
        "incarnation": event.incarnation,
        "step": event.step,
        "data": json.dumps(event.data, separators=(",", ":")),
    }


def _event(row: sa.Row[tuple[object, ...]]) -> Event:
    return Event(
        time=row.time, kind=row.kind, incarnation=row.incarnation, step=row.step, data=json.loads(row.data)
    )


def _cause(error: Exception) -> str:
    """The database's own words, without SQLAlchemy's around them, in one line."""
    words = str(error.orig) if isinstance(error, sa.exc.DBAPIError) and error.orig else str(error)
    return " ".join(words.split())


def _is_busy(error: sa.exc.OperationalError) -> bool:
    """Whether SQLite refused only because of somebody else's transaction, of whatever kind of BUSY."""
    return (
        isinstance(error.orig, sqlite3.OperationalError)
        and error.orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )


def _is_url(where: str | Path) -> bool:
    return "://" in str(where)


def _engine(where: str | Path) -> sa.Engine:
    if _is_url(where):
        engine = sa.create_engine(str(where))
    else:
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(where)))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Transactions begin where SQLAlchemy says so, not where Python's driver guesses (it skips DDL)."""
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _on_begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _prepare(connection: sa.Connection, where: str) -> None:
    if connection.dialect.name != "sqlite":
        METADATA.create_all(connection)
        connection.commit()
    elif not _is_ledger(connection, where):
        _create(connection, where)


def _is_ledger(connection: sa.Connection, where: str) -> bool:
    """Whether it is one of ours; False for an empty file, and an error for anything else."""
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    connection.rollback()
    if application == APPLICATION and version > VERSION:
        raise RunError(f"{where}: written by a newer colossi (ledger version {version})", "upgrade colossi")
    if application != APPLICATION and tables:
        raise RunError(f"{where}: an SQLite file, but not a ledger of colossi")
    return bool(application == APPLICATION)


def _create(connection: sa.Connection, where: str) -> None:
    """Table, triggers and header in one transaction, so that a kill leaves an empty file or a ledger."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    connection.rollback()
    driver.execute("PRAGMA journal_mode = WAL")  # cannot run inside a transaction; the file remembers it
    # IMMEDIATE: of two processes that create it at once, one waits for the other instead of failing.
    connection = connection.execution_options(begin="BEGIN IMMEDIATE")
    with connection.begin():
        METADATA.create_all(connection)
        for name, when in REFUSALS.items():
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {name} {when} "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION}")
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
