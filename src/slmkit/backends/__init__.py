"""Engines. llama.cpp is the one."""
