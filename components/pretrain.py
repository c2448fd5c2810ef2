"""Make an encoder folder: a tokenizer and, for a transformer, pretrained weights.

The text is that of the training split, never of any other, or a corpus file. `gru` and `bow` get a tokenizer and their
configuration, and word vectors where `vectors` names a file; `transformer` is trained as a masked language model, or
taken `from` a checkpoint; of a model of pictures the folder holds the configuration alone. A run that was killed goes
on from its last checkpoint by itself.

examples:
  python -m components.pretrain --encoder gru --data runs/fetch --out runs/pretrain/gru
  python -m components.pretrain --encoder uncased --data runs/fetch --out runs/pretrain/uncased
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import splits, text
from gradworks.telemetry import live

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_FILES = ("vocabulary_file", "vectors.file", "pretrain.corpus")  # options that name files


def further_tasks(params: Path) -> dict[str, Kind]:
    """Those of `corrupt.parts`, for mixtures."""
    names = base.read_yaml(params)["corrupt"].get("parts") or {}
    return {name: tasks.of(params, name) for name in names}


def training_texts(
    params: Path, data: Path, task: Kind, key: str = "corrupt.splits", labels: Path | None = None
) -> list[tuple[str, ...]]:
    """What a model of the task reads or writes of every example of its training split, as `corrupt` draws it for seed
    0. `key`: its splits.
    """
    asked = base.section(params, key, splits.Splits)
    tables = {}
    for name in splits.NAMES:
        take = getattr(asked, name)
        source, split = take.from_.split("/")
        folder = labels if labels and (labels / source).is_dir() else data
        tables[take.from_] = artifacts.read_parquet(
            folder / source / f"{split}.parquet", ["id", *task.words, *take.where]
        )
    table = splits.draw(asked, tables, 0, f"{params}: {key}", task.spec.texts, task.together)[0]["train"]
    return list(zip(*(table[column].to_pylist() for column in task.words), strict=True))


def corpus_texts(options: Any) -> tuple[list[tuple[str, ...]], list[int] | None]:
    """Sentences of a corpus file; for next-sentence prediction each with the one after it, and the document of each."""
    numbered = text.lines(Path(options.corpus), options.lines)
    if options.next_sentence:
        from gradworks.data.masking import pairs_of_lines

        pairs, documents = pairs_of_lines(numbered)
        return list(pairs), documents
    return [(line,) for _, line in numbered], None


def given_files(options: Any, where: str) -> dict[str, str]:
    """SHA-256 of every file that the options name, for the manifest. Raises InputError when one is not there."""
    found = {}
    for name in _FILES:
        value = options.model_dump()
        for part in name.split("."):
            value = (value or {}).get(part)
        if value and not Path(value).is_file():
            raise InputError(f"{where}.{name}: {value}: no such file")
        if value:
            found[value] = artifacts.digest(Path(value))
    return found


def make_tokenizer(options: Any, texts: list[tuple[str, ...]], where: str) -> tuple[Any, Any]:
    """The tokenizer that the options ask for, and word vectors (V, D) or None."""
    from gradworks.data import tokenizer

    if getattr(options, "vectors", None):
        words, vectors = text.vectors(Path(options.vectors.file), options.vocabulary, options.lowercase)
        return tokenizer.words(words, options.lowercase), vectors
    if options.vocabulary_file:
        return tokenizer.wordpiece(tokenizer.read_vocabulary(Path(options.vocabulary_file)), options.lowercase), None
    if not options.vocabulary:
        raise InputError(f"{where}: no vocabulary\nexpected: vocabulary, a number of tokens, or vocabulary_file")
    train_one = tokenizer.byte_level if getattr(options, "byte_level", False) else tokenizer.train
    return train_one([one for example in texts for one in example], options.vocabulary, options.lowercase), None


def train(
    kind: Any,
    options: Any,
    texts: list[tuple[str, ...]],
    documents: list[int] | None,
    folder: Path,
    params: Path,
    name: str,
    saved: Any,
    watch: Any,
) -> list[dict[str, Any]]:
    """Masked-language-model training of the encoder in `folder`; returns the history."""
    from gradworks import loop, pretraining
    from gradworks.base.device import set_up
    from gradworks.data import masking
    from gradworks.models import read_tokenizer

    where = f"{params}: pretrain.{name}"
    device = set_up(base.value(params, "threads"), base.value(params, "device"))
    settings, made = options.pretrain, read_tokenizer(folder)
    try:
        sequences = masking.encode(texts, made, settings.max_length, settings.next_sentence, settings.seed, documents)
    except ValueError as error:
        raise InputError(f"{where}.pretrain: {error}") from None
    if len(sequences) < 2:
        raise InputError(f"{where}.pretrain: found {len(sequences)} sequences of text, expected two or more")
    model = kind.language_model(options, folder, where)
    with base.Stopping() as stop:
        try:
            history = pretraining.train(model, sequences, made, settings, device, saved, stop, name, watch)
        except loop.Stopped as reason:
            print(reason, flush=True)
            raise SystemExit(128 + stop.signal) from None
    kind.write_encoder(model.base_model, folder)
    return history


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """history.parquet: one row a step."""
    import pyarrow as pa

    columns = dict.fromkeys(name for one in history for name in one)
    table = pa.table({name: [one.get(name) for one in history] for name in columns})
    artifacts.write_parquet(folder / "history.parquet", table)


def write_untrained(kind: Any, options: Any, args: Any, parameters: dict[str, Any]) -> None:
    """The folder of a model of pictures, for those of the project's tasks. InputError where they differ in shape."""
    task = tasks.of(args.params)
    for name in further_tasks(args.params):
        if (other := getattr(tasks.of(args.params, name), "shape", None)) != task.shape:
            found = f"pictures of {list(task.shape)} in {task.name}, {other and list(other)} in {name}"
            raise InputError(f"{args.params}: corrupt.parts.{name}: found {found}\nexpected one shape for all tasks")
    with artifacts.atomic_folder(args.out) as folder:
        kind.prepare(options, folder, task.shape)
        artifacts.write_manifest(folder, "pretrain", parameters)


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--encoder", required=True, help="a key of the section `pretrain`")
    parser.add_argument("--data", type=Path, required=True, help="folder of sources that `fetch` wrote")
    parser.add_argument("--labels", type=Path, help="what `label` wrote: a folder of sources")
    parser.add_argument("--out", type=Path, required=True, help="folder for the encoder")
    args = parser.parse_args()
    task = tasks.of(args.params)
    metrics = live.begin("pretrain", args, task=task.name)
    where = f"{args.params}: pretrain.{args.encoder}"

    from gradworks import models
    from gradworks.base import checkpoint

    kind = models.find(base.value(args.params, f"pretrain.{args.encoder}.model"), f"{where}.model")
    options = base.section(args.params, f"pretrain.{args.encoder}", kind.Options)
    settings, source = getattr(options, "pretrain", None), getattr(options, "from_", None)
    given = given_files(options, where)
    parameters = {"task": task.name, **options.model_dump(by_alias=True, exclude_none=True)}
    further = further_tasks(args.params)
    keys = ["threads", "device", "corrupt.splits", *(["corrupt.parts"] if further else [])]
    surroundings = [base.value(args.params, name) for name in keys]
    folders = [args.data, *([args.labels] if args.labels else [])]
    saved = checkpoint.Checkpoint(checkpoint.key("pretrain", folders, [parameters, given, surroundings]))
    texts: list[tuple[str, ...]] = []
    documents: list[int] | None = None
    if models.reads(kind.__name__.rpartition(".")[2]) == "pictures":
        write_untrained(kind, options, args, parameters)
        return
    if settings and settings.corpus:
        texts, documents = corpus_texts(settings)
    elif settings or not (source or options.vocabulary_file or getattr(options, "vectors", None)):
        texts = training_texts(args.params, args.data, task, labels=args.labels)
        for name, other in further.items():
            texts += training_texts(args.params, args.data, other, f"corrupt.parts.{name}", args.labels)
    columns = max(min(2, len(one.spec.texts)) for one in (task, *further.values()))
    with artifacts.atomic_folder(args.out) as folder:
        if source:
            kind.adopt(options, folder, where)
        else:
            made, vectors = make_tokenizer(options, texts, where)
            kind.prepare(options, made, folder, texts=columns, vectors=vectors)
        if settings:
            history = train(kind, options, texts, documents, folder, args.params, args.encoder, saved, metrics.step)
            write_history(folder, history)
        artifacts.write_manifest(folder, "pretrain", parameters, given=given, texts=len(texts))
    saved.remove()


if __name__ == "__main__":
    base.run(main)
