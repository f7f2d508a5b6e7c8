"""The history of shapes: SQL and the record of what was published.

No code; a package, so that no other folder of this name is taken for it.
"""
