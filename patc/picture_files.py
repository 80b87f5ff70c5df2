"""Picture files, opened as data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patc.files import check_regular

if TYPE_CHECKING:
    from PIL import Image

# Pillow knows a picture by its content, and hands some to other programs: PostScript to its interpreter.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Return the picture in a file, of which Pillow has read no more than the header.

    Raises:
        PatcError: there is no such file, or it is no regular one.
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: of Pillow, where it is no picture of `FORMATS`.
    """
    from PIL import Image

    check_regular(path, "a picture")
    return Image.open(path, formats=FORMATS)
