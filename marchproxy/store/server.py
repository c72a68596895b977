"""Stores on a PostgreSQL or MySQL server, through pydal's adapters."""

from importlib.util import find_spec

from marchproxy.store.database import Database
from marchproxy.store.engines import POSTGRES
from marchproxy.store.errors import StoreError, explain, last_line
from marchproxy.store.location import Location


def open_server(location: Location, *, read_only: bool) -> Database:
    """Connect to a server. Raises `StoreError` where the driver is not installed or no server answers."""
    drivers = location.engine.drivers
    if not any(find_spec(driver) for driver in drivers):
        raise StoreError(
            f"store {location.label!r} needs the Python package {' or '.join(drivers)}",
            hint=f"install it beside marchproxy: pip install {drivers[-1]}",
        )
    from marchproxy.store.tables import bind

    try:
        dal = bind(location)
        adapter = dal._adapter
    except RuntimeError as error:
        # pydal hides what the driver said in the text of a traceback; its last line is the driver's.
        raise StoreError(f"store {location.label!r} cannot be reached", hint=last_line(error)) from None
    try:
        connection = adapter.connection
        if location.engine is POSTGRES:
            connection.commit()
            connection.autocommit = True
    except adapter.driver.Error as error:
        raise explain(error, location.label) from error
    adapter._clean_tlocals()
    return Database(location, connection, read_only=read_only, errors=adapter.driver.Error, dal=dal)
