"""Files that are neither images nor videos of ours, called by their name.

What FFmpeg says of them ("invalid data") would send people to look for damage that is not there.
"""

from __future__ import annotations

from pathlib import Path

from PIL import features

HEAD = 32  # bytes that tell

HEIC = "an HEIC image, which is not read (save it as JPEG; a phone can be set to)"
SAVE = "which is not read (save it as PNG)"
SVG = f"an SVG drawing, {SAVE}"

# beginning of the file -> what it is
MARKS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"8BPS": f"a Photoshop file, {SAVE}",
    b"\xff\x0a": "a JPEG XL image, which is not read (save it as PNG or JPEG)",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image, which is not read (save it as PNG or JPEG)",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x76\x2f\x31\x01": f"an OpenEXR image, {SAVE}",
    b"#?RADIANCE": f"an HDR image, {SAVE}",
    b"gimp xcf": f"a GIMP file, {SAVE}",
    b"%!PS": f"a PostScript file, {SAVE}",
    b"<svg": SVG,
    b"<?xml": "an XML file",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"#EXTM3U": "a playlist",
}
# brand of an ISO file, bytes 8 to 12 -> what it is; AVIF images and videos have brands of their own
BRANDS = dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), HEIC
)
# for contents without a mark of their own
SUFFIXES = {
    **dict.fromkeys(
        tuple(
            ".cr2 .cr3 .crw .nef .nrw .arw .sr2 .dng .raf .orf .rw2 .rwl .pef .srw .x3f .3fr .iiq "
            ".erf .kdc .mrw .raw".split()
        ),
        "a raw photograph of a camera, which is not read (save it as JPEG)",
    ),
    **dict.fromkeys((".heic", ".heif", ".hif"), HEIC),
    **dict.fromkeys((".txt", ".csv", ".json", ".md", ".yaml", ".yml", ".log"), "a text file"),
    **dict.fromkeys((".wav", ".mp3", ".flac", ".m4a"), "a sound file without pictures"),
    **dict.fromkeys((".pth", ".pt", ".tar"), "a file of weights or an archive"),
}


def foreign_kind(path: Path) -> str:
    """What the file is, with its article, if it is no image or video; "" where that is unknown."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""
    if head[4:8] == b"ftyp":
        if b"avif" in head[8:] and not features.check("avif"):
            return "an AVIF image, which this Pillow does not read (pip install 'pillow>=11.3')"
        if head[8:12] in BRANDS and b"avif" not in head:
            return BRANDS[head[8:12]]
    suffix = path.suffix.lower()
    # an SVG may begin as any XML file does, or be compressed
    if suffix in (".svg", ".svgz"):
        return SVG
    for mark, kind in MARKS.items():
        if head.startswith(mark):
            return kind
    return SUFFIXES.get(suffix, "")
