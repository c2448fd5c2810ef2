"""`gradworks artifacts show`: an output and its origin."""

from __future__ import annotations

from typing import Any

from gradworks.base.artifacts import MANIFEST
from gradworks.base.errors import InputError
from gradworks.store.artifacts import named, previews, words
from gradworks.store.artifacts.listing import flat_parameters
from gradworks.store.artifacts.lock import Lock
from gradworks.store.artifacts.store import Fault, Store

_CARDS = ("README.md", MANIFEST, "config.json")  # files that describe a folder


def read(lock: Lock, store: Store, name: str) -> dict[str, Any]:
    """Details of an output or of a file in one; for a stage with several outputs, of each.

    Raises:
        InputError: nothing has that name; Fault: its object is missing or damaged.
    """
    own = [out for out in lock.outs() if out.stage == name]
    if len(own) > 1:
        outs = [{"path": out.path, "md5": out.md5, "bytes": out.size} for out in own]
        return {"stage": name, "parameters": flat_parameters(lock, name), "outs": outs}
    found = named.find(lock, store, name)
    about = {
        "stage": found.out.stage, "path": found.path, "md5": found.md5, "object": store.uri(found.md5),
        "parameters": flat_parameters(lock, found.out.stage),
    }  # fmt: skip
    if found.folder:
        return about | {"bytes": found.out.size, "preview": _folder(store, found.md5)}
    with store.opened(found.md5) as file:
        preview = previews.read(found.path, file)
        return about | {"bytes": file.seek(0, 2), "preview": preview}


def _folder(store: Store, md5: str) -> dict[str, Any]:
    """The files of a folder, with previews of those that describe it, or the reason why one cannot be read."""
    inside, cards = store.folder(md5), {}
    for path, name in inside:
        if path in _CARDS:
            try:
                with store.opened(name) as file:
                    cards[path] = previews.read(path, file)
            except Fault as fault:
                cards[path] = {"kind": "text", "text": fault.state}
            except InputError as error:
                cards[path] = {"kind": "text", "text": str(error)}
    return {"kind": "folder", "files": [{"path": path, "md5": name} for path, name in inside], "cards": cards}


def shown(about: dict[str, Any], lines: int) -> str:
    """The result of `read` as text; `lines`: the most per preview."""
    heads = [("stage", words.plain(about["stage"]))]
    heads += [(k, words.plain(about[k])) for k in ("path", "md5", "object") if k in about]
    if "bytes" in about:
        heads.append(("size", words.size(about["bytes"])))
    parts = [words.columns(heads)]
    if about["parameters"]:
        rows = [(words.plain(k), words.short(v)) for k, v in about["parameters"].items()]
        parts.append("parameters\n" + previews.bounded(words.columns(rows), lines))
    for out in about.get("outs", []):
        parts.append(f"{words.plain(out['path'])}  {words.size(out['bytes'])}")
    preview = about.get("preview", {"kind": ""})
    if preview["kind"] == "folder":
        rows = [(one["md5"][:8], words.plain(one["path"])) for one in preview["files"]]
        parts.append("files\n" + (previews.bounded(words.columns(rows), lines) if rows else "none"))
        parts += [f"{path}\n{previews.shown(card, lines)}" for path, card in preview["cards"].items()]
    elif preview["kind"]:
        parts.append(previews.shown(preview, lines))
    return "\n\n".join(parts)
