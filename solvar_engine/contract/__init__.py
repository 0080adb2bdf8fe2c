"""What other programs may rely on: options, run directory, STAR files. Needs Python 3.8 and NumPy only.

Rooms and programs use `params` (the options of every command), `run` (names of a run's files, its start and resume,
its record), `results` (tables and arrays of a run), `selections` (what a user picked in the explorer), `status`,
`star`, `angles` (RELION's Euler angles), `files` (whole files or none, plain tables), `words` (counts in sentences) and
`errors`; `lock` serves `run`.
"""
