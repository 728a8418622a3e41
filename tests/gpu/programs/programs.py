"""All programs that are compared."""

import own
import samples
import suites

PROGRAMS = [*samples.ROWS, *own.ROWS, *suites.ROWS]
