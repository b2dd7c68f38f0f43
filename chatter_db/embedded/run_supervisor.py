"""Runs the supervisor as a script, with nothing but the standard library.

It may live for days beside the server: without the rest of chatter_db, whose
imports take a second and a hundred megabytes, and wherever the package lies.
"""

import sys
from pathlib import Path
from types import ModuleType


def run() -> None:
    """Run the supervisor without the __init__ of the package: an empty one stands in for it."""
    package = ModuleType("chatter_db")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules[package.__name__] = package

    from chatter_db.embedded.supervisor import main

    main(sys.argv[1:])


if __name__ == "__main__":
    run()
