"""The command line: arguments in, exit code out.

1. 0: done. 1: it did not work out, in a sentence. 2: the arguments or the configuration cannot be used, in a sentence.
2. Results go to standard output, everything said about them to standard error. Nobody is shown a traceback for what is
   not our fault.
"""

from pushactors.cli.arguments import main

__all__ = ["main"]
