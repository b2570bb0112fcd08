"""The one rule by which an image is chosen for a section, whatever its container."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from stalign._settings import logger
from stalign._validate import message, warn
from stalign.data.pixels import stain_doubt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stalign.data.images import SectionImage

_GLANCE: Final = 256  # px, longer side of the thumbnail that is looked at
_RANKS: Final = {"full": 0, "fullres": 0, "image": 0, "hires": 1, "downscaled_fullres": 2, "lowres": 3}
_IMAGE = re.compile(r"(?:(?P<base>.*?)[_ ])?(?P<kind>fullres|full|hires|lowres|cytassist)(?:[_ ]image)?")
_ELEMENT = re.compile(
    r"(?P<base>.+?)_(?:square_\d{3}um(?:_labels)?|(?:cell|nucleus)_segmentations|spots|cells|bins|labels)"
)


@dataclass(frozen=True)
class Candidate:
    """An image that may be the one of a section.

    Parameters
    ----------
    name
        Its name in the container.
    open
        Opens it.
    doubt
        Why it can be no H&E image by its channels, or "".
    kind
        Its resolution as its name tells: `full`, `hires`, `lowres` and so on, or "".
    base
        What its name is made of beside that.
    """

    name: str
    open: Callable[[], SectionImage]
    doubt: str = ""
    kind: str = ""
    base: str = ""


def image_name(name: str) -> tuple[str, str]:
    """Split the name of an image element into what it belongs to and its resolution.

    Parameters
    ----------
    name
        Such as `S1_hires_image`, as spatialdata-io names it.

    Returns
    -------
    Base and kind, such as `S1` and `hires`; the kind is "" where the name tells none.

    Examples
    --------
    >>> from stalign.data.choice import image_name
    >>> image_name("S1_hires_image"), image_name("he")
    (('S1', 'hires'), ('he', ''))
    """
    found = _IMAGE.fullmatch(name)
    if found is not None:
        return found["base"] or "", found["kind"]
    if name.endswith("_image"):
        return name.removesuffix("_image"), "image"
    return name, ""


def bases(element: str) -> set[str]:
    """List what images of an element can be named after: the element, and the section that it is a part of.

    Parameters
    ----------
    element
        Name of the spots' element, such as `S1` or `S1_square_008um`.

    Returns
    -------
    The names.
    """
    found = _ELEMENT.fullmatch(element)
    return {element} if found is None else {element, found["base"]}


def choose(candidates: Sequence[Candidate], section: str) -> SectionImage | None:
    """Choose the image of a section: the H&E image, at the highest resolution if there are several of one picture.

    Parameters
    ----------
    candidates
        Images of the section.
    section
        Name of the section, for messages.

    Returns
    -------
    The image, or None where there is none.

    Raises
    ------
    ValueError
        If two pictures remain, after those that can be no H&E image by their channels or pixels.

    Warns
    -----
    UserWarning
        If the only image seems to be no H&E image.
    """
    plain = [one for one in candidates if not one.doubt]
    for one in candidates if plain else ():
        if one.doubt:
            logger.info("Image %r of section %r is passed over: %s.", one.name, section, one.doubt)
    left, first = list(plain or candidates), _finest(plain or candidates)
    passed: list[tuple[Candidate, SectionImage, str]] = []
    while left:
        best = _finest(left)
        looked = [(one, image, one.doubt or _doubt(image)) for one in best for image in [one.open()]]
        good = [(one, image) for one, image, doubt in looked if not doubt]
        if len(good) > 1:
            _refuse([one for one, _ in good], section)
        passed += [one for one in looked if one[2]]
        if good:
            for other, _, why in passed:
                logger.info("Image %r of section %r is passed over: %s.", other.name, section, why)
            return good[0][1]
        left = [one for one in left if one not in best]
    if not passed:
        return None
    if len(first) > 1:
        _refuse(first, section)
    one, image, doubt = passed[0]
    _warn(one.name, section, doubt)
    return image


def asked_for(candidate: Candidate, section: str) -> SectionImage:
    """Open the image that the caller names.

    Parameters
    ----------
    candidate
        The image.
    section
        Name of the section, for messages.

    Returns
    -------
    The image.

    Warns
    -----
    UserWarning
        If it seems to be no H&E image.
    """
    image = candidate.open()
    doubt = candidate.doubt or _doubt(image)
    if doubt:
        _warn(candidate.name, section, doubt)
    return image


def _doubt(image: SectionImage) -> str:
    """Why an image can be no H&E image by its pixels, or ""."""
    return stain_doubt(image.thumbnail(_GLANCE)[0])


def _warn(name: str, section: str, doubt: str) -> None:
    """Warn that the image in use seems to be no H&E image."""
    warn(message(f"Expected image {name!r} of section {section!r} to be an H&E image", found=doubt))


def _finest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of the highest resolution, if they are all of one picture as far as their names tell."""
    known = [one for one in candidates if one.kind in _RANKS]
    if known and len({one.base for one in candidates}) == 1:
        rank = min(_RANKS[one.kind] for one in known)
        return [one for one in known if _RANKS[one.kind] == rank]
    return list(candidates)


def _refuse(candidates: Sequence[Candidate], section: str) -> NoReturn:
    """Say that several images can be the section's."""
    raise ValueError(
        message(
            f"Expected one image of section {section!r}",
            found=f"{len(candidates)} that can be it",
            available=[one.name for one in candidates],
            hint="Pass `image_key=`, the name of the image or a mapping from each section to its image",
        )
    )
