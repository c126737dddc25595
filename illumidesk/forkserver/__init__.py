"""A process per environment that holds its servers' modules in memory and forks a person's server into that person's
own unit.

- `client` is what the unit runs: it asks for a fork, or runs the program in the ordinary way.
- `server` waits for clients. It is root, runs nobody's code and reads nobody's words.
- `caller` says who asks, by what the kernel tells.
- `likeness` makes a forked process one like its caller: cgroups, namespaces, limits, rights, system call filters.
- `personal` finds what modules took from the environment of whoever imported them, and puts it right in each fork.
- `person` is what the process does once it is the person's.
- `program` is the program itself, without what a server has no use for.
- `kernels` forks kernels from what is left of a process before it becomes a server.
- `linux` are the system calls that Python does not have.

It runs from environments, with nothing but Python's own library.
"""
