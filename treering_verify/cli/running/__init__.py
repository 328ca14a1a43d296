"""What a long command needs while it runs.

`progress` shows how far it is, `signals` stop it, and `repeats` knows what has been finished before.
"""
