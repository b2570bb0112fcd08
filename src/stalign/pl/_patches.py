"""Spot and niche patches, as the encoders see them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, whole
from stalign.data import open_sections, section_row, table_of
from stalign.pl._bar import draw_bar
from stalign.pl._canvas import canvas, entitle, finish, short
from stalign.pl._labels import Labels, read_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import Section

_LEVELS = (("spot", Keys.SPOT_WINDOW), ("niche", Keys.NICHE_WINDOW))
_LINE = 18  # letters in a line of a title
_MAX_PX = 224  # px, side of a patch in the figure
_MOST = 20  # labels that patches are shown of


def patches(
    data: AnnData | SpatialData,
    spots: Sequence[str] | None = None,
    *,
    n: int = 5,
    by: str | None = None,
    scale_bar: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    palette: Mapping[str, str] | Sequence[str] | str | None = None,
    size: int | None = None,
    title: str | Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Show spot patches above niche patches for a few spots of each section.

    Parameters
    ----------
    data
        One or more sections with windows. It is not changed.
    spots
        Names of the spots to show. None takes `n` spots of each section, spread over it.
    n
        How many spots of each section, where `spots` is None.
    by
        Column of obs with labels: one spot is taken from each label (of each section's 20 most common, where there are
        more), from its middle, and titles are in its colour.
    scale_bar
        Whether to draw a scale bar in µm, where the scale is known.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image of an AnnData object. It must be the one that `pp.patches`
        used; None takes it from its record.
    mpp
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    palette
        Colours of the labels in `by`: a list, a mapping from label to colour, the name of a colour map, or None for
        those in `uns[f"{by}_colors"]`, as in `pl.domains`.
    size
        Side in px that patches are resampled to, such as 28 to see what a small encoder sees; None for that of the
        window in the image, at most 224.
    title
        One title for all columns or one per panel.
    ax
        Axes to draw on, row by row: the spot patches of a section, then its niche patches.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes in a list, or the figure if `return_fig`.

    Reads
    -----
    - `obsm["spot_window"]`, `obsm["niche_window"]`, (n_obs, 4): x0 y0 x1 y1 in px of the image
    - `uns["spatial"]`, `uns["stalign"]["patches"]`

    Raises
    ------
    KeyError
        If there are no windows, or a spot or column does not exist.
    ValueError
        If a section has no image or no window, there are no labels in `by`, `size` is below 1, or `ax` has another
        number of panels.

    Notes
    -----
    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.pp.niches(adata)
    >>> stalign.pp.patches(adata)
    >>> axes = stalign.pl.patches(adata, by="domain", show=False)
    >>> len(axes)
    10
    """
    table = table_of(data, table_key)
    for _, slot in _LEVELS:
        if slot not in table.obsm:
            raise KeyError(
                message(
                    f"Expected windows in obsm[{slot!r}]",
                    found="none",
                    available=table.obsm.keys(),
                    hint="Call `stalign.pp.patches(data)` first",
                )
            )
    if size is not None:
        whole(size, name="size")
    where: dict[str, Any] = {"table_key": table_key, "library_key": library_key, "mpp": mpp}
    if image_key is None:
        noted = {one.name: section_row(table, "patches", one.name) for one in open_sections(data, **where)}
        image_key = {name: str(row["image_key"]) for name, row in noted.items() if row}
    views = open_sections(data, image_key=image_key, **where)
    labels = read_labels(table, by, palette=palette) if by is not None else None
    chosen = [_choose(table, view, spots, n, labels) for view in views]
    if spots is not None and sum(map(len, chosen)) < len(spots):
        unknown = [name for name in spots if name not in table.obs_names]
        found = repr(unknown[0]) if unknown else "spots without a window"
        raise KeyError(message("Expected names of spots with a window", found=found, available=table.obs_names))
    rows = [(view, picks) for view, picks in zip(views, chosen, strict=True) if len(picks)]
    if not rows:
        raise ValueError(message(f"Expected labels in obs[{by!r}]", found="none for any spot with a window"))
    width = max(len(picks) for _, picks in rows)
    figure, axes = canvas(2 * sum(1 for _ in rows) * width, ax=ax, ncols=width, width=1.5, height=1.65)
    for i, (view, picks) in enumerate(rows):
        for j, (level, slot) in enumerate(_LEVELS):
            strip = axes[(2 * i + j) * width : (2 * i + j + 1) * width]
            windows = np.asarray(table.obsm[slot], dtype=np.float64)[view.rows[picks]]
            _strip(strip, view, windows, size=size, bar=scale_bar)
            name = level if len(rows) == 1 else f"{short(view.name, 16)}\n{level}"
            strip[0].set_ylabel(name, parse_math=False)
            if j == 1:
                continue
            for k, pick in enumerate(picks):
                default, color = _caption(table, view.rows[pick], labels)
                name = textwrap.fill(default, _LINE, max_lines=2, placeholder=" …")
                font = "small" if len(default) < _LINE - 4 else "x-small"  # barcodes are long, and stand close
                entitle(strip[k], title, name, (2 * i + j) * width + k, len(axes), fontsize=font, color=color)
    return finish(figure, axes, show=show, return_fig=return_fig)


def _choose(
    table: AnnData, view: Section, spots: Sequence[str] | None, n: int, labels: Labels | None
) -> NDArray[np.intp]:
    """Positions in the section of the spots to show."""
    if view.image is None:
        raise ValueError(
            message(
                f"Expected an image of section {view.name!r}",
                found="none",
                hint="Patches are cut from it; store one in uns['spatial'] or name it with `image_key=`",
            )
        )
    has: NDArray[np.bool_] = view.valid.copy()
    for _, slot in _LEVELS:
        has &= np.isfinite(np.asarray(table.obsm[slot], dtype=np.float64)[view.rows]).all(axis=1)
    names = table.obs_names[view.rows]
    if spots is not None:
        at = names.get_indexer(list(spots))
        return np.asarray(at[(at >= 0) & has[at]])
    if not has.any():
        raise ValueError(message(f"Expected windows for section {view.name!r}", found=f"NaN for all {len(has)} spots"))
    if labels is not None:
        codes = np.where(has, labels.codes[view.rows], -1)
        groups = [np.flatnonzero(codes == code) for code in range(len(labels.names))]
        if len(groups) > _MOST:
            logger.info("Showing patches of the %d most common of %d labels.", _MOST, len(groups))
            common = np.sort(np.argsort([-len(group) for group in groups], kind="stable")[:_MOST])
            groups = [groups[code] for code in common]
        return np.array([_middle(view.coords, group) for group in groups if len(group)], dtype=np.intp)
    usable = np.flatnonzero(has)
    return usable[np.linspace(0, len(usable) - 1, min(n, len(usable)) + 2)[1:-1].round().astype(np.intp)]


def _caption(table: AnnData, row: int, labels: Labels | None) -> tuple[str, Any]:
    """Label of a spot with its colour, or its name."""
    from matplotlib import rcParams

    code = -1 if labels is None else labels.codes[row]
    if labels is None or code < 0:
        return str(table.obs_names[row]), rcParams["text.color"]
    return labels.names[code], labels.colors[code]


def _middle(coords: NDArray[np.float64], group: NDArray[np.intp]) -> int:
    """The spot of a group that is nearest to the group's median."""
    return int(group[np.linalg.norm(coords[group] - np.median(coords[group], axis=0), axis=1).argmin()])


def _strip(axes: Sequence[Axes], view: Section, windows: NDArray[np.float64], *, size: int | None, bar: bool) -> None:
    """Draw one row of patches."""
    image = view.image
    if image is None:
        return
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_visible(False)
    for panel, window in zip(axes, windows, strict=False):
        width, height = window[2:] - window[:2]
        px = size if size is not None else int(np.clip(np.ceil(max(width, height)), 8, _MAX_PX))
        pixels = image.patches(window[None], px)[0]
        panel.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest", aspect="equal")
        if not (bar and np.isfinite(image.mpp)):
            continue
        um = next((step for step in (200, 100, 50, 20, 10, 5) if step / image.mpp <= 0.5 * width), 5)
        length = um / image.mpp
        corner = pixels[-max(1, px // 6) :, : max(1, px // 2)]
        draw_bar(
            panel, (0.06 * width, 0.94 * height), length, 0.03 * height, f"{um} µm", dark=bool(corner.mean() < 115),
            fontsize="x-small", centred=False,
        )  # fmt: skip
