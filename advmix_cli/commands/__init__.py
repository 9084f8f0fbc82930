"""The commands, one a file: parse, call, print. torch is imported inside the functions, and only there."""
