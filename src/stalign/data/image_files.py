"""Image files as arrays of which regions are read."""

from __future__ import annotations

import math
import mmap
import os
import struct
import tempfile
import threading
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

_WHOLE: Final = 150_000_000  # px up to which a PNG or JPEG is decoded in memory, which takes about 7 bytes a px
_STRIP: Final = 512  # px, rows that are written to a temporary file at a time
_SHRINKS: Final = (2, 4, 8)  # px per px of the smaller versions that a JPEG can be decoded to
_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
_CHANNELS: Final = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "I;16": ()}  # by the mode of PIL
_JPEG_END: Final = b"\xff\xd9"
_DAMAGED: Final = (OSError, EOFError, LookupError, RuntimeError, SyntaxError, ValueError, struct.error, zlib.error)


class ImageFileError(ValueError):
    """An image file that cannot be read."""


def level_sizes(path: Path) -> list[tuple[int, int]]:
    """Read the sizes of an image file and of smaller versions of it that can be read in its place.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Height and width in px, largest first: of a TIFF the levels of its pyramid or its first pages, each smaller than the
    one before; of a JPEG above 150 million px those to which it can be decoded directly; of other files one pair.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is no image or is damaged.
    """
    with _readable(path):
        kind = _kind(path)
        if kind == "TIFF":
            from tifffile import TiffFile

            with TiffFile(path) as tiff:
                return [_size(series.levels[level]) for series, level in _levels(tiff)]
        with _pil(path, kind) as image:
            width, height = image.size
    sizes = [(height, width)]
    if kind == "JPEG" and height * width > _WHOLE:
        smaller = [(-(-height // shrink), -(-width // shrink)) for shrink in _SHRINKS]
        sizes += [size for size in smaller if math.prod(size) <= _WHOLE]
    return sizes


def open_level(path: Path, frame: int = 0) -> Any:
    """Open one level of an image file.

    Parameters
    ----------
    path
        The file.
    frame
        The level, as an index into `level_sizes`.

    Returns
    -------
    An array (H, W) or (H, W, c) of any number type: in memory, or with `shape`, `dtype` and slices of rows and columns.
    Of a TIFF only the tiles or strips of a slice are read. Where a file cannot be read by region and is large (PNG,
    JPEG, a TIFF that is compressed in strips), it is decoded once, piece by piece, into a temporary file.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is no image or is damaged, also when a damaged region is read; or there is no such level.
    """
    with _readable(path):
        kind = _kind(path)
        if kind == "TIFF":
            return _open_tiff(path, frame)
        size = level_sizes(path)[frame]
        with _pil(path, kind) as image:
            if frame:
                shrink = image.width // (size[1] - 1)
                image.draft(image.mode, (image.width // shrink, image.height // shrink))
            elif math.prod(size) > _WHOLE and kind in {"JPEG", "PNG"}:
                return _decode_to_file(path, kind, size, image.mode)
            return _pixels(image)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into one error."""
    try:
        yield
    except (FileNotFoundError, PermissionError, ImageFileError):
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        hint = "It is cut short, damaged or of a kind that is not read: copy it again, or convert it to a tiled TIFF"
        raise ImageFileError(
            message("Expected an image file that can be read", found=f"{path} ({reason})", hint=hint)
        ) from error


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise ValueError("the file is empty")
    return next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), "")


@contextmanager
def _pil(path: Path, kind: str) -> Iterator[Image]:
    """Open a file by the class of its kind, as PIL's guard against huge images is in `Image.open`, for other kinds."""
    from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

    classes: dict[str, Any] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
    }
    try:
        with classes.get(kind, Image.open)(path) as image:
            if isinstance(image, ImageFile.StubImageFile):
                raise ValueError(f"{image.format}, which Pillow cannot read")
            yield image
    except UnidentifiedImageError as error:
        raise ValueError("not TIFF, PNG, JPEG or another format that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise ValueError("too large for its format") from error


def _pixels(image: Image) -> NDArray[Any]:
    if image.mode in {"P", "CMYK", "YCbCr", "LAB", "HSV"}:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return np.asarray(image)


def _levels(tiff: Any) -> list[tuple[Any, int]]:
    """Series and level of the image and of its smaller copies."""
    first = tiff.series[0]
    found = [(first, level) for level in range(len(first.levels))]
    if len(found) > 1:
        return found
    height, width = last = _size(first)
    for series in tiff.series[1:]:
        size = _size(series)
        shrink = height / size[0], width / size[1]
        if size[0] >= last[0] or abs(shrink[0] / shrink[1] - 1) > 0.02 + 1 / min(size):
            break
        found.append((series, 0))
        last = size
    return found


def _size(level: Any) -> tuple[int, int]:
    if "Y" not in level.axes or "X" not in level.axes:
        raise ValueError(f"axes {level.axes} of shape {level.shape}")
    height, width = (int(level.shape[level.axes.index(axis)]) for axis in "YX")
    return height, width


def _open_tiff(path: Path, frame: int) -> Any:
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        series, index = _levels(tiff)[frame]
        level = series.levels[index]
        page, size = level.keyframe, _size(level)
        end = path.stat().st_size
        for part in level.pages:
            if part is not None and any(
                start + count > end for start, count in zip(part.dataoffsets, part.databytecounts, strict=True)
            ):
                raise ValueError("pixels beyond the end of the file")
        colour, packed = page.photometric.name, page.compression.name
        plain = colour in {"MINISBLACK", "RGB"} or (colour == "YCBCR" and ("JPEG" in packed or "JP2000" in packed))
        if not plain or page.bitspersample % 8:
            if not isinstance(page.index, int) or math.prod(size) > _WHOLE:
                raise ValueError(f"{colour} pixels of {page.bitspersample} bits")
            with _pil(path, "TIFF") as image:
                image.seek(page.index)
                return _pixels(image)
        if level.dataoffset is not None:
            dtype = level.dtype.newbyteorder(tiff.byteorder)
            return _Mapped(path, dtype, level.shape, level.axes, offset=level.dataoffset)
        lazy = _Tiff(path, frame, level, page)
    if not page.is_tiled and math.prod(size) > _WHOLE:
        rows = max(1, round(_STRIP / page.rowsperstrip)) * page.rowsperstrip
        file: IO[bytes] = tempfile.TemporaryFile()
        for top in range(0, size[0], rows):
            lazy[top : top + rows, :].tofile(file)
        file.flush()
        return _Mapped(file, lazy.dtype, lazy.shape, "YXS"[: len(lazy.shape)])
    return lazy


def _decode_to_file(path: Path, kind: str, size: tuple[int, int], mode: str) -> _Mapped:
    """Decode a whole PNG or JPEG into a temporary file, that is given pages of memory only for a moment."""
    import imagecodecs

    if mode not in _CHANNELS:
        raise ValueError(f"{math.prod(size):,} px of mode {mode}")
    source: Any = np.memmap(path, dtype=np.uint8, mode="r")
    if kind == "JPEG" and _JPEG_END not in source[-4096:].tobytes():
        raise ValueError("its end is missing")
    deep = kind == "PNG" and source[24] == 16  # the bits of a channel
    shape = (*size, *_CHANNELS[mode])
    file: IO[bytes] = tempfile.TemporaryFile()
    out = np.memmap(file, dtype=np.uint16 if deep else np.uint8, mode="w+", shape=shape)
    done = threading.Event()

    def release() -> None:
        while not done.wait(0.1):
            out._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # the pixels stay in the file

    if hasattr(mmap, "MADV_DONTNEED"):
        threading.Thread(target=release, daemon=True).start()
    try:
        (imagecodecs.jpeg8_decode if kind == "JPEG" else imagecodecs.png_decode)(source, out=out)
    finally:
        done.set()
    out.flush()
    return _Mapped(file, out.dtype, shape, "YXS"[: len(shape)])


class _Planes:
    """An array of any axes as (H, W) or (H, W, c): the first of planes that are neither rows, columns nor channels."""

    def __init__(self, dtype: Any, shape: tuple[int, ...], axes: str) -> None:
        self.channel = next((axis for axis in "SC" if axis in axes), "")
        self.axes, self.dtype = axes, np.dtype(dtype)
        lengths = dict(zip(axes, map(int, shape), strict=True))
        self.shape = tuple(lengths[axis] for axis in ("Y", "X", self.channel) if axis)

    def _slice(self, array: Any, where: tuple[slice, slice]) -> NDArray[Any]:
        chosen = {"Y": where[0], "X": where[1], self.channel: slice(None)}
        part = np.array(array[tuple(chosen.get(axis, 0) for axis in self.axes)])
        order = [axis for axis in self.axes if axis in chosen]
        return part.transpose([order.index(axis) for axis in ("Y", "X", self.channel) if axis])


class _Mapped(_Planes):
    """Raw pixels in a file, which is mapped into memory only for the time of a slice."""

    def __init__(
        self, file: Path | IO[bytes], dtype: Any, shape: tuple[int, ...], axes: str, *, offset: int = 0
    ) -> None:
        super().__init__(dtype, shape, axes)
        self._file, self._offset, self._whole = file, offset, tuple(shape)

    def __getitem__(self, where: tuple[slice, slice]) -> NDArray[Any]:
        return self._slice(np.memmap(self._file, self.dtype, "r", self._offset, self._whole), where)


class _Tiff(_Planes):
    """A level of a TIFF, of which tiles or strips are decoded by tifffile."""

    def __init__(self, path: Path, frame: int, level: Any, page: Any) -> None:
        super().__init__(level.dtype, level.shape, level.axes)
        edges = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        self.chunks = (*edges, *self.shape[2:])
        self._path, self._frame = path, frame
        self._opened: tuple[int, Any] | None = None

    def __getitem__(self, where: tuple[slice, slice]) -> NDArray[Any]:
        with _readable(self._path):
            if self._opened is None or self._opened[0] != os.getpid():  # a forked process needs a file of its own
                self._opened = os.getpid(), self._open()
            return self._slice(self._opened[1], where)

    def _open(self) -> Any:
        import zarr
        from tifffile import TiffFile

        series, level = _levels(TiffFile(self._path))[self._frame]
        return zarr.open(series.aszarr(level=level), mode="r")
