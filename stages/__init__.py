"""Ray Data stages: each adapts Arrow columns to the core and back."""

from omnitrace_core.printable import make_last_resort_printable

# Ray's workers configure no logging: warnings go to stderr, and from there to a terminal.
make_last_resort_printable()
