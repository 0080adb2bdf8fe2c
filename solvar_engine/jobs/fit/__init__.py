"""A fit of the motions: what is read, in which order its stages come, what is saved, shown, logged and written.

What a stage computes is in `estimation`. ``inputs`` checks what is asked for, ``plan`` says what it will need,
``start`` reads the images and settles sign and masks; then come ``halves``, ``foreign_poses``, ``rank`` and
``results``. ``poses`` is the part of the results that is there if poses were refined, ``outputs`` writes the files,
``checkpoint`` keeps the states, and ``job`` is what all stages share.

Other rooms use `inputs.split_halves` with `inputs.HalfSplit`, `inputs.scratch_folder` and `outputs.OutputScale`.
"""
