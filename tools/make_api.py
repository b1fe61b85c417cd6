"""Write the API reference of regnet's public names, from their docstrings, as HTML.

python tools/make_api.py [FOLDER]      (site/ without)
"""

import sys
from pathlib import Path

import pdoc

import regnet


def main() -> None:
    """Look up every public name, as pdoc shows what a module holds, and write the pages."""
    for name in regnet.__all__:
        setattr(regnet, name, getattr(regnet, name))
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    pdoc.pdoc("regnet", output_directory=folder)
    print(folder / "regnet.html")


if __name__ == "__main__":
    main()
