"""What people who mean harm could send; add what you meet.

`files` (attacks on decoders, and mutated images), `slow_files`, `archives`, `names` and `models` (folders of models) make
it; `fuzz` verifies mutated images. `reader` and `decoder` are processes that fail on demand; `cluster_models` causes
damage when unpickled.
"""
