import signal

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts in turn: with
# pytest there, tests that interrupt a program would wait for it in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
