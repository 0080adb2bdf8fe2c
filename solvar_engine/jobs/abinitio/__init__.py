"""From images without poses to a run that other commands go on from: what is read, saved and written.

How the structure is found is in `solvar_engine.abinitio`. ``inputs`` checks what is asked for, ``checkpoint`` keeps
what the search has done, ``maps`` reconstructs the volumes from the poses found, and ``results`` writes them.
"""
