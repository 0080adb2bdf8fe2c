"""The figures of results, drawn once for the report and for Scipion's windows; NumPy and matplotlib only.

Every function ``draw_...`` draws into an empty figure that has constrained layout, from arrays or from the classes of
`solvar_engine.contract.results`, and returns how to read it: plain text for a caption. Nothing global changes, and no
display is needed.
"""
