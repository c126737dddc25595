# nbgrader's configuration of the grader of $course_id, the second of three levels:
#   /etc/jupyter/nbgrader_config.py: everybody on this machine
#   $home/.jupyter/nbgrader_config.py: this file, where the course is; IllumiDesk keeps it as it is
#   $home/$course_id/nbgrader_config.py: the course's own, for its teachers to change
import sys
from pathlib import Path

from illumidesk.grader import hooks

c = get_config()

c.CourseDirectory.root = "$home/$course_id"
c.CourseDirectory.course_id = "$course_id"

# The gradebook is opened so that several can use it at a time, and students' extensions count against late penalties.
hooks.install()

# `nbgrader quickstart $course_id` refuses a course folder that holds `source` or a configuration file, and ours has the
# latter from the start. Where there is no `source` yet and nobody has changed the file, make room for quickstart's own.
_course = Path("$home/$course_id")
_file = _course / "nbgrader_config.py"
if "quickstart" in sys.argv and _course in [Path(argument).absolute() for argument in sys.argv[2:]]:
    _lines = _file.read_text("utf-8").splitlines() if _file.is_file() else []
    _code = [line.strip() for line in _lines if line.strip() and not line.startswith("#")]
    if (
        _code == ["c = get_config()", 'c.CourseDirectory.course_id = "$course_id"']
        and not (_course / "source").exists()
    ):
        _file.unlink()
