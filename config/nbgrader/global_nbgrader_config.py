# nbgrader, for everybody on this machine: the first of its three levels. The others are the grader's, in
# /home/grader-COURSE/.jupyter/nbgrader_config.py, and the course's, in /home/grader-COURSE/COURSE/nbgrader_config.py,
# which its teachers may edit. You may change this file: an upgrade then leaves it and puts its own beside it.

c = get_config()

# One exchange for all courses. Each course's folder in it can be entered by that course's members alone.
c.Exchange.root = "/srv/nbgrader/exchange"

# Fetched assignments lie in ~/COURSE/ASSIGNMENT, so that two courses can have an assignment of the same name.
c.Exchange.path_includes_course = True

# Kernels for autograding and validating on unix sockets: a TCP port could be reached by every account of the machine.
c.NotebookClient.kernel_manager_class = "illumidesk.grader.kernels.IpcKernelManager"
