"""llama.cpp, through llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), always in a child process.

The parent's side: `child` (start, listen, turn death into typed errors) and a module for each thing to ask for. The
child's side: `worker` (the program), `jobs` (what it can do), `native` (the only import of llama_cpp) and `bindings`.
"""
