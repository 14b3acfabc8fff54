"""Types of requests and answers, derived from the schema of a model: its own columns, labels and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema, create_model

from polyfuse.core.errors import DataError, Problem, nearest
from polyfuse.data.cells import category
from polyfuse.data.schema import Schema, Target
from polyfuse.serving.cells import Cell, cell_of
from polyfuse.serving.settings import Settings
from polyfuse.serving.telling import Explained, Said, Told

_SHOWN = 100  # characters of a name that nobody knows
_MOST_FAULTS = 20


class Malformed(Exception):
    """A body is not what its content type says."""


class Strict(BaseModel):
    """A body that has these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    message: str = Field(description="What is wrong, and what to do.")
    column: str | None = Field(None, description="The column it stands in, if it is in one.")
    row: int | None = Field(None, description="The row it stands in, from 0.")


class ProblemBody(BaseModel):
    """An error, as RFC 9457 says it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] = []


class Bodies:
    """What comes in and what goes out of a server of one model.

    Args:
        schema: of the model.
        settings: limits.
        screens: whether the model has a screen.

    Attributes:
        cells: the columns, by name.
        row: one row; every column may be left out.
        rows: several of them.
        answer: to one row.
        answers: to several.
        explained: an answer, with what each modality gives to it.
        feedback: what turned out to be true.
    """

    def __init__(self, schema: Schema, settings: Settings, *, screens: bool) -> None:
        self.schema, self._screens = schema, screens
        self.cells = {column.name: cell_of(column, settings) for column in schema.columns}
        example = {name: cell.example for name, cell in self.cells.items()}
        self.row = _made("Row", {name: _given(cell) for name, cell in self.cells.items()}, example)
        rows = Annotated[list[self.row], Field(min_length=1, max_length=settings.max_rows)]  # type: ignore[name-defined]
        self.rows = _made("Rows", {"rows": (rows, ...)}, {"rows": [example]})
        known = {"request_id": (str, ...)}
        told = self._told_fields()
        self.answer = _made("Answer", known | told)
        each = _made("RowAnswer", told)
        self.answers = _made("Answers", known | {"answers": (list[each], ...)})  # type: ignore[valid-type]
        self.explained = _made("Explained", known | told | {"shares": (list[_SHARE], ...)})
        truth = _made("Truth", {part.name: (_or_none(_answer_type(part)), None) for part in schema.target.each()})
        self.feedback = _made(
            "Feedback",
            {
                "request_id": (Annotated[str, Field(max_length=200)], ...),
                "row": (Annotated[int, Field(ge=0, le=settings.max_rows, strict=True)], 0),
                "truth": (truth, ...),
            },
        )

    def example(self) -> dict[str, Any]:
        """Return a row as the engine takes it."""
        return {name: cell.read(cell.example) for name, cell in self.cells.items()}

    def read(self, body: bytes, *, several: bool = False) -> list[dict[str, Any]]:
        """Return the rows of a JSON body, as the engine takes them.

        Raises:
            Malformed: it is no JSON.
            DataError: with everything that is wrong with it.
        """
        found = self.parsed(self.rows if several else self.row, body)
        given = found["rows"] if several else [found]
        return [dict(row) for row in given]

    def parsed(self, kind: type[BaseModel], body: bytes) -> dict[str, Any]:
        """Return what a JSON body says in the names of its keys; those that it leaves out are left out.

        Raises:
            Malformed: it is no JSON.
            DataError: with everything that is wrong with it.
        """
        try:
            return kind.model_validate_json(body).model_dump(by_alias=True, exclude_unset=True)
        except ValidationError as error:
            raise self._refused(error) from None

    def read_form(self, fields: Sequence[tuple[str, str | bytes]]) -> dict[str, Any]:
        """Return the row that the fields of a form are, a file as bytes.

        Raises:
            DataError: with everything that is wrong with it.
        """
        by_name: dict[str, list[str | bytes]] = {}
        for name, value in fields:
            by_name.setdefault(name, []).append(value)
        problems, row = [], {}
        for name, values in list(by_name.items())[: len(self.cells) + _MOST_FAULTS]:
            try:
                if name not in self.cells:
                    raise ValueError(self._unknown(name))
                row[name] = self.cells[name].read(self.cells[name].of_form(values))
            except ValueError as error:
                problems.append(Problem(str(error), name[:_SHOWN]))
        if problems:
            raise DataError(problems)
        return row

    def told(self, told: Told) -> dict[str, Any]:
        """Return the answer to one row as JSON values."""
        said = {name: _said(one) for name, one in told.said.items()}
        body: dict[str, Any] = {"targets": said} if self.schema.target.parts else next(iter(said.values()))
        body["present"] = told.present
        if self._screens:
            body |= {"suspicion": told.suspicion, "suspicious": told.suspicious}
        return body

    def explanation(self, explained: Explained) -> dict[str, Any]:
        """Return an explained answer as JSON values."""
        return {**self.told(explained.told), "shares": [vars(share) for share in explained.shares]}

    def _told_fields(self) -> dict[str, Any]:
        target = self.schema.target
        fields: dict[str, Any] = {}
        if target.parts:
            each = {part.name: (_made(f"Target{i}", _said_fields(part)), ...) for i, part in enumerate(target.parts)}
            fields["targets"] = (_made("Targets", each), ...)
        else:
            fields |= _said_fields(target)
        names: dict[str, Any] = {"type": "string", "enum": list(self.schema.modalities)}
        present: dict[str, Any] = {"type": "array", "items": names, "description": "The modalities that the row had."}
        fields["present"] = (Annotated[list[str], WithJsonSchema(present)], ...)
        if self._screens:
            fields["suspicion"] = (Annotated[float, Field(ge=0, le=1, description="How unlike ordinary rows.")], ...)
            fields["suspicious"] = (bool, ...)
        return fields

    def _unknown(self, name: str) -> str:
        return f"the model has no such column; {nearest(name[:_SHOWN], self.cells)}"

    def _refused(self, error: ValidationError) -> Exception:
        """Return what is wrong, each thing with its row and column."""
        problems = []
        for one in error.errors(include_url=False, include_input=False)[:_MOST_FAULTS]:
            if one["type"] == "json_invalid":
                return Malformed(f"the body is no JSON: {one['msg'].removeprefix('Invalid JSON: ')}")
            names = [part for part in one["loc"] if isinstance(part, str)]
            row = next((part for part in one["loc"] if isinstance(part, int)), None)
            name = names[-1][:_SHOWN] if names else None
            message = one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden" and name is not None and error.title in ("Row", "Rows"):
                message = self._unknown(name) if names[0] == "rows" or error.title == "Row" else 'give {"rows": […]}'
            problems.append(Problem(message, name if name != "rows" else None, () if row is None else (row,)))
        return DataError(problems)


_SHARE = create_model(
    "Share",
    target=(str, ...),
    label=(str | None, ...),
    nothing=(float, Field(description="The number when every modality is taken away.")),
    everything=(float, Field(description="The number as it is answered.")),
    gives=(dict[str, float], Field(description="What each modality adds; together everything - nothing.")),
    __doc__="What each modality gives to one number of the answer: the probability of a label, or the number itself.",
)


def _made(name: str, fields: Mapping[str, Any], example: Any = None) -> type[BaseModel]:
    """Return a model whose keys may be any text."""
    made = {
        f"field_{i}": (Annotated[type, Field(alias=key)], default)
        for i, (key, (type, default)) in enumerate(fields.items())
    }
    extra = {"examples": [example]} if example is not None else None
    config = ConfigDict(extra="forbid", json_schema_extra=extra, title=name)  # type: ignore[typeddict-item]
    model: type[BaseModel] = create_model(name, __config__=config, **made)  # type: ignore[call-overload]
    return model


def _given(cell: Cell) -> tuple[Any, None]:
    return Annotated[Any, PlainValidator(cell.read), WithJsonSchema(cell.schema)], None


def _or_none(type: Any) -> Any:
    return type | None


def _answer_type(target: Target) -> Any:
    """Return the type of an answer: its own labels, or a number."""
    if target.task == "regression":
        return float
    label = {"enum": list(target.levels)}
    schema = label if target.task == "classification" else {"type": "array", "items": label}
    return Annotated[object, WithJsonSchema(schema)]


def _said_fields(target: Target) -> dict[str, Any]:
    """Return what is said of a target."""
    fields: dict[str, Any] = {"answer": (_answer_type(target), ...)}
    if target.levels:
        share = {"type": "number", "minimum": 0, "maximum": 1 + 1e-6}
        names = [category(level) for level in target.levels]
        shape = {"type": "object", "properties": dict.fromkeys(names, share), "required": names}
        fields["probabilities"] = (
            Annotated[dict[str, float], WithJsonSchema(shape | {"additionalProperties": False})],
            ...,
        )
    if target.task == "classification":
        about = "With a level: labels among which the true one is."
        shape = {"type": "array", "items": {"enum": list(target.levels)}, "description": about}
        fields["labels"] = (Annotated[list[object], WithJsonSchema(shape)], None)
    if target.task == "regression":
        for name in ("low", "high"):
            about = "With a level: an end of the interval; null where it has none."
            fields[name] = (Annotated[float | None, Field(description=about)], None)
    return fields


def _said(said: Said) -> dict[str, Any]:
    body: dict[str, Any] = {"answer": said.answer}
    if said.probabilities is not None:
        body["probabilities"] = said.probabilities
    if said.labels is not None:
        body["labels"] = said.labels
    if said.low is not None or said.high is not None:
        body |= {"low": said.low, "high": said.high}
    return body
