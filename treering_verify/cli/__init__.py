"""The command line: one module for each command, which parses, calls and prints.

`main` names all commands. Mark: `keygen`, `keys`, `generate`. Verify: `verify` (and recheck), `identify`, `audit`, `decode`,
`report`. Evaluate: `demo`, `attack`, `benchmark`, `calibrate`. Manage: `models`. What they share: `command` makes a command
of a function, with help by topic and errors as exit codes; `options` has the options of several commands, `configuration`
reads them from a TOML file; `output` prints verdicts and progress; `running` has what long commands need. `key_strength`
says how sure a key could ever be, and `demonstration` is what `demo` runs.
"""
