"""Losses of the task heads, `mta_perception/model/tasks`."""
