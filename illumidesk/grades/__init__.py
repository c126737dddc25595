"""Grades on their way from a gradebook to a platform: which column they go to, and the queue that sends them."""
