"""The subcommands of `audioclf`, each a function: tyro reads its options and their help from signature and docstring.

Heavy modules are imported inside the functions, so that `--help` is quick, and a wrong path is told before torch is
there.
"""
