"""This computer, and a child's memory. The door of psutil."""
