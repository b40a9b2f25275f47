"""The JavaScript, CSS and fonts that a visdom server would download at its first start, from the
npm registry.

    python tests/visdom_assets.py       fetches what is missing; needs npm

visdom asks hosts that a test must not depend on. These are the same files of the same versions,
those that its page loads (but MathJax: none of our windows holds a formula), laid out as its page
expects them.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

PLACE = Path(
    os.environ.get("STREAMSEG_VISDOM_ASSETS") or Path.home() / ".cache" / "streamseg" / "visdom"
)
GLYPHICONS = "glyphicons-halflings-regular"
FILES = {  # npm package: {its file: ours}
    "jquery@3.1.1": {"dist/jquery.min.js": "js/jquery.min.js"},
    "bootstrap@3.3.7": {
        "dist/js/bootstrap.min.js": "js/bootstrap.min.js",
        "dist/css/bootstrap.min.css": "css/bootstrap.min.css",
        **{
            f"dist/fonts/{GLYPHICONS}.{kind}": f"fonts/{GLYPHICONS}.{kind}"
            for kind in ("eot", "woff2", "woff", "ttf", "svg")
        },
    },
    "react@16.2.0": {"umd/react.production.min.js": "js/react-react.min.js"},
    "react-dom@16.2.0": {"umd/react-dom.production.min.js": "js/react-dom.min.js"},
    "react-resizable@1.4.6": {"css/styles.css": "css/react-resizable-styles.css"},
    "react-grid-layout@0.16.3": {"css/styles.css": "css/react-grid-layout-styles.css"},
    "layout-bin-packer@1.4.0": {"dist/layout-bin-packer.js": "js/layout_bin_packer.js"},
    "plotly.js-dist-min@2.11.1": {"plotly.min.js": "js/plotly-plotly.min.js"},
    "d3@3.5.17": {"d3.min.js": "js/d3.v3.min.js"},
    "d3-selection-multi@1.0.1": {"build/d3-selection-multi.js": "js/d3-selection-multi.v1.js"},
    "save-svg-as-png@1.4.17": {"lib/saveSvgAsPng.js": "js/saveSvgAsPng.js"},
}


def missing() -> list[str]:
    """The packages of which a file is not there yet."""
    return [
        package
        for package, files in FILES.items()
        if not all((PLACE / name).is_file() for name in files.values())
    ]


def fetch() -> None:
    """Place them. CalledProcessError where npm cannot, FileNotFoundError where there is no npm."""
    for package in missing():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["npm", "pack", "--silent", package],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for theirs, ours in FILES[package].items():
                    place(archive.extractfile(f"package/{theirs}").read(), PLACE / ours)


def place(data: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


if __name__ == "__main__":
    fetch()
    print(f"visdom's JavaScript is in {PLACE}")
