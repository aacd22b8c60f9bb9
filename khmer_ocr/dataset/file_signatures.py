"""What a file is that was given for an image and is none: said by its first bytes, with what to do about it."""

import re

_PDF = "is a PDF document. Make images of its pages first: pdftoppm -r 300 -png FILE.pdf page; then cut out the lines."
_HEIC = "is a HEIC or HEIF photograph, which can't be read here. Save it as JPEG or PNG."
_OFFICE = "is a document of an office program. Save it as PDF, then make images: pdftoppm -r 300 -png FILE.pdf page."
_ZIP = "is a ZIP archive. Unpack it and give the images inside."
_SVG = "is an SVG drawing, which has no pixels. Save it as PNG, at least 64 px high per line."
_HTML = "is a web page (HTML), often an error page in place of a download. Download the image again."
_LFS = "is a pointer of Git LFS, and the image itself was not fetched. Run: git lfs pull"
_PACKED = "is a packed file. Unpack it and give the images inside."
_POSTSCRIPT = "is a PostScript document. Make images of its pages first, for example with gs -sDEVICE=png16m -r300."
_HEAD_BYTES = 1024
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"heif"}
_SIGNATURES = (
    (b"%PDF-", _PDF),
    (b"version https://git-lfs", _LFS),
    (b"\x1f\x8b", _PACKED),
    (b"BZh", _PACKED),
    (b"\xfd7zXZ\x00", _PACKED),
    (b"\x28\xb5\x2f\xfd", _PACKED),
    (b"7z\xbc\xaf\x27\x1c", _PACKED),
    (b"Rar!\x1a\x07", _PACKED),
    (b"%!PS", _POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", _POSTSCRIPT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE),
    (b"{\\rtf", _OFFICE),
    (b"AT&TFORM", "is a DjVu document. Make images of its pages first: ddjvu -format=tiff FILE.djvu pages.tif"),
    (b"8BPS", "is a Photoshop document. Save it as PNG."),
    (b"gimp xcf", "is a GIMP document. Export it as PNG."),
    (b"\x00\x05\x16\x07", "holds what a Mac keeps beside a file (its name begins with ._), no image. Leave it out."),
    (b"RIFF", "is a sound or a film in a RIFF file, or a damaged WEBP. Save the image as PNG."),
)
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM")
_MARKUP = re.compile(rb"<(?:\?xml|!doctype|!--|html|svg|head|body|[a-z]+:svg)", re.IGNORECASE)


def what_it_is(data: bytes) -> str | None:
    """Say what a file is that no decoder of images took.

    Args:
        data: the file, or its first thousand bytes.

    Returns:
        What follows the file's name in a message: what it is and what to do; None where that is not known.
    """
    head = data[:_HEAD_BYTES]
    for signature, said in _SIGNATURES:
        if head.startswith(signature):
            return said
    if head.startswith(b"PK\x03\x04"):
        office = re.search(rb"\[Content_Types\]|_rels/|word/|ppt/|xl/|mimetypeapplication/vnd\.oasis", head)
        return _OFFICE if office else _ZIP
    if b"%PDF-" in head:  # some programs write something before it
        return _PDF
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, min(len(head), 64), 4)}
        if brands & {b"avif", b"avis"}:
            return None  # a picture that Pillow reads: this one is damaged
        return _HEIC if brands & _HEIF_BRANDS else "is a film or sound (MP4 and the like). Save a frame as PNG."
    if head.startswith(_IMAGE_STARTS):
        return None
    return _text(head)


def _text(head: bytes) -> str | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MARKUP.match(start):
        return _SVG if re.search(rb"<(?:[a-z]+:)?svg[\s>]", head, re.IGNORECASE) else _HTML
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as fault:
        if fault.start < len(head) - 4:  # else a character is cut at the end of the head
            return None
        text = head[: fault.start].decode("utf-8")
    if any(character < " " and character not in "\t\n\r\f" for character in text):
        return None
    shown = " ".join(text.split())[:40]
    return f"is text, no image: it begins with {shown!r}. Expected an image of a line, for example a PNG."
