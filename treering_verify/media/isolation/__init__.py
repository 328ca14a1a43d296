"""Decoding in a process of its own, so that a file costs that process and nothing else.

`child_process` starts processes, speaks with them and limits them; audits use it too. `decoding` decodes what verify and
identify are given: cheap files at once, all others in a process that runs `decoder_process`.
"""
