"""A network on disk: a folder with `weights.safetensors` and `config.json`, never a pickle."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign._files import move
from stalign._validate import message
from stalign.models.checkpoint_files import (
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    SAVING,
    WEIGHTS_FILE,
    flush,
    sha256_of,
)
from stalign.models.kinds import NETWORKS, config_of, network_of
from stalign.models.network import n_parameters
from stalign.models.pretrained import packaged_state
from stalign.models.run_files import contents, source_of

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

    from stalign.models.kinds import Network


@dataclass(eq=False)
class Checkpoint:
    """A network with all that is needed to use it; where it is on disk, it stands for its folder, too.

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
        The folder or the checkpoint that it came from, or None.
    sha256
        Hash of the weights file, or "".
    """

    network: Any  # of one of NETWORKS, which the kind of its configuration tells
    vocabulary: tuple[str, ...]
    ensembl: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""

    @property
    def config(self) -> Any:
        """The network's configuration."""
        return self.network.config

    def __fspath__(self) -> str:
        if self.path is None:
            hint = "Write them with `stalign.models.save`, or train with `out=`"
            raise ValueError(message("Expected weights that have a folder", found="weights in memory", hint=hint))
        return str(self.path)

    def __str__(self) -> str:
        return repr(self) if self.path is None else str(self.path)

    def __truediv__(self, name: str) -> Path:
        return Path(self) / name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "path" or self.path is None:
            raise AttributeError(name)
        return getattr(self.path, name)  # `train.fit` once returned the folder: `parent`, `iterdir` and so on


def save(
    folder: str | os.PathLike[str],
    network: Network,
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
        If `network` is of no kind that this package knows.
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
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as temporary:
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
        move(weights, folder / WEIGHTS_FILE)
        move(config, folder / CONFIG_FILE)
    return folder


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu", images: bool = True) -> Checkpoint:
    """Read a network from a folder that `save` wrote, or from a training run.

    Parameters
    ----------
    path
        The folder, or one of its two files; or the folder of a run, for what was exported from it or else its best or
        last checkpoint, which the log says; or one of its checkpoints.
    device
        Where the network goes.
    images
        Whether to read the encoders of images too, of a network of ST-Align; genes alone are embedded without, and timm
        need not be imported.

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
    source = source_of(Path(path).expanduser())
    record, state, found = contents(source)
    config = config_of(record.get("config"))
    vocabulary = tuple(record["vocabulary"])
    if images:
        state |= packaged_state(config)
    else:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("image_encoders.")}
    more = {} if images else {"images": False}
    with torch.device("meta"):  # builds no weights, draws no random numbers
        network = network_of(config, len(vocabulary), **more)
    _check_state(network.state_dict(), state, f"the weights in {source}", "configuration beside them")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if any(buffer.is_meta and name not in state for name, buffer in network.named_buffers()):
        with torch.random.fork_rng(devices=[]):  # some image models of timm keep tables that are not in their state
            network = network_of(config, len(vocabulary), **more)
    network.load_state_dict(state, strict=True, assign=True)
    return Checkpoint(
        network=network.to(device).eval(),
        vocabulary=vocabulary,
        ensembl=tuple(record.get("ensembl") or ()),
        meta=record.get("meta", {}),
        path=source,
        sha256=found,
    )


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


def _unwrapped(network: torch.nn.Module) -> Network:
    """Return the network that `torch.compile` or a parallel wrapper holds."""
    inner: Any = network
    kinds = tuple(made for _, made in NETWORKS.values())
    while not isinstance(inner, kinds):
        parts = dict(inner.named_children()) if isinstance(inner, torch.nn.Module) else {}
        inside = parts.get("_orig_mod", parts.get("module"))
        if inside is None:
            names = " or ".join(f"`{kind.__name__}`" for kind in kinds)
            expected = f"Expected an {names} network, or one that is compiled or wrapped"
            raise TypeError(message(expected, found=type(network).__name__))
        inner = inside
    found: Network = inner
    return found


def _state_of(network: Network) -> dict[str, torch.Tensor]:
    """Return the weights of a network by the names that its configuration gives them, whatever wraps its parts."""
    with torch.device("meta"):
        wanted = network_of(network.config, network.n_genes).state_dict()
    state = {_name(name, wanted): tensor for name, tensor in network.state_dict().items()}
    _check_state(wanted, state, "the weights of the network", "configuration")
    return state


def _name(name: str, wanted: Collection[str]) -> str:
    """Leave out of a name what a wrapper has put into it."""
    return name if name in wanted else ".".join(p for p in name.split(".") if p not in ("_orig_mod", "module"))


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
