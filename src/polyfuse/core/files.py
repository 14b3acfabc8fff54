"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from polyfuse.core.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

About = TypeVar("About", bound="BaseModel")

_MAX_TEXT = 512 << 20  # bytes of a JSON file
_MAX_ABOUT = 1 << 20  # bytes of one that describes other files


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes the place of `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(folder: Path, kind: str, mark: str, *, overwrite: bool) -> None:
    """Check that a folder of some kind may be written; nothing but one of its kind is ever replaced.

    Args:
        folder: where.
        kind: what it will be, for messages: "artifact", "export".
        mark: a file that every folder of the kind has.
        overwrite: whether one that is there may be replaced.

    Raises:
        InputError: something else stands there, or one that is not to be replaced.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; an {kind} is a folder: choose another name")
    ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise InputError(f"{folder} cannot be written: {ancestor} is not a folder that you may write to")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / mark).is_file():
        raise InputError(f"{folder} holds something that is not a Polyfuse {kind}; choose another folder")
    if not overwrite:
        raise InputError(f"{folder} holds an {kind}: choose another folder, or replace it with overwrite (--overwrite)")


def check_link(link: Path) -> None:
    """Check that a symbolic link may be made, or turned, at a place.

    Raises:
        InputError: something else stands there, or its folder is missing.
    """
    if link.exists() and not link.is_symlink():
        raise InputError(f"{link} is no symbolic link, and nothing else is ever replaced; name another place")
    if not link.absolute().parent.is_dir():
        raise InputError(f"{link}: there is no folder {link.absolute().parent}; make it first")


def turn_link(link: Path, to: Path) -> None:
    """Make a symbolic link, or turn one that is there, so that it leads somewhere at any moment."""
    check_link(link)
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.symlink_to(os.path.relpath(to.absolute(), link.absolute().parent), target_is_directory=True)
    try:
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)


def written(text: str, path: str | Path | None) -> str:
    """Return a text, written to a file where one is named."""
    if path is not None:
        with whole_file(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


def read_json(path: Path) -> Any:
    """Return what a JSON file of a saved folder holds.

    Raises:
        ArtifactError: it is missing, damaged, or larger than any such file.
    """
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise ArtifactError(f"{path} has more than {_MAX_TEXT:,} bytes; that is no file of an artifact")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def read_about(path: Path, kind: type[About], *, format: int) -> About:
    """Return what a JSON file says of the files beside it.

    Args:
        path: of the file.
        kind: what it holds; it has a `format`.
        format: the newest that this version reads.

    Raises:
        ArtifactError: it is missing, damaged or too large.
        ValueError: it holds something else, or is of a newer format.
    """
    if path.stat().st_size > _MAX_ABOUT:
        raise ArtifactError(f"{path} has more than {_MAX_ABOUT:,} bytes")
    about = kind.model_validate(read_json(path))
    given = getattr(about, "format", format)
    if given > format:
        raise ValueError(f"format {given}, and this version reads up to {format}: upgrade polyfuse")
    return about


@contextmanager
def undamaged(folder: Path, advice: str = "") -> Iterator[None]:
    """Read what a folder holds; whatever goes wrong is an ArtifactError that says so.

    Args:
        folder: that is read in the block.
        advice: what can be done beside restoring it, after a comma.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        told = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{folder} is damaged ({told}); restore it from a copy{advice}") from error


def strict_json(document: Any) -> str:
    """Return a document as strict JSON; numbers that JSON cannot say are null."""
    return json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _swap(new: Path, path: Path) -> None:
    """Move `new` to `path`; what stood there is put aside first, so that either is whole at any moment."""
    if not path.exists():
        new.rename(path)
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _finite(value: Any) -> Any:
    """Return JSON values with None in place of every number that JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
