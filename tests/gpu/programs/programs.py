"""All programs that are compared."""

import own
import samples

PROGRAMS = [*samples.ROWS, *own.ROWS]
