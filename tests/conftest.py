"""State of the test process that all tests rely on."""

import signal

# A shell ignores SIGINT in the commands that it runs in the background. Daemons and clients
# would inherit that, and the tests send them SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
