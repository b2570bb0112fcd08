"""A network on disk: a folder with `weights.safetensors` and `config.json`, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign._validate import message
from stalign.models.config import ModelConfig
from stalign.models.network import STAlign, n_parameters
from stalign.models.pretrained import packaged_state

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FORMAT = "stalign"
FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
_SAVING = ".saving-"  # start of the name of the folder in which `save` prepares both files
_TRIES = 5  # how often `load` starts again where another process saves at the same time


@dataclass
class Checkpoint:
    """A network with all that is needed to use it.

    Parameters
    ----------
    network
        The network, in float32 and evaluation mode.
    vocabulary
        V gene symbols, in the order of the network's genes.
    ensembl
        V Ensembl ids without version, "" where unknown; empty where none were recorded.
    meta
        Training data, licence, metrics and version, as they were given to `save`.
    path
        The folder that it came from, or None.
    sha256
        Hash of the weights file, or "".
    """

    network: STAlign
    vocabulary: tuple[str, ...]
    ensembl: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""

    @property
    def config(self) -> ModelConfig:
        """The network's configuration."""
        return self.network.config


def save(
    folder: str | os.PathLike[str],
    network: STAlign,
    *,
    vocabulary: Sequence[str],
    ensembl: Sequence[str] | None = None,
    meta: dict[str, Any] | None = None,
    fp16: bool = True,
) -> Path:
    """Write a network to a folder.

    Both files are first written in full in a temporary folder of their own and then moved into place, so that a full
    disk or a killed process leaves what was there before. Between the two moves, and after a kill there, `load` reads
    the configuration that belongs to the weights from where it was prepared.

    Parameters
    ----------
    folder
        Where to; made if absent.
    network
        The network, also one that `torch.compile` or a parallel wrapper holds, as a whole or in parts.
    vocabulary
        V gene symbols, in the order of the network's genes.
    ensembl
        V Ensembl ids without version, "" where unknown.
    meta
        Training data, licence, metrics, version: anything that JSON can hold.
    fp16
        Whether matrices are stored in half precision. Vectors, such as the statistics of batch norm, never are.
        Backbones that stay at the weights of EfficientNet-Lite0 are not stored: a package of its own brings them.

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        If the vocabulary does not fit the network, the names or shapes of its weights do not fit its configuration, or
        a weight is not finite or too large for half precision.
    TypeError
        If `network` is no `STAlign`.
    OSError
        If the folder cannot be written to, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from stalign import __version__

    network = _unwrapped(network)
    vocabulary = _names(vocabulary, network.n_genes, "vocabulary")
    if len(set(vocabulary)) < len(vocabulary):
        raise ValueError(message("Expected each gene once in `vocabulary`", found="duplicates"))
    ids = None if ensembl is None else _names(ensembl, network.n_genes, "ensembl")
    elsewhere = packaged_state(network.config)
    state = {name: tensor for name, tensor in _state_of(network).items() if name not in elsewhere}
    tensors = {name: _packed(name, tensor, fp16=fp16) for name, tensor in state.items()}
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SAVING) as temporary:
        weights, config = (Path(temporary) / name for name in (WEIGHTS_FILE, CONFIG_FILE))
        try:
            save_file(tensors, weights, metadata={"format": FORMAT})
        except SafetensorError as error:
            hint = "Make room and save again; what was there before is kept"
            raise OSError(message(f"Cannot write weights to {str(folder)!r}", found=str(error), hint=hint)) from error
        text = json.dumps(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "stalign_version": __version__,
                "config": network.config.to_dict(),
                "meta": meta or {},
                "weights": {
                    "file": WEIGHTS_FILE,
                    "bytes": weights.stat().st_size,
                    "sha256": sha256_of(weights),
                    "parameters": n_parameters(network),
                },
                "vocabulary": list(vocabulary),
                "ensembl": None if ids is None else list(ids),
            },
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )
        config.write_text(text + "\n", encoding="utf-8")
        weights.chmod(config.stat().st_mode)  # safetensors makes files that only their owner may read
        for path in (weights, config):
            flush(path)
        weights.replace(folder / WEIGHTS_FILE)
        config.replace(folder / CONFIG_FILE)
    return folder


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a network from a folder that `save` wrote.

    Parameters
    ----------
    path
        The folder, or one of its two files.
    device
        Where the network goes.

    Returns
    -------
    The checkpoint, its network in float32 and evaluation mode. The state of random generators does not change.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is no checkpoint of this package, was made by a later version, is truncated or changed, or its weights do
        not fit its configuration; the message says which.

    Notes
    -----
    Nothing in the folder is changed, so that it may be read-only, or be saved to by another process at the same time:
    what is loaded is one `save` or the other.
    """
    folder = _folder(Path(path).expanduser())
    record, state, found = _contents(folder)
    config = ModelConfig.from_dict(record.get("config"))
    state |= packaged_state(config)
    vocabulary = tuple(record["vocabulary"])
    with torch.device("meta"):  # builds no weights, draws no random numbers
        network = STAlign(config, len(vocabulary))
    _check_state(network.state_dict(), state, f"the weights in {folder / WEIGHTS_FILE}", "configuration beside them")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if any(buffer.is_meta and name not in state for name, buffer in network.named_buffers()):
        with torch.random.fork_rng(devices=[]):  # some image models of timm keep tables that are not in their state
            network = STAlign(config, len(vocabulary))
    network.load_state_dict(state, strict=True, assign=True)
    return Checkpoint(
        network=network.to(device).eval(),
        vocabulary=vocabulary,
        ensembl=tuple(record.get("ensembl") or ()),
        meta=record.get("meta", {}),
        path=folder,
        sha256=found,
    )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(names: Sequence[str], n: int, what: str) -> tuple[str, ...]:
    result = tuple(map(str, names))
    if len(result) != n:
        raise ValueError(message(f"Expected `{what}` to name the network's {n} genes", found=f"{len(result)} names"))
    return result


def _packed(name: str, tensor: torch.Tensor, *, fp16: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    packed = tensor.half() if fp16 and tensor.ndim > 1 else tensor.float()
    if not torch.isfinite(packed).all():
        hint = (
            "Save with `fp16=False`" if torch.isfinite(tensor).all() else "Training has diverged; nothing was written"
        )
        raise ValueError(message(f"Expected finite weights in {name!r}", found="values that are not", hint=hint))
    return packed


def _unwrapped(network: torch.nn.Module) -> STAlign:
    """Return the network that `torch.compile` or a parallel wrapper holds."""
    inner: Any = network
    while not isinstance(inner, STAlign):
        parts = dict(inner.named_children()) if isinstance(inner, torch.nn.Module) else {}
        inside = parts.get("_orig_mod", parts.get("module"))
        if inside is None:
            expected = "Expected an `STAlign` network, or one that is compiled or wrapped"
            raise TypeError(message(expected, found=type(network).__name__))
        inner = inside
    return inner


def _state_of(network: STAlign) -> dict[str, torch.Tensor]:
    """Return the weights of a network by the names that its configuration gives them, whatever wraps its parts."""
    with torch.device("meta"):
        wanted = STAlign(network.config, network.n_genes).state_dict()
    state = {_name(name, wanted): tensor for name, tensor in network.state_dict().items()}
    _check_state(wanted, state, "the weights of the network", "configuration")
    return state


def _name(name: str, wanted: Collection[str]) -> str:
    """Leave out of a name what a wrapper has put into it."""
    return name if name in wanted else ".".join(p for p in name.split(".") if p not in ("_orig_mod", "module"))


def _contents(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Read a configuration, its weights and their hash, all of one `save`."""
    path = folder / WEIGHTS_FILE
    for last in (*[False] * (_TRIES - 1), True):
        before = _identity(path)
        record = _record(folder / CONFIG_FILE)
        try:
            found = sha256_of(path)
            if record.get("weights", {}).get("sha256", found) != found:
                record = _pending(folder, found) or record
            state = _state(path, record.get("weights", {}), found)
        except (ValueError, FileNotFoundError):
            if last or (_identity(path) == before and _record(folder / CONFIG_FILE) == record):
                raise
            continue  # another process has saved in the meantime
        if last or _identity(path) == before:
            return record, state, found
    raise AssertionError


def _identity(path: Path) -> tuple[int, int, int]:
    """Tell a file from another that is moved into its place."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _pending(folder: Path, sha256: str) -> dict[str, Any] | None:
    """Find the configuration of these weights that a `save` has not moved into place, or not yet."""
    for path in folder.glob(f"{_SAVING}*/{CONFIG_FILE}"):
        try:
            record = _record(path)
        except (ValueError, OSError):  # half of a file, or moved away in the meantime
            continue
        if record.get("weights", {}).get("sha256") == sha256:
            return record
    return None


def flush(path: Path) -> None:
    """Wait until a file is on disk. It is opened for writing, as Windows flushes no other.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _folder(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(message("Expected a checkpoint folder", found=f"nothing at {path}"))
    folder = path.parent if path.name in (WEIGHTS_FILE, CONFIG_FILE) else path
    if not folder.is_dir():
        hint = "Weights of this package come as a folder; save one with `stalign.models.save`"
        raise ValueError(
            message(f"Expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}", found=f"the file {path}", hint=hint)
        )
    lacking = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if lacking:
        found = f"no {' and no '.join(lacking)} in {folder}"
        raise ValueError(message(f"Expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}", found=found))
    return folder


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            message(f"Expected JSON in {path}", found=str(error), hint="The file is truncated or changed")
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = repr(record.get("format")) if isinstance(record, dict) else type(record).__name__
        raise ValueError(
            message(f'Expected "format": "{FORMAT}" in {path}', found=found, hint="This is no stalign checkpoint")
        )
    version = record.get("format_version")
    if not isinstance(version, int) or version < 1 or version > FORMAT_VERSION:
        expected = f"Expected format_version 1 to {FORMAT_VERSION} in {path}"
        made = record.get("stalign_version", "unknown")
        raise ValueError(
            message(expected, found=version, hint=f"It was made by stalign {made}: upgrade to that version")
        )
    for name in ("weights", "meta"):
        if not isinstance(record.get(name, {}), dict):
            raise ValueError(message(f'Expected an object under "{name}" in {path}', found=repr(record[name])[:80]))
    vocabulary, ensembl = record.get("vocabulary"), record.get("ensembl")
    if not isinstance(vocabulary, list) or not vocabulary or not all(isinstance(name, str) for name in vocabulary):
        raise ValueError(
            message(f'Expected a list of gene symbols under "vocabulary" in {path}', found=repr(vocabulary)[:80])
        )
    if ensembl is not None and (not isinstance(ensembl, list) or len(ensembl) != len(vocabulary)):
        raise ValueError(
            message(f'Expected as many ids under "ensembl" as symbols in {path}', found=repr(ensembl)[:80])
        )
    return record


def _state(path: Path, recorded: dict[str, Any], found: str) -> dict[str, torch.Tensor]:
    """Read the weights of a file with the hash `found`, if it is the one that was recorded."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    size = path.stat().st_size
    if recorded.get("bytes", size) != size:
        expected = f"Expected {recorded['bytes']} bytes in {path}"
        raise ValueError(
            message(expected, found=f"{size} bytes", hint="The file is truncated or another; copy it again")
        )
    if recorded.get("sha256", found) != found:
        expected = f"Expected sha256 {recorded['sha256']} of {path}"
        raise ValueError(message(expected, found=found, hint="The file was changed or is another; copy it again"))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            message(f"Expected safetensors in {path}", found=str(error), hint="Truncated or another kind of file")
        ) from error


def _check_state(wanted: dict[str, torch.Tensor], state: dict[str, torch.Tensor], what: str, config: str) -> None:
    problems = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }
    found = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise ValueError(message(f"Expected {what} to fit the {config}", found="; ".join(found)))
