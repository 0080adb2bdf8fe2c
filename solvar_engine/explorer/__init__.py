"""The explorer: a page in the web browser in which the molecule follows the mouse over the particles of a run.

The page itself (`web/`: plain ES modules, no build step) sums mean and eigenvolumes, so nothing is asked of a server
while the user looks. `data` packs what the page needs of a run, `server` serves page and data to the user alone,
`standalone` puts both into one file; `jobs` uses these three, `page` (the page's files) and `volumes` serve the room.
"""
