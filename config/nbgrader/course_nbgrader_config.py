# nbgrader's configuration of the course $course_id. It is yours: IllumiDesk wrote it once and never changes
# it. `nbgrader quickstart $course_id` puts its own in its place. Every setting: `nbgrader generate_config`,
# or https://nbgrader.readthedocs.io/en/stable/configuration/config_options.html
c = get_config()

c.CourseDirectory.course_id = "$course_id"

# Cells that begin and end every assignment that is generated:
# c.IncludeHeaderFooter.header = "source/header.ipynb"
# c.IncludeHeaderFooter.footer = "source/footer.ipynb"

# Seconds that one cell may take when submissions are graded:
# c.ExecutePreprocessor.timeout = 60
