"""Faults on the whole path under load: whatever is killed, cut or full, the books stay true."""
