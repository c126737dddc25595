"""The root supervisor: the only code of ours that runs as root while serving.

A closed set of verbs over a unix socket (`server`), each argument checked (`policy`), each account, folder
and unit one that the supervisor made itself (`accounts`, `courses`, `units`). `client` is the other end, for
the hub.
"""
