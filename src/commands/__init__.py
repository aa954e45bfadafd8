"""The command line (`cli`), and the jobs behind it, a module each that a program can call."""
