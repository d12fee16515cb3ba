"""Runs a command on a terminal of its own and prints what appears there.

    terminal.py COLUMNS COMMAND [ARGUMENT...]
"""

import fcntl
import os
import pty
import struct
import sys
import termios

child, terminal = pty.fork()
if child == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, int(sys.argv[1]), 0, 0))
    os.execv(sys.argv[2], sys.argv[2:])
shown = b""
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:  # Linux says so when the child is gone
        break
    if not part:
        break
    shown += part
os.waitpid(child, 0)
sys.stdout.write(shown.decode().replace("\r\n", "\n"))
