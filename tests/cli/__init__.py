"""The command `chatter`, run as a program."""
