"""Many upstreams, tasks and corpora: what is asked of them, what is missing, who does it, and what came of it.

`plan` reads the question, `look` says what is there already, `forecast` what the rest will cost, `jobs` does one
upstream on one corpus, `launchers` start jobs here or on a cluster, and `sweep` calls them in that order.
"""
