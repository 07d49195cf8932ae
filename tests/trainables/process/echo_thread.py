"""Module with a thread, for tests of processes that must not fork."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
