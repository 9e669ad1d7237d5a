"""What is wrong with a settings file, in sentences that say where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_PLAIN = {
    "int_parsing": "give a whole number",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "string_type": "give a text in quotes",
    "tuple_type": "give a list in square brackets",
    "list_type": "give a list in square brackets",
    "dict_type": "give a table",
    "mapping_type": "give a table",
    "path_type": "give a path in quotes",
    "model_type": "it is a section: put its keys below it",
    "model_attributes_type": "it is a table: put its keys below it",
}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings models that a field's type is made of: none for a plain value, two for the destinations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def sentences_for(error: ValidationError, root: type[BaseModel], tree: Mapping[str, Any]) -> list[str]:
    """A sentence for each problem of ``error``, which came of reading ``tree`` as ``root``."""
    details = error.errors()
    # A list whose only item is refused is also "too short" to pydantic: the item's own sentence says it all.
    inner = {detail["loc"][:-1] for detail in details}
    told = [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in inner)]
    return list(dict.fromkeys(_sentence(detail, root, tree) for detail in told))


def _sentence(detail: ErrorDetails, root: type[BaseModel], tree: Mapping[str, Any]) -> str:
    path = detail["loc"]
    kind = detail["type"]
    table, rest, model = _place(path, root, tree)
    key = ".".join(rest)
    where = f"{table} {key}".strip()
    if kind == "extra_forbidden":
        return _unknown(table, key, model, root)
    if kind == "missing":
        return f"{where} is missing: {_why(model, key)}"
    if kind == "union_tag_not_found":
        return f'{where} has no type: add type = "dicom", "dicomweb" or "hl7"'
    if kind == "union_tag_invalid":
        return f'{where}: type must be "dicom", "dicomweb" or "hl7", not {detail["ctx"].get("tag")!r}'
    if kind == "value_error":
        message = str(detail["ctx"]["error"])
    else:
        message = _PLAIN.get(kind) or detail["msg"].replace("Input should be", "must be").replace("String", "the text")
    given = detail["input"]
    if isinstance(given, list):
        return f"{where} = {given}: {message}"
    if isinstance(given, str | int | float) and not _secret(key):
        return f"{where} = {given!r}: {message}"
    return f"{where}: {message}" if where else message


def _secret(key: str) -> bool:
    return key == "url" or any(word in key for word in ("password", "token", "secret"))


def _why(model: type[BaseModel] | None, key: str) -> str:
    field = model.model_fields.get(key) if model else None
    return (field.description or "it must be given") if field else "it must be given"


def _place(
    path: tuple[int | str, ...], root: type[BaseModel], tree: Mapping[str, Any]
) -> tuple[str, list[str], type[BaseModel] | None]:
    """The table as the file writes it, the keys inside it, and the model of that table."""
    model: type[BaseModel] | None = root
    choices: list[type[BaseModel]] = []
    names: list[str] = []
    rest: list[str] = []
    number = ""
    repeated = False
    here: Any = tree
    for step in path:
        tagged = [choice for choice in choices if _tag(choice) == step]
        if tagged:
            model, choices = tagged[0], []
            continue
        here = _inside(here, step)
        if isinstance(step, int):
            name = here.get("name") or here.get("calling_ae") if isinstance(here, dict) else None
            number = f" number {step + 1}" + (f" ({name})" if name else "")
            repeated = True
            continue
        field = model.model_fields.get(step) if model else None
        inner = models_in(field.annotation) if field else []
        if inner and not rest:
            names.append(step)
            model, choices = inner[0], inner if len(inner) > 1 else []
        elif not rest and model is not None and step not in model.model_fields and names[-1:] == ["findings"]:
            names.append(step)
        else:
            rest.append(str(step))
    dotted = ".".join(names)
    table = f"[[{dotted}]]{number}" if repeated else f"[{dotted}]" if dotted else ""
    return table, rest, model


def _inside(value: Any, step: int | str) -> Any:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _tag(model: type[BaseModel]) -> str:
    field = model.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field else ""


def _siblings(root: type[BaseModel], model: type[BaseModel] | None) -> list[type[BaseModel]]:
    unions = (models_in(field.annotation) for field in root.model_fields.values())
    return [other for union in unions if model in union for other in union if other is not model]


def _unknown(table: str, key: str, model: type[BaseModel] | None, root: type[BaseModel]) -> str:
    known = list(model.model_fields) if model else []
    if not table:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean [{near[0]}]?" if near else f"the sections are {', '.join(known)}"
        return f"[{key}] is not a section: {hint}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"{table} {key} is not a setting: did you mean {table.split(' number')[0]} {near[0]}?"
    siblings = [other for other in _siblings(root, model) if key in other.model_fields]
    if model and siblings:
        return f"{table} {key} is not a setting of type {_tag(model)}, only of {_tag(siblings[0])}: remove it"
    for section, field in root.model_fields.items():
        for other in models_in(field.annotation):
            elsewhere = difflib.get_close_matches(key, other.model_fields, n=1, cutoff=0.8)
            if elsewhere and other is not model:
                return f"{table} {key} is not a setting: did you mean [{section}] {elsewhere[0]}?"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    hint = f"the nearest is {nearest[0]}" if nearest else "remove it"
    return f"{table} {key} is not a setting: {hint}; the keys here are {', '.join(known)}"
