"""Sweeps over many upstreams, tasks and corpora.

`plan` reads the plan, `inventory` finds existing records in a process of its own, `forecast` estimates the rest, `jobs`
runs the pairs of one upstream and corpus, `launchers` start jobs here or on a cluster, and `sweep` calls them in that
order.
"""
