"""Entities as rows: every field, also those at their default, so that JSON keys are the same for all."""

from dataclasses import fields

from marchproxy.model.documents import Document, Entity, write_field


def row(entity: Entity, cluster: str | None = None) -> Document:
    """The whole entity; `cluster` follows its name where it belongs to one."""
    values = {field.name: write_field(field.name, getattr(entity, field.name)) for field in fields(entity)}
    owner = {} if cluster is None else {"cluster": cluster}
    return {"name": values.pop("name"), **owner, **values}
