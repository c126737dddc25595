"""What runs in people's servers and graders, beside nbgrader. Installed in users' environments; imports little."""
