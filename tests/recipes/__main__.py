"""The command line of the package, with the recipes of this folder beside its own."""

from pathlib import Path

from tutorial_lib.__main__ import main
from tutorial_lib.training import recipes

recipes.__path__.append(str(Path(__file__).parent))
main()
